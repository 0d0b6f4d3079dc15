"""Suspicious labels: what a linear head that has not seen an image says of it, against the label that it has."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.audit.contents import Contents
from stages.audit.folds import folds
from stages.audit.linear import STRENGTHS, asked, best_of, standardised
from stages.heads.intervals import wilson
from stages.progress import SILENT, Progress

FOLDS = 5
# What lacks where confident learning cannot be done, and how it is got.
MISSING = (
    'suspicious labels: expected the package cleanlab, found none; run .venv/bin/python -m pip install -e ".[audit]", '
    "then make audit"
)


@dataclass(frozen=True)
class OutOfFold:
    """Log-probabilities ``logs`` (r, c) float64 of the files ``rows`` (r,), by heads that were fitted on the other folds.

    ``classes`` (c,) are the positions of the classes that are judged, ``few`` the names of those with too few images to be. Of
    copies with one label only the first is judged. ``C`` is the strength that was taken, ``accuracy`` the share of files whose label
    is the most probable.
    """

    rows: NDArray[np.int64]
    classes: NDArray[np.int64]
    few: tuple[str, ...]
    logs: NDArray[np.float64]
    C: float
    accuracy: float


@dataclass(frozen=True)
class Suspicion:
    """A file, by its position, whose label may be wrong; ``likely`` is the likely one, and both have their probability."""

    row: int
    likely: int
    p_label: float
    p_likely: float


def out_of_fold(contents: Contents, kin: NDArray[np.int64], progress: Progress = SILENT) -> OutOfFold:
    """Score each file by a head that saw neither it nor any of its kin (u,). Splits have no part in this: nothing is selected
    that is scored afterwards.

    The strength is that with the lowest log loss on the first fold. Raises HeadError where fewer than two classes can be judged, and
    where the features cannot be fitted.
    """
    rows = contents.distinct("train", "validation", "test")
    families = np.unique(np.stack([contents.y[rows], kin[contents.of[rows]]]), axis=1)[0]
    enough = np.bincount(families, minlength=len(contents.classes)) >= FOLDS
    few = tuple(name for name, judged in zip(contents.classes, enough, strict=True) if not judged)
    classes = np.flatnonzero(enough)
    if len(classes) < 2:
        raise HeadError(
            f"expected two classes with at least {FOLDS} images that are not alike, found {len(classes) or 'none'}"
        )
    rows = rows[enough[contents.y[rows]]]
    y = np.searchsorted(classes, contents.y[rows])
    fold = folds(contents, kin, rows, FOLDS)
    # By roots a linear head tells more classes apart (bench.audit).
    X = standardised(contents.unit[contents.of[rows]], np.arange(len(rows)))
    logs = np.zeros((len(rows), len(classes)))
    strengths: tuple[float, ...] = STRENGTHS
    with progress.task("Checking labels", FOLDS, "folds") as advance:
        for each in range(FOLDS):
            held, rest = np.flatnonzero(fold == each), np.flatnonzero(fold != each)
            if len(held):
                found = asked(X[rest], y[rest], X[held], [contents.classes[i] for i in classes], strengths)
                best = best_of(found, y[held])
                logs[held], strengths = found[best], (strengths[best],)
            advance(1)
    return OutOfFold(rows, classes, few, logs, strengths[0], float((logs.argmax(axis=1) == y).mean()))


def suspicions(contents: Contents, scored: OutOfFold) -> list[Suspicion]:
    """The files whose labels are likely to be wrong, the most suspicious first.

    Confident learning (C. Northcutt, L. Jiang, I. Chuang, J. Artif. Intell. Res. 70 (2021) 1373), as cleanlab does it, tells how many
    labels are wrong; these are the ones that are the least probable. Of cleanlab's ways to choose them this one had the
    highest precision and recall in ``bench.audit``. Raises HeadError where heads are no better than chance or would have more than
    half of the labels wrong, and ModuleNotFoundError where cleanlab is not installed.
    """
    from cleanlab.filter import find_label_issues

    y = np.searchsorted(scored.classes, contents.y[scored.rows])
    p = np.exp(scored.logs)
    p /= p.sum(axis=1, keepdims=True)
    ranked = find_label_issues(
        y, p, filter_by="low_self_confidence", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    # Right as often as one that always says the most frequent class: nothing that it says of a label is worth anything.
    chance = np.bincount(y).max() / len(y)
    if wilson(scored.accuracy * len(y), len(y))[0] <= chance or 2 * len(ranked) > len(y):
        raise HeadError(
            f"a linear head is right for {scored.accuracy:.0%} of the images that it has not seen, too seldom to judge labels; "
            "another base may tell the classes apart"
        )
    found = []
    for i in ranked:
        other = p[i].copy()
        other[y[i]] = -1
        likely = int(other.argmax())
        # All copies that have this label: they stand side by side.
        row = int(scored.rows[i])
        last = row + 1
        while last < len(contents.of) and contents.of[last] == contents.of[row] and contents.y[last] == contents.y[row]:
            last += 1
        doubt = (int(scored.classes[likely]), float(p[i, y[i]]), float(p[i, likely]))
        found += [Suspicion(each, *doubt) for each in range(row, last)]
    return found
