"""Whether probabilities can be believed, and what a head may keep to itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from cache.errors import HeadError
from stages.heads.abstention import effective, threshold_for
from stages.heads.calibration import reliability
from stages.heads.intervals import wilson
from stages.heads.predictions import Probabilities
from stages.report.board import Board, Row
from stages.report.figures import abstention_figure, reliability_figure

# Accuracies for which the page says from which confidence on they are reached.
WISHED = (0.9, 0.95, 0.98, 0.99, 0.995)


@dataclass(frozen=True)
class Calibration:
    """Calibration error of a head on ``split`` before and after the temperature that was fitted on validation; None for few images, where
    an error of 0 says nothing.

    ``interval`` is that of ``after``; ``ece`` is the expected calibration error after the temperature, and ``by_chance`` what it would be
    for true probabilities.
    """

    row: Row
    split: str
    temperature: float
    before: float | None
    after: float | None
    interval: tuple[float, float] | None
    ece: float
    by_chance: float


def calibrations(board: Board) -> list[Calibration]:
    """In the order of the board."""
    found = []
    for row in board.rows:
        split = "test" if row.test else "validation"
        metrics = row.result["metrics"][split]
        after, interval = metrics["calibrated"], metrics["calibrated"]["calibration_error_interval"]
        before, error = (each["calibration_error"] if interval else None for each in (metrics, after))
        ends, ece = interval and tuple(interval), (after["ece"], after["ece_by_chance"])
        found.append(Calibration(row, split, row.result["temperature"], before, error, ends, *ece))
    return found


def reliability_of(found: Probabilities, name: str, split: str, effect: float) -> Markup:
    """The reliability diagram of the best head: accuracy by confidence, in bins of as many images, with intervals for the design
    ``effect`` of groups.
    """
    bins = reliability(found.p.max(axis=1), found.p.argmax(axis=1) == found.y)
    intervals = [wilson(each.accuracy * each.n / effect, each.n / effect) for each in bins]
    return reliability_figure(bins, intervals, f"{name}: accuracy by confidence on {split}", split)


@dataclass(frozen=True)
class Answer:
    """From the ``threshold`` on, which was found on validation for the accuracy that is ``wished``, this ``share`` of the images of
    a split is answered, with this ``accuracy`` and its 95% interval; None where none is.
    """

    wished: float
    threshold: float
    share: float
    accuracy: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Abstention:
    """What a head may keep to itself on ``split``: the figure, the table, and which accuracies validation cannot show of a head that was
    chosen ``among`` so many.
    """

    row: Row
    split: str
    among: int
    figure: Markup
    answers: list[Answer]
    out_of_reach: list[float]


def describe_abstention(row: Row, among: int) -> Abstention | None:
    """Of a head that validation chose ``among`` so many; None for one that an earlier version trained."""
    found: Mapping[str, Any] | None = row.result.get("abstention")
    if found is None:
        return None
    split = "test" if row.test else "validation"
    n = row.result["metrics"][split]["n"]
    answers, out_of_reach = [], []
    for wished in WISHED:
        try:
            threshold = threshold_for(found, wished, among)
        except HeadError:
            out_of_reach.append(wished)
            continue
        place = found["thresholds"].index(threshold)
        answered, right = found[split][place]
        alone, right_alone = effective(found, split, place)
        low, high = wilson(right_alone, alone)
        answers.append(Answer(wished, threshold, answered / n, right / answered if answered else None, low, high))
    label = f"{row.name}: accuracy by the share of images answered on {split}"
    return Abstention(row, split, among, abstention_figure(found[split], n, label, split), answers, out_of_reach)
