"""How many photos are enough: the accuracy of a linear head on parts of train, and what twice as many might give.

A power law, error = a + b·n^-c, describes how heads learn from n images (J. Hestness et al., arXiv:1712.00409, 2017); fitted to
accuracies of smaller parts, weighted by how sure they are, it tells what more images give (R. Figueroa et al., BMC Med. Inform. Decis.
Mak. 12 (2012) 8).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.audit.contents import Contents
from stages.audit.linear import STRENGTHS, asked
from stages.heads.intervals import Interval, design_effect, wilson
from stages.progress import SILENT, Progress

# Shares of train, and how often each is drawn: small parts differ most from draw to draw.
DRAWS = {0.05: 5, 0.1: 5, 0.25: 3, 0.5: 2, 1.0: 1}
# Validation images that a curve needs to tell anything.
FEWEST = 20
# Samples of the bootstrap.
RESAMPLES = 200


@dataclass(frozen=True)
class Point:
    """A part of train, drawn once: ``images`` in it, ``right`` (m,) bool for each validation image, at the strength ``C``; ``groups``
    (m,) are those of these images, None where groups are not used.
    """

    share: float
    draw: int
    images: int
    C: float
    right: NDArray[np.bool_]
    groups: NDArray[np.int64] | None = None

    @property
    def interval(self) -> Interval:
        """Of its accuracy."""
        return _interval([self])


@dataclass(frozen=True)
class Law:
    """error = a + b·(n / whole)^-c, and the accuracy that it gives for twice the images, with its 95% interval."""

    a: float
    b: float
    c: float
    whole: int
    doubled: float
    interval: tuple[float, float]

    def accuracy(self, n: float) -> float:
        """Of a head on n images."""
        return 1 - float(_error(np.array([n / self.whole]), self.a, self.b, self.c)[0])


def learning_curve(contents: Contents, copied: NDArray[np.bool_], progress: Progress = SILENT) -> list[Point]:
    """Fit a linear head to parts of train, and score it on validation; empty where validation has too few images.

    Images (n,) with a near-copy in train are not scored: they would be right as soon as their copy is drawn. The strength is that
    with the lowest log loss on validation, the same for all draws of a share. Raises HeadError where the features cannot be fitted.
    """
    train = contents.rows("train")
    scored = np.array([row for row in contents.distinct("validation") if not copied[row]], np.int64)
    if len(scored) < FEWEST:
        return []
    X, y = contents.X[contents.of], contents.y
    groups = None if contents.groups is None else contents.groups[scored]
    points: list[Point] = []
    with progress.task("Learning curve", sum(DRAWS.values()), "heads") as advance:
        for share, draws in DRAWS.items():
            parts = [part(contents, train, share, draw) for draw in range(draws)]
            logs = np.empty((draws, len(STRENGTHS), len(scored), len(contents.classes)))
            for draw, rows in enumerate(parts):
                logs[draw] = asked(X[rows], y[rows], X[scored], contents.classes)
                advance(1)
            loss = -logs[:, :, np.arange(len(scored)), y[scored]].mean(axis=(0, 2))
            best = int(loss.argmin())
            points += [
                Point(share, draw, len(rows), STRENGTHS[best], logs[draw, best].argmax(axis=1) == y[scored], groups)
                for draw, rows in enumerate(parts)
            ]
    return points


def part(contents: Contents, train: NDArray[np.int64], share: float, draw: int) -> NDArray[np.int64]:
    """The files of a share of train, at least one of each class; a smaller share of the same draw is within a larger one.

    Drawn by the digests of the contents, of which each draw takes other digits, and class by class.
    """
    chosen = []
    for label in range(len(contents.classes)):
        rows = map(int, train[contents.y[train] == label])
        ordered = sorted(rows, key=lambda row: (_order(contents.records[row].sha256, draw), row))
        chosen += ordered[: int(np.ceil(share * len(ordered)))]
    return np.array(sorted(chosen), np.int64)


def _order(digest: str, draw: int) -> str:
    """Digits of a digest, turned so that each draw begins at others: as good as drawn anew."""
    start = 12 * (draw % 5) + 4
    return digest[start:] + digest[:start]


def power_law(points: Sequence[Point]) -> Law | None:
    """The law through the points, and how sure it is; None where none can be fitted.

    The interval holds which validation images there are, and which images of train were drawn: both are drawn again with
    replacement, groups of images as a whole, and the law fitted again, 200 times (percentile bootstrap; Efron, Tibshirani, 1993).
    """
    if len({point.images for point in points}) < 4:
        return None
    whole = max(point.images for point in points)
    found = _fit(points, [point.right.mean() for point in points], whole)
    if found is None:
        return None
    rng = np.random.default_rng(0)
    m = len(points[0].right)
    which = np.arange(m) if points[0].groups is None else np.unique(points[0].groups, return_inverse=True)[1]
    units = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    draws: dict[float, list[int]] = {}
    for place, point in enumerate(points):
        draws.setdefault(point.share, []).append(place)
    doubled = []
    for _ in range(RESAMPLES):
        images = np.concatenate([units[i] for i in rng.integers(0, len(units), len(units))])
        chosen = [places[i] for places in draws.values() for i in rng.integers(0, len(places), len(places))]
        again = [points[place] for place in chosen]
        law = _fit(again, [point.right[images].mean() for point in again], whole)
        if law is not None:
            doubled.append(1 - float(_error(np.array([2.0]), *law)[0]))
    accuracy = 1 - float(_error(np.array([2.0]), *found)[0])
    if len(doubled) < RESAMPLES // 2:
        return None
    # Where all images are right the bootstrap sees no other case: so at least what so many images would tell of this accuracy.
    low, high = np.percentile(doubled, [2.5, 97.5])
    effect = max(design_effect(point.right, point.groups) for point in points if point.images == whole)
    least, most = wilson(accuracy * m / effect, m / effect)
    return Law(*found, whole, accuracy, (float(min(low, least)), float(max(high, most))))


def _error(n: NDArray[np.float64], a: float, b: float, c: float) -> NDArray[np.float64]:
    out: NDArray[np.float64] = a + b * n**-c
    return out


def _fit(points: Sequence[Point], accuracy: Sequence[float], whole: int) -> tuple[float, float, float] | None:
    from scipy.optimize import curve_fit

    n = np.array([point.images / whole for point in points])
    error = 1 - np.array(accuracy)
    m = len(points[0].right)
    # That of a share of m images; none is taken for certain.
    deviation = np.sqrt(np.maximum(error * (1 - error), 1 / m) / m)
    least = max(float(error.min()), 1e-6)
    try:
        (a, b, c), _ = curve_fit(
            _error, n, error, p0=(least / 2, least / 2, 0.5), sigma=deviation, bounds=((0, 0, 0.05), (1, 1, 2))
        )
    except (RuntimeError, ValueError):  # no fit within the steps allowed
        return None
    return float(a), float(b), float(c)


def described(points: Sequence[Point]) -> list[dict[str, float | int]]:
    """For each share the mean accuracy of its draws, and Wilson's interval for as many images as were scored."""
    out: list[dict[str, float | int]] = []
    for share in dict.fromkeys(point.share for point in points):
        mine = [point for point in points if point.share == share]
        mean = float(np.mean([point.right.mean() for point in mine]))
        low, high = _interval(mine)
        row = {"share": share, "images": mine[0].images, "draws": len(mine), "accuracy": mean, "low": low, "high": high}
        out.append(row)
    return out


def _interval(draws: Sequence[Point]) -> Interval:
    """Of the mean accuracy of heads that were scored on the same images: as of one head, where groups of images tell least."""
    m = len(draws[0].right)
    right = round(float(np.mean([point.right.sum() for point in draws])))
    effect = max(design_effect(point.right, point.groups) for point in draws)
    return wilson(right / effect, m / effect)
