"""How many photos are enough: the accuracy of a linear head on parts of train, and what twice as many might give.

A power law, error = a + b·n^-c, describes how heads learn from n images (J. Hestness et al., arXiv:1712.00409, 2017); fitted to
accuracies of smaller parts, weighted by how sure they are, it tells what more images give (R. Figueroa et al., BMC Med. Inform. Decis.
Mak. 12 (2012) 8).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.audit.contents import Contents
from stages.audit.leak import with_kin_in
from stages.audit.linear import STRENGTHS, asked, best_of, standardised
from stages.heads.intervals import design_effect, wilson
from stages.progress import SILENT, Progress

# Shares of train, and how often each is drawn: small parts differ most from draw to draw.
DRAWS = {0.05: 5, 0.1: 5, 0.25: 3, 0.5: 2, 1.0: 1}
# Validation images that a curve needs to tell anything.
FEWEST = 20
# Where the exponent of the law is looked for first.
EXPONENTS = tuple(np.geomspace(0.05, 2, 12))
# Images in the smallest part from which on the law is taken to hold (bench.coverage --only learning).
LAWFUL = 100
# Samples of the bootstrap.
RESAMPLES = 200


@dataclass(frozen=True)
class Point:
    """A part of train, drawn once: ``images`` in it, ``right`` (m,) bool for each validation image, at the strength ``C``."""

    share: float
    draw: int
    images: int
    C: float
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class Curve:
    """``points`` of parts of train, on the same validation images, whose ``kin`` (m,) int64 tells which of them are alike."""

    points: Sequence[Point]
    kin: NDArray[np.int64]


@dataclass(frozen=True)
class Law:
    """error = a + b·(n / whole)^-c, the accuracy that it gives for twice the images, with its 95% ``interval``, and what it gives ``more``
    than for the images that there are, with that of this difference.
    """

    a: float
    b: float
    c: float
    whole: int
    doubled: float
    interval: tuple[float, float]
    more: float
    more_interval: tuple[float, float]


def learning_curve(contents: Contents, kin: NDArray[np.int64], progress: Progress = SILENT) -> Curve:
    """Fit a linear head to parts of train, and score it on validation.

    Images with kin (u,) in train are not scored: they would be right as soon as theirs are drawn. Copies count once. The strength is
    that with the lowest log loss on validation in the first draw of a share, and no more than one step from that of the share before.
    Raises HeadError where validation has too few images, and where the features cannot be fitted.
    """
    train, copied = contents.distinct("train"), with_kin_in("train", contents, kin)
    scored = contents.distinct("validation")
    scored = scored[~copied[scored]]
    if len(scored) < FEWEST:
        raise HeadError(
            f"expected at least {FEWEST} validation images that are like none in train, found {len(scored)}"
        )
    if len(contents.classes) < 2:
        raise HeadError(f"expected two classes at least, found {len(contents.classes)}")
    X, y = standardised(contents.X, contents.of[train]), contents.y
    others = X[contents.of[scored]]
    orders = [order(contents, kin, train, draw) for draw in range(max(DRAWS.values()))]
    points: list[Point] = []
    near: Sequence[float] = STRENGTHS
    with progress.task("Learning curve", sum(DRAWS.values()), "heads") as advance:
        for share, draws in DRAWS.items():
            strengths = near
            for draw in range(draws):
                rows = part(contents, orders[draw], share)
                logs = asked(X[contents.of[rows]], y[rows], others, contents.classes, strengths)
                best = best_of(logs, y[scored])
                strengths = (strengths[best],)
                right = logs[best].argmax(axis=1) == y[scored]
                points.append(Point(share, draw, len(rows), strengths[0], right))
                advance(1)
            place = STRENGTHS.index(strengths[0])
            near = STRENGTHS[max(place - 1, 0) : place + 2]
    return Curve(points, kin[contents.of[scored]])


def order(contents: Contents, kin: NDArray[np.int64], train: NDArray[np.int64], draw: int) -> NDArray[np.int64]:
    """The files ``train`` (t,) in the order in which a draw takes them: by the digests of the contents, of which each draw takes other
    digits. Kin (u,) are taken one after the other, as more photos are seldom of what is there already.
    """
    turned = np.array([_turned(contents.records[row].sha256, draw) for row in contents.first], np.uint64)
    of_kin = turned[np.unique(kin, return_index=True)[1]]
    content = contents.of[train]
    found: NDArray[np.int64] = train[np.lexsort((train, turned[content], of_kin[kin[content]]))]
    return found


def part(contents: Contents, ordered: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """The first files of each class, at least one; a smaller share of the same draw is within a larger one."""
    chosen = []
    for label in range(len(contents.classes)):
        rows = ordered[contents.y[ordered] == label]
        chosen.append(rows[: int(np.ceil(share * len(rows)))])
    return np.sort(np.concatenate(chosen))


def _turned(digest: str, draw: int) -> int:
    """Sixteen digits of a digest, other ones for each draw: as good as drawn anew."""
    start = 12 * (draw % 5) + 4
    return int((digest + digest)[start : start + 16], 16)


def power_law(curve: Curve) -> Law | None:
    """The law through the points, and how sure it is; None where none can be fitted.

    The interval holds which validation images there are, and which images of train were drawn: both are drawn again with
    replacement, kin as a whole, and the law fitted again, 200 times (percentile bootstrap; Efron, Tibshirani, 1993). Parts of fewer
    than ``LAWFUL`` images may lie where no power law holds yet, and where it misses what all images came to, none does: it then promises
    too little, or too much. As gains fall from doubling to doubling, the intervals then reach as far up as that of the gain that was
    measured from half of the images to all, and the next is taken to be half as large at least.
    """
    points = curve.points
    if len({point.images for point in points}) < 4:
        return None
    whole = max(point.images for point in points)
    found = _fit(points, [point.right.mean() for point in points], whole)
    if found is None:
        return None
    rng = np.random.default_rng(0)
    which, sizes = np.unique(curve.kin, return_inverse=True, return_counts=True)[1:]
    hits = [np.bincount(which, point.right) for point in points]
    draws: dict[float, list[int]] = {}
    for place, point in enumerate(points):
        draws.setdefault(point.share, []).append(place)
    half, all_of = sorted(draws)[-2:]
    doubled, more, last = [], [], []
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(sizes), len(sizes))
        chosen = [places[i] for places in draws.values() for i in rng.integers(0, len(places), len(places))]
        again = [hits[place][drawn].sum() / sizes[drawn].sum() for place in chosen]
        of_half, of_all = (
            [a for a, i in zip(again, chosen, strict=True) if points[i].share == share] for share in (half, all_of)
        )
        last.append(np.mean(of_all) - np.mean(of_half))
        law = _fit([points[place] for place in chosen], again, whole)
        if law is not None:
            now, then = _accuracies(*law)
            doubled.append(then)
            more.append(then - now)
    now, accuracy = _accuracies(*found)
    if len(doubled) < RESAMPLES // 2:
        return None
    # Where all images are right the bootstrap sees no other case: so at least what so many images would tell of this accuracy.
    low, high = np.percentile(doubled, [2.5, 97.5])
    images = len(curve.kin) / design_effect(points[-1].right, curve.kin)
    least, most = wilson(accuracy * images, images)
    low_more, high_more = np.percentile(more, [2.5, 97.5])
    came_to = described(curve)[-1]
    is_missed = not came_to["low"] <= now <= came_to["high"]
    if is_missed or min(point.images for point in points) < LAWFUL:
        low_last, high_last = np.percentile(last, [2.5, 97.5])
        low_more, high_more = min(low_more, max(0.0, low_last / 2)), max(high_more, high_last)
        reached = max(now, came_to["accuracy"]) if is_missed else now
        high = min(1.0, max(high, reached + high_more))
    if is_missed:
        low = min(low, came_to["accuracy"])
    interval = float(min(low, least)), float(max(high, most))
    return Law(*found, whole, accuracy, interval, accuracy - now, (float(low_more), float(high_more)))


def _accuracies(a: float, b: float, c: float) -> tuple[float, float]:
    """What the law gives for the images that there are, and for twice as many."""
    return 1 - a - b, 1 - a - b * 2.0**-c


def _fit(points: Sequence[Point], accuracy: Sequence[float], whole: int) -> tuple[float, float, float] | None:
    """a and b, not negative, and c, from 0.05 to 2, by weighted least squares.

    For a given c the others follow (variable projection: G. Golub, V. Pereyra, SIAM J. Numer. Anal. 10 (1973) 413), so that c alone is
    looked for: on a grid, and then around the best of it.
    """
    from scipy.optimize import minimize_scalar, nnls

    n = np.array([point.images / whole for point in points])
    error = 1 - np.array(accuracy)
    m = len(points[0].right)
    # That of a share of m images; none is taken for certain.
    deviation = np.sqrt(np.maximum(error * (1 - error), 1 / m) / m)

    def solved(c: float) -> tuple[NDArray[np.float64], float]:
        found: tuple[NDArray[np.float64], float] = nnls(
            np.stack([1 / deviation, n**-c / deviation], axis=1), error / deviation
        )
        return found

    try:
        best = int(np.argmin([solved(c)[1] for c in EXPONENTS]))
        around = EXPONENTS[max(best - 1, 0)], EXPONENTS[min(best + 1, len(EXPONENTS) - 1)]
        c = float(minimize_scalar(lambda c: solved(c)[1], bounds=around, method="bounded", options={"xatol": 1e-3}).x)
        (a, b), _ = solved(c)
    except RuntimeError:  # no fit within the steps allowed
        return None
    return float(a), float(b), c


def described(curve: Curve) -> list[dict[str, float | int]]:
    """For each share the mean accuracy of its draws, and Wilson's interval for as many images as those that were scored are worth."""
    out: list[dict[str, float | int]] = []
    for share in dict.fromkeys(point.share for point in curve.points):
        mine = [point for point in curve.points if point.share == share]
        mean = float(np.mean([point.right.mean() for point in mine]))
        worth = len(curve.kin) / float(np.mean([design_effect(point.right, curve.kin) for point in mine]))
        low, high = wilson(mean * worth, worth)
        row = {"share": share, "images": mine[0].images, "draws": len(mine), "accuracy": mean, "low": low, "high": high}
        out.append(row)
    return out
