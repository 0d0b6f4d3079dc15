"""What each method gained and cost: from scratch, frozen, frozen with views, fine-tuned from the cache, end to end, ensembles."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.extract.cost import CostSpec
from stages.report.board import Board, Row, Score
from stages.report.data import BaseSummary
from stages.report.text import NONE, decimal, interval, percent

# In the order of the page, with the kinds of heads that are trained so; the others are heads on features of a frozen base.
KINDS = {
    "cnn": "from scratch",
    "finetune": "fine-tuned from the cache",
    "end_to_end": "end to end",
    "ensemble": "ensemble",
}
METHODS = (KINDS["cnn"], "frozen", "frozen + views", KINDS["finetune"], KINDS["end_to_end"], KINDS["ensemble"])
# Trained on images, and not on features from the cache.
ON_IMAGES = ("cnn", "end_to_end")


@dataclass(frozen=True)
class MethodRow:
    """One method and its best head by validation, of so many ``heads``. Scores are of the metric that ranks, in words, with their interval.

    ``seconds`` are those of training, and ``images`` how many were decoded or went through the base meanwhile; both with those of the
    heads that it is made of. ``extracted`` is how many images and views went through the base before, once for all heads, and
    ``extraction`` their seconds, None where it is not known. ``money`` is for both, in words.
    """

    method: str
    heads: int
    best: Row
    validation: str
    test: str
    seconds: float
    images: int
    extracted: int
    extraction: float | None
    money: str | None


def describe_methods(board: Board, bases: Sequence[BaseSummary], metric: str, cost: CostSpec | None) -> list[MethodRow]:
    """A row for each method that heads were trained by; none where all were trained by one."""
    by_name = {row.name: row for row in board.rows}
    found: dict[str, list[Row]] = {}
    for row in board.rows:
        found.setdefault(method_of(row), []).append(row)
    if len(found) < 2:
        return []
    return [_row(method, found[method], by_name, bases, metric, cost) for method in METHODS if method in found]


def method_of(row: Row) -> str:
    """How a head was trained, by its kind, and by the features that it was trained on."""
    frozen = "frozen + views" if row.result["spec"].get("views") else "frozen"
    return KINDS.get(row.result["kind"], frozen)


def _row(
    method: str,
    rows: Sequence[Row],
    by_name: Mapping[str, Row],
    bases: Sequence[BaseSummary],
    metric: str,
    cost: CostSpec | None,
) -> MethodRow:
    best = rows[0]  # the board is sorted
    parts = {id(each): each for each in _parts(best.result, by_name)}.values()
    seconds = sum(part["seconds"] for part in parts)
    images, extraction = _extracted(list(parts), bases)
    money = cost.in_words(cost.of(seconds + extraction)) if cost and extraction is not None else None
    return MethodRow(
        method,
        len(rows),
        best,
        _words(best.validation, metric),
        _words(best.test, metric) if best.test else NONE,
        seconds,
        sum(part.get("images_read", 0) for part in parts),
        images,
        extraction,
        money,
    )


def _parts(result: Mapping[str, Any], by_name: Mapping[str, Row]) -> Iterator[Mapping[str, Any]]:
    """What a head tells of its training, and what those tell that it is made of."""
    yield result
    yield from result.get("heads", [])
    if "heads" in result:
        return
    for name in result.get("needs", {}):
        if name in by_name:
            yield from _parts(by_name[name].result, by_name)


def _extracted(parts: Sequence[Mapping[str, Any]], bases: Sequence[BaseSummary]) -> tuple[int, float | None]:
    """How many images and views went through bases for these heads, and the seconds of that. Layers share one pass."""
    images: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for part in parts:
        if part["kind"] in (*ON_IMAGES, "ensemble"):
            continue
        for base in bases:
            if base.name != part["base"] or base.layer not in part["layers"]:
                continue
            views = part["spec"].get("views", False)
            images[base.name] = max(images.get(base.name, 0), base.rows + (base.view_rows if views else 0))
            known = base.seconds > 0 and (not views or base.view_seconds > 0)
            took = base.seconds + (base.view_seconds if views else 0) if known else float("inf")
            seconds[base.name] = max(seconds.get(base.name, 0.0), took)
    total = sum(seconds.values())
    return sum(images.values()), None if total == float("inf") else total


def _words(score: Score, metric: str) -> str:
    """A score with its interval, in percent where it is a share."""
    if metric == "log_loss":
        ends = score.chosen_interval and f" ({score.chosen_interval[0]:.3f}–{score.chosen_interval[1]:.3f})"
        return f"{decimal(score.chosen)}{ends or ''}"
    return f"{percent(score.chosen)}{f' ({interval(*score.chosen_interval)})' if score.chosen_interval else ''}"
