"""Suspicious labels: what a linear head that has not seen an image says of it, against the label that it has."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.audit.contents import Contents
from stages.audit.folds import folds
from stages.audit.linear import STRENGTHS, asked
from stages.progress import SILENT, Progress

FOLDS = 5
# What lacks where confident learning cannot be done, and how it is got.
MISSING = (
    'suspicious labels: expected the package cleanlab, found none; run .venv/bin/python -m pip install -e ".[audit]", '
    "then make audit"
)


@dataclass(frozen=True)
class OutOfFold:
    """Log-probabilities ``logs`` (n, classes) float64 of each file, by heads that were fitted on the other folds.

    ``C`` is the strength that was taken, ``accuracy`` the share of files whose label is the most probable.
    """

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


def out_of_fold(contents: Contents, group: NDArray[np.int64], progress: Progress = SILENT) -> OutOfFold:
    """Score each file by a head that saw neither it nor a near-copy of it. Splits have no part in this: nothing is selected
    that is scored afterwards.

    Raises HeadError where the features cannot be fitted.
    """
    fold, y = folds(contents, group, FOLDS), contents.y
    logs = np.zeros((len(STRENGTHS), len(y), len(contents.classes)))
    with progress.task("Checking labels", FOLDS, "folds") as advance:
        for each in range(FOLDS):
            held = np.flatnonzero(fold == each)
            rest = np.flatnonzero(fold != each)
            if len(held):
                X = contents.unit[contents.of]  # by roots a linear head tells more classes apart (bench.audit)
                logs[:, held] = asked(X[rest], y[rest], X[held], contents.classes)
            advance(1)
    loss = -logs[:, np.arange(len(y)), y].mean(axis=1)
    best = int(loss.argmin())
    return OutOfFold(logs[best], STRENGTHS[best], float((logs[best].argmax(axis=1) == y).mean()))


def suspicions(y: NDArray[np.int64], logs: NDArray[np.float64]) -> list[Suspicion]:
    """The files whose labels (n,) are likely to be wrong, the most suspicious first; ``logs`` (n, classes) are out of fold.

    Confident learning (C. Northcutt, L. Jiang, I. Chuang, J. Artif. Intell. Res. 70 (2021) 1373), as cleanlab does it, tells how many
    labels are wrong; these are the ones that are the least probable. Of cleanlab's ways to choose them this one had the
    highest precision and recall in ``bench.audit``. Raises ModuleNotFoundError where cleanlab is not installed.
    """
    from cleanlab.filter import find_label_issues

    p = np.exp(logs)
    p /= p.sum(axis=1, keepdims=True)
    ranked = find_label_issues(
        y, p, filter_by="low_self_confidence", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    found = []
    for row in ranked:
        other = p[row].copy()
        other[y[row]] = -1
        likely = int(other.argmax())
        found.append(Suspicion(int(row), likely, float(p[row, y[row]]), float(p[row, likely])))
    return found
