"""The best head, class by class: precision and recall, confusion, mistakes, on the split that they are shown for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from cache.manifest import Manifest
from stages.heads.calibration import cooled, log_probabilities
from stages.heads.predictions import Probabilities, read_probabilities
from stages.report.board import Board, Row
from stages.report.figures import confusion_image
from stages.report.outcomes import Outcome, read_outcome
from stages.report.pictures import Draw, Picture, pictures
from stages.report.trust import Abstention, describe_abstention, reliability_of

# Up to so many classes the confusion matrix is a table that can be read and copied.
TABLE_CLASSES = 20
PAIRS_SHOWN = 10
WORST_SHOWN = 10
PICTURES_OF_A_PAIR = 3
# In the order of the page: name in ``result.json``, words, and whether it is a share.
SCORES = (
    ("accuracy", "accuracy", True),
    ("balanced_accuracy", "balanced accuracy", True),
    ("macro_f1", "macro F1", True),
    ("auc", "area under the ROC curve", True),
    ("top5_accuracy", "accuracy among the five most probable classes", True),
    ("log_loss", "log loss as trained", False),
    ("brier", "Brier score as trained", False),
)
AFTER = (("log_loss", "log loss"), ("brier", "Brier score"))


@dataclass(frozen=True)
class ClassScore:
    """One class; None where a score is not defined: nothing was predicted as it, or no image has its label."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class OneScore:
    """A score of the head with its 95% interval, which is None where too few images tell; ``value`` is None where it tells nothing
    without one. ``share`` is shown in percent.
    """

    words: str
    value: float | None
    interval: tuple[float, float] | None
    share: bool


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix; ``share`` of its row, ``kind`` is right, wrong or none."""

    images: int
    share: float
    kind: str


@dataclass(frozen=True)
class Pair:
    """A confusion: so many images of ``true``, a share of all of them, were taken for ``predicted``, some of them pictured."""

    true: str
    predicted: str
    images: int
    share: float
    pictures: list[Picture]


@dataclass(frozen=True)
class Best:
    """What the page says of the best head. ``table`` is filled up to ``TABLE_CLASSES`` classes, ``image`` above."""

    row: Row
    split: str
    outcome: Outcome
    scores: list[OneScore]
    reliability: Markup
    abstention: Abstention | None
    classes: list[ClassScore]
    worst: list[ClassScore]
    table: list[tuple[str, list[Cell], int]]
    image: Markup | None
    pairs: list[Pair]
    pictures: list[Picture]


def describe_best(board: Board, manifest: Manifest, root: Path | None, draw: Draw | None = None) -> Best:
    """Read the predictions of the best head of a board, which has one; on test where there is a test split, else on validation. ``draw``
    is as in ``pictures``.
    """
    row = board.rows[0]
    split = "test" if row.test else "validation"
    classes: list[str] = row.result["classes"]
    outcome = read_outcome(row.head.folder, manifest, classes, split)
    metrics = row.result["metrics"][split]
    of_class = _class_scores(row, split, outcome.counts)
    many = len(classes) > TABLE_CLASSES
    label = f"confusion matrix of {row.name} on {split}, {len(classes)} classes; a table of confusions follows"
    return Best(
        row=row,
        split=split,
        outcome=outcome,
        scores=_scores(metrics),
        reliability=reliability_of(_calibrated(row, classes, split), row.name, split, metrics["design_effect"]),
        abstention=describe_abstention(row, board.among),
        classes=of_class,
        worst=_worst(of_class) if many else [],
        table=[] if many else _table(outcome.counts, classes),
        image=confusion_image(outcome.counts, classes, label) if many else None,
        pairs=_pairs(outcome, root),
        pictures=pictures(outcome.mistakes, root, draw),
    )


def _class_scores(row: Row, split: str, counts: Counter[tuple[str, str]]) -> list[ClassScore]:
    predicted = Counter[str]()
    for (_, name), images in counts.items():
        predicted[name] += images
    out = []
    for name, found in row.result["metrics"][split]["per_class"].items():
        support = found["support"]
        precision = found["precision"] if predicted[name] else None
        recall, f1 = (found["recall"], found["f1"]) if support else (None, None)
        intervals = {key: tuple(found[f"{key}_interval"]) for key in ("precision", "recall", "f1")}
        out.append(ClassScore(name, precision, recall, f1, support, intervals))
    return out


def _scores(metrics: dict[str, Any]) -> list[OneScore]:
    """Those of the head as trained, and those that the temperature changes after it."""
    after = metrics["calibrated"]
    rows = [(words, metrics.get(name), metrics.get(f"{name}_interval"), share) for name, words, share in SCORES]
    rows += [(f"{words} after the temperature", after[name], after[f"{name}_interval"], False) for name, words in AFTER]
    found = [OneScore(words, value, limits, share) for words, value, limits, share in rows if value is not None]
    # Less what chance gives, it is 0.0% for most heads that few images tell of.
    limits = after["calibration_error_interval"]
    error = after["calibration_error"] if limits else None
    return [*found, OneScore("calibration error after the temperature", error, limits, True)]


def _calibrated(row: Row, classes: list[str], split: str) -> Probabilities:
    """The probabilities that ``predict`` gives."""
    found = read_probabilities(row.head.folder, classes, split)
    if found.calibrated:
        return found
    return replace(found, p=np.exp(cooled(log_probabilities(found.p), row.result["temperature"])))


def _worst(scores: Sequence[ClassScore]) -> list[ClassScore]:
    scored = [score for score in scores if score.f1 is not None]
    return sorted(scored, key=lambda score: (score.f1 or 0.0, score.name))[:WORST_SHOWN]


def _table(counts: Counter[tuple[str, str]], classes: Sequence[str]) -> list[tuple[str, list[Cell], int]]:
    rows = []
    for true in classes:
        total = sum(counts[true, name] for name in classes)
        cells = [_cell(counts[true, name], total, true == name) for name in classes]
        rows.append((true, cells, total))
    return rows


def _cell(images: int, total: int, right: bool) -> Cell:
    if not images:
        return Cell(0, 0.0, "none")
    return Cell(images, images / total, "right" if right else "wrong")


def _pairs(outcome: Outcome, root: Path | None) -> list[Pair]:
    totals = Counter[str]()
    for (true, _), images in outcome.counts.items():
        totals[true] += images
    wrong = [(images, images / totals[t], t, p) for (t, p), images in outcome.counts.items() if t != p and images]
    found = []
    for images, share, true, predicted in sorted(wrong, key=lambda w: (-w[0], -w[1], w[2:]))[:PAIRS_SHOWN]:
        mine = [mistake for mistake in outcome.mistakes if (mistake.true, mistake.predicted) == (true, predicted)]
        found.append(Pair(true, predicted, images, share, pictures(mine[:PICTURES_OF_A_PAIR], root) if root else []))
    return found
