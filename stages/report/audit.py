"""The audit on the page: near-copies side by side, suspicious labels, outliers, the learning curve and the map."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cache.manifest import ImageRecord, Manifest
from stages.audit.results import read_table
from stages.audit.summary import doubled, warnings
from stages.report.data import AuditSummary
from stages.report.figures import learning_curve
from stages.report.pictures import data_uri

# What stands on the page of each list; the tables have all.
GROUPS, IN_GROUP, LABELS, OUTLIERS = 12, 4, 24, 12
# Pixels a side of a thumbnail, of one on the map, and how many points of it have one.
EDGE, MAP_EDGE, MAP_THUMBNAILS = 112, 48, 300
# Classes that have a colour of their own on the map.
COLOURS = 9


@dataclass(frozen=True)
class Shown:
    """An image with its split and label, and its thumbnail or the reason why there is none; ``told`` is said below it, and ``p`` are the
    probabilities of a label that looks wrong and of the likely one.
    """

    path: str
    split: str
    label: str
    source: str | None
    reason: str | None
    told: str = ""
    p: tuple[float, float] | None = None


@dataclass(frozen=True)
class Group:
    """Near-copies: the first of ``images`` pictures of one thing, and whether they are in several splits."""

    across: bool
    labels_differ: bool
    similarity: float
    members: list[Shown]
    images: int


@dataclass(frozen=True)
class Dot:
    """A point of the map, in percent from the left and from the top; ``colour`` numbers its class, 0 for all others."""

    left: float
    top: float
    colour: int
    title: str
    source: str | None


@dataclass(frozen=True)
class AuditSection:
    """What the page says of an audit. ``legend`` has the classes with a colour of their own, and how many others there are."""

    result: dict[str, Any]
    warnings: list[str]
    groups: list[Group]
    labels: list[Shown]
    outliers: list[tuple[str, int, list[Shown]]]
    curve: Markup | None
    doubled: str
    dots: list[Dot]
    legend: list[str]
    others: int

    @property
    def pictured(self) -> int:
        """How many dots show their image."""
        return sum(dot.source is not None for dot in self.dots)


def describe_audit(audit: AuditSummary, manifest: Manifest, root: Path | None) -> AuditSection:
    """The audit of the images as they are. Raises CacheError where a table of it cannot be read."""
    result = audit.result
    curve = result["curve"]
    dots, legend, others = _map(audit.folder, manifest, root)
    return AuditSection(
        result=result,
        warnings=warnings(result),
        groups=[_group(each, root) for each in result["copies"]["first"][:GROUPS]],
        labels=[_suspicious(each, root) for each in (result["labels"] or {"first": []})["first"][:LABELS]],
        outliers=[
            (what, n, [_shown(each, root, each["detail"]) for each in _of(result, what)])
            for what, n in result["outliers"]["counts"].items()
        ],
        curve=learning_curve(curve["points"], curve["law"], curve["doubled"]) if curve else None,
        doubled=doubled(curve) if curve else "",
        dots=dots,
        legend=legend,
        others=others,
    )


def _of(result: dict[str, Any], problem: str) -> list[dict[str, Any]]:
    return [each for each in result["outliers"]["first"] if each["problem"] == problem][:OUTLIERS]


def _shown(row: dict[str, Any], root: Path | None, told: str = "") -> Shown:
    source, reason = data_uri(row["path"], root, EDGE, quick=True)
    return Shown(row["path"], row["split"], row["label"], source, reason, told)


def _group(group: dict[str, Any], root: Path | None) -> Group:
    members = group["members"]
    # One of each split first, so that a leak is seen.
    firsts = list({each["split"]: each for each in reversed(members)}.values())[::-1]
    ordered = [*firsts, *(each for each in members if each not in firsts)]
    return Group(
        across=group["across"],
        labels_differ=len({each["label"] for each in members}) > 1,
        similarity=max(float(each["similarity"]) for each in members),
        members=[_shown(each, root) for each in ordered[:IN_GROUP]],
        images=group["images"],
    )


def _suspicious(row: dict[str, Any], root: Path | None) -> Shown:
    return replace(_shown(row, root, row["likely"]), p=(float(row["p_label"]), float(row["p_likely"])))


def _map(folder: Path, manifest: Manifest, root: Path | None) -> tuple[list[Dot], list[str], int]:
    rows = read_table(folder, "map.csv")
    colours = _colours(manifest.records)
    legend = list(colours) if len(manifest.classes) <= COLOURS else list(colours)[: COLOURS - 1]
    step = max(1, -(-len(rows) // MAP_THUMBNAILS))
    dots = []
    for i, row in enumerate(rows):
        source = data_uri(row["path"], root, MAP_EDGE, quick=True)[0] if i % step == 0 else None
        colour = legend.index(row["label"]) + 1 if row["label"] in legend else 0
        title = f"{row['path']}: {row['label']}, {row['split']}"
        dots.append(Dot(100 * float(row["x"]), 100 * (1 - float(row["y"])), colour, title, source))
    return dots, legend, len(manifest.classes) - len(legend)


def _colours(records: Sequence[ImageRecord]) -> list[str]:
    """Classes, those with the most images first."""
    counts = Counter(record.label for record in records)
    return sorted(counts, key=lambda name: (-counts[name], name))
