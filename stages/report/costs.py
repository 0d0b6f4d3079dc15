"""Accuracy against cost: for each base the best of its heads, beside the time, the bytes and the money that an image takes."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stages.extract.cost import CostSpec
from stages.report.board import Board, Row
from stages.report.data import BaseSummary
from stages.report.figures import Point, cost_figure
from stages.report.sections import BaseSection
from stages.report.text import NONE

# So many points with names beside them are read; more have numbers.
NAMED = 6


@dataclass(frozen=True)
class CostRow:
    """A base or a combination of its layers, and the best head on it. ``head`` is its name, without that of the base.

    ``seconds`` and ``bytes`` are for one image, ``money`` is for a thousand, in words; None where the time of extraction is not known.
    """

    title: str
    head: str
    best: Row | None
    seconds: float | None
    bytes: float | None
    money: str | None


@dataclass(frozen=True)
class Costs:
    """What the page says. ``devices`` are named where bases were computed on several, as their times cannot be compared then."""

    rows: list[CostRow]
    figure: Markup | None
    per_hour: str | None
    devices: list[str]
    numbered: bool


def describe_costs(
    bases: Sequence[BaseSection], joint: Sequence[tuple[str, Row]], board: Board, cost: CostSpec | None
) -> Costs | None:
    """None for a single base whose cost was not asked for."""
    if cost is None and len({base.summary.name for base in bases}) < 2:
        return None
    rows = [_row(base.title, base.best, [base.summary], cost) for base in bases]
    for title, row in joint:
        layers = [
            base.summary
            for base in bases
            if base.summary.name == row.result["base"] and base.summary.layer in row.result["layers"]
        ]
        rows.append(_row(title, row, layers, cost))
    numbered = len(rows) > NAMED
    points = [
        Point(
            str(i) if numbered else row.title,
            1000 * row.seconds,
            *(row.best.validation.accuracy, row.best.validation.low, row.best.validation.high),
        )
        for i, row in enumerate(rows, 1)
        if row.best and row.seconds
    ]
    # Engines on one processor can be compared: "CPU (OpenVINO)" is the CPU.
    devices = sorted(
        {
            "CPU" if device.startswith("CPU") else device
            for base in bases
            if base.summary.seconds
            for device in base.summary.devices
        }
    )
    return Costs(
        rows,
        cost_figure(points) if len(points) > 1 else None,
        cost.in_words(cost.per_hour) if cost else None,
        devices if len(devices) > 1 else [],
        numbered,
    )


def _row(title: str, best: Row | None, layers: Sequence[BaseSummary], cost: CostSpec | None) -> CostRow:
    """Layers that are extracted together share one pass, whose time each of them has."""
    there = all(base.rows for base in layers)
    times = [base.seconds / base.rows for base in layers if base.rows]
    seconds = max(times) if there and all(times) else None
    return CostRow(
        title,
        best.name.removesuffix(f"@{layers[0].name}") if best else NONE,
        best,
        seconds,
        sum(base.bytes_on_disk / base.rows for base in layers) if there else None,
        cost.in_words(cost.of(1000 * seconds)) if cost and seconds else None,
    )
