"""The best head, class by class: precision and recall, confusion, mistakes, on the split that they are shown for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from cache.manifest import Manifest
from stages.report.board import Row
from stages.report.figures import confusion_image
from stages.report.outcomes import Outcome, read_outcome
from stages.report.pictures import Picture, pictures

# Up to so many classes the confusion matrix is a table that can be read and copied.
TABLE_CLASSES = 20
PAIRS_SHOWN = 10
WORST_SHOWN = 10


@dataclass(frozen=True)
class ClassScore:
    """One class; None where a score is not defined: nothing was predicted as it, or no image has its label."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix; ``share`` of its row, ``kind`` is right, wrong or none."""

    images: int
    share: float
    kind: str


@dataclass(frozen=True)
class Pair:
    """A confusion: so many images of ``true``, a share of all of them, were taken for ``predicted``."""

    true: str
    predicted: str
    images: int
    share: float


@dataclass(frozen=True)
class Best:
    """What the page says of the best head. ``table`` is filled up to ``TABLE_CLASSES`` classes, ``image`` above."""

    row: Row
    split: str
    outcome: Outcome
    classes: list[ClassScore]
    worst: list[ClassScore]
    table: list[tuple[str, list[Cell], int]]
    image: Markup | None
    pairs: list[Pair]
    pictures: list[Picture]


def describe_best(row: Row, manifest: Manifest, root: Path | None) -> Best:
    """Read the best head's predictions; on test where there is a test split, else on validation."""
    split = "test" if row.test else "validation"
    classes: list[str] = row.result["classes"]
    outcome = read_outcome(row.head.folder, manifest, classes, split)
    of_class = _class_scores(row, split, outcome.counts)
    many = len(classes) > TABLE_CLASSES
    label = f"confusion matrix of {row.name} on {split}, {len(classes)} classes; a table of confusions follows"
    return Best(
        row=row,
        split=split,
        outcome=outcome,
        classes=of_class,
        worst=_worst(of_class) if many else [],
        table=[] if many else _table(outcome.counts, classes),
        image=confusion_image(outcome.counts, classes, label) if many else None,
        pairs=_pairs(outcome.counts),
        pictures=pictures(outcome.mistakes, root),
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
        out.append(ClassScore(name, precision, recall, f1, support))
    return out


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


def _pairs(counts: Counter[tuple[str, str]]) -> list[Pair]:
    totals = Counter[str]()
    for (true, _), images in counts.items():
        totals[true] += images
    wrong = [Pair(t, p, images, images / totals[t]) for (t, p), images in counts.items() if t != p and images]
    return sorted(wrong, key=lambda pair: (-pair.images, -pair.share, pair.true, pair.predicted))[:PAIRS_SHOWN]
