"""95% confidence intervals, each by a method that stays sane at the edges: few images, all of them right, all of them wrong.

``bench/coverage.py`` simulates how often each holds the truth. Where no method does, there is no interval: None.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
# Of means with long tails, such as the log loss: below, what was not drawn yet decides, and no method knows it.
LEAST_ROWS = 100
# Of means over classes: below so many images in one of them, its share is known too badly for a mean.
LEAST_OF_A_CLASS = 5
# Draws of the permutation test.
FLIPS = 10_000
# Right and wrong images that are added to a confusion matrix, so that its variance is not that of a matrix without mistakes.
ADDED = 2.0
# Half the 5% quantiles of χ² with 2x degrees of freedom: where a rare event that was seen x times may begin.
RARE = (0.0, 0.05129, 0.35536, 0.81769)

Interval = tuple[float, float]
# Of the smoothed shares (true, predicted): the score, and its slope at each of them.
Gradient = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]


def wilson(correct: float, n: float, z: float = Z95) -> Interval:
    """Wilson's score interval for a share of ``correct`` out of ``n``, 95% by default.

    Wilson, J. Am. Stat. Assoc. 22 (1927) 209. With one to three images right, or wrong, the end towards which they lie is L. Brown,
    T. Cai and A. DasGupta's (Stat. Sci. 16 (2001) 101), as Wilson's is too near. ``n`` may be an effective number: of as many
    independent images as would give the same variance (E. Korn, B. Graubard, Survey Methodology 24 (1998) 193).
    """
    if n <= 0:
        return 0.0, 1.0
    share = min(max(correct / n, 0.0), 1.0)
    centre = share + z * z / (2 * n)
    spread = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = max(0.0, float((centre - spread) / scale)), min(1.0, float((centre + spread) / scale))
    if z == Z95:
        few = RARE if n > 50 else RARE[:3]
        low = min([low, *(each / n for x, each in enumerate(few) if abs(correct - x) < 1e-9)])
        high = max([high, *(1 - each / n for x, each in enumerate(few) if abs(n - correct - x) < 1e-9)])
    return low, high


def design_effect(right: NDArray[np.bool_], groups: NDArray[np.int64] | None) -> float:
    """By how much groups of like images raise the variance of an accuracy: the number that n is divided by, 1 or more.

    L. Kish, "Survey Sampling" (1965), section 8.2, from the variance between groups, with Student's t for their number in the place
    of the normal distribution. Where fewer than ``LEAST_OF_A_CLASS`` groups have a mistake, or a right answer, nothing is known of
    it, and each group counts as one image.
    """
    if groups is None or len(right) < 2:
        return 1.0
    which, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    if len(sizes) == len(right):
        return 1.0
    share, hits = right.mean(), np.bincount(which, right)
    if min((hits > 0).sum(), (hits < sizes).sum()) < LEAST_OF_A_CLASS:
        return len(right) / len(sizes)
    found = _between(right - share, which) / (len(right) * share * (1 - share))
    return max(1.0, float(found * wider(len(sizes))))


def _between(values: NDArray[np.float64], which: NDArray[np.intp]) -> float:
    """The variance of a sum of ``values`` (n,) whose mean is 0, of groups that are drawn as a whole."""
    sums = np.bincount(which, values)
    return float((sums**2).sum() * len(sums) / (len(sums) - 1))


def wider(groups: int) -> float:
    """By how much more variance a normal interval must allow for, where the variance is known from so few groups alone."""
    from scipy.stats import t

    return float((t.ppf(0.975, groups - 1) / Z95) ** 2)


def f1_interval(hits: float, union: float) -> Interval:
    """Of a class's F1: ``hits`` of the ``union`` of the images that have its label or are predicted as it.

    F1 is 2J ÷ (1 + J) of the share J of that union which has both, and J is a share like any other.
    """
    low, high = wilson(hits, union)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def balanced_accuracy_interval(confusion: NDArray[np.float64], value: float, effect: float = 1.0) -> Interval | None:
    """Of the mean recall ``value`` of a ``confusion`` matrix (true, predicted) of counts; see ``_by_delta_method``."""

    def gradient(p: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        true, hits = p.sum(axis=1), np.diag(p)
        slope = np.repeat((-hits / true**2)[:, None], len(p), axis=1) + np.diag(1 / true)
        return float((hits / true).mean()), slope / len(p)

    return _by_delta_method(confusion, value, gradient, effect)


def macro_f1_interval(confusion: NDArray[np.float64], value: float, effect: float = 1.0) -> Interval | None:
    """Of the mean F1 ``value`` of a ``confusion`` matrix (true, predicted) of counts; see ``_by_delta_method``.

    The gradient is that of K. Takahashi et al., Applied Intelligence 52 (2022) 4961.
    """

    def gradient(p: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        both, hits = p.sum(axis=0) + p.sum(axis=1), np.diag(p)
        down = 2 * hits / both**2
        slope = np.diag(2 / both) - down[:, None] - down[None, :]
        return float((2 * hits / both).mean()), slope / len(p)

    return _by_delta_method(confusion, value, gradient, effect)


def _by_delta_method(
    confusion: NDArray[np.float64], value: float, gradient: Gradient, effect: float
) -> Interval | None:
    """Wilson's interval at the effective number of images, which the delta method gives for a smoothed confusion matrix.

    Two right and two wrong images are added for the variance, divided as the classes are, as Agresti and Coull (Am. Stat. 52
    (1998) 119) add them to a share. None where a class that occurs has fewer than ``LEAST_OF_A_CLASS`` images.
    """
    true = confusion.sum(axis=1)
    there = true > 0
    if not there.any() or true[there].min() < LEAST_OF_A_CLASS:
        return None
    # A class that no image has, but that was predicted, has no recall and no part in the mean.
    counts, n = confusion[np.ix_(there, there)], confusion.sum()
    shares = true[there] / true.sum()
    wrong = np.outer(shares, shares) * (1 - np.eye(len(counts)))
    smoothed = counts + ADDED * np.diag(shares) + (ADDED * wrong / wrong.sum() if len(counts) > 1 else 0)
    p = smoothed / smoothed.sum()
    expected, slope = gradient(p)
    variance = float((p * slope**2).sum() - (p * slope).sum() ** 2)
    effective = n * expected * (1 - expected) / max(variance, 1e-12) / effect
    return wilson(value * effective, effective)


class AreaUnderCurve(NamedTuple):
    """The mean area under the ROC curves of each class against the others, and its interval."""

    value: float
    interval: Interval | None


def area_under_curve(y: NDArray[np.int64], p: NDArray[np.float64], effect: float = 1.0) -> AreaUnderCurve | None:
    """Of labels (n,) and probabilities (n, classes); None where ``y`` has one class alone.

    The variance is that of E. DeLong et al., Biometrics 44 (1988) 837, with a quarter of what J. Hanley and B. McNeil, Radiology
    143 (1982) 29, expect, as the first is nothing where every pair is in order; the interval is Wilson's at the number of images
    that would give this variance. For two classes it is R. Newcombe's (Stat. Med. 25 (2006) 559, method 5).
    """
    from scipy.stats import rankdata

    classes = [c for c in range(p.shape[1]) if 0 < (y == c).sum() < len(y)]
    if not classes:
        return None
    if p.shape[1] == 2:
        classes = [1]
    areas, expected, parts = [], 0.0, np.zeros(len(y))
    for c in classes:
        mine = y == c
        m, k = int(mine.sum()), int((~mine).sum())
        ranks = rankdata(p[:, c])
        above = (ranks[mine] - rankdata(p[mine, c])) / k
        below = 1 - (ranks[~mine] - rankdata(p[~mine, c])) / m
        area = float(above.mean())
        areas.append(area)
        parts[mine] += (above - area) / m
        parts[~mine] += (below - area) / k
        expected += _hanley(min(area, 1 - 0.25 / min(m, k)), m, k)
    value = float(np.mean(areas))
    if p.shape[1] == 2:
        return AreaUnderCurve(value, _newcombe(value, m / effect, k / effect))
    variance = (float((parts**2).sum()) + expected / 4) / len(classes) ** 2
    share = min(value, 1 - 0.25 / len(y))
    effective = share * (1 - share) / max(variance, 1e-12) / effect
    return AreaUnderCurve(value, wilson(value * effective, effective))


def _hanley(area: float, m: float, k: float) -> float:
    mean = (m + k) / 2 - 1
    return area * (1 - area) / (m * k) * (1 + mean * (1 - area) / (2 - area) + mean * area / (1 + area))


def _newcombe(area: float, m: float, k: float) -> Interval:
    from scipy.optimize import brentq

    def beyond(truth: float) -> float:
        return float((area - truth) ** 2 - Z95**2 * _hanley(truth, m, k))

    step = 1e-9
    low = brentq(beyond, 0, area - step) if area > step and beyond(area - step) < 0 else 0.0
    high = brentq(beyond, area + step, 1) if area < 1 - step and beyond(area + step) < 0 else 1.0
    return float(low), float(high)


def mean_interval(values: NDArray[np.float64], effect: float = 1.0) -> Interval | None:
    """Of the mean of ``values`` (n,) that are not negative and may have a long tail, such as losses; None for fewer than 100.

    Student's t, corrected for skewness by the cubic of P. Hall, J. R. Stat. Soc. B 54 (1992) 221.
    """
    from scipy.stats import skew, t

    n = len(values) / effect
    if n < LEAST_ROWS or not np.isfinite(values).all():
        return None
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    if deviation == 0:
        return mean, mean
    skewness = float(skew(values, bias=False))
    slope = skewness / 3 if abs(skewness) > 1e-9 else 1e-9
    ends = [
        mean
        - deviation
        * (np.cbrt(1 + 3 * slope * (side * t.ppf(0.975, n - 1) / np.sqrt(n) - skewness / (6 * n))) - 1)
        / slope
        for side in (1, -1)
    ]
    return max(0.0, float(min(ends))), float(max(ends))


class Difference(NamedTuple):
    """By how much the first of two heads is more accurate on the same images, with its interval and the p-value of no difference."""

    value: float
    interval: Interval
    p: float


def paired_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
) -> Difference:
    """The difference of two accuracies on the same images (n,), each right or wrong.

    The interval is that of D. Bonett and R. Price, J. Educ. Behav. Stat. 37 (2012) 479; the p-value that of McNemar's exact test
    (Psychometrika 12 (1947) 153), the binomial test of the images that one of the two alone has right. With ``groups`` (n,) of like
    images, the groups change sides as a whole, in the interval and in the test (a permutation test, 10,000 draws).
    """
    from scipy.stats import binomtest

    n = len(first)
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(binomtest(one, one + other).pvalue) if one + other else 1.0
    effect = 1.0
    if groups is not None and one + other and len(which := np.unique(groups, return_inverse=True)[1]):
        sums = np.bincount(which, first.astype(float) - second)
        mean = (one - other) / n
        by_image = one + other - n * mean**2
        centred = first.astype(float) - second - mean
        if len(sums) > 1 and by_image > 0:
            effect = max(1.0, _between(centred, which) / by_image * wider(len(sums)))
        signs = np.random.default_rng(0).choice((-1.0, 1.0), (FLIPS, len(sums)))
        p = float((1 + (np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).sum()) / (1 + FLIPS))
    n_like = n / effect
    more, less = (one / effect + 1) / (n_like + 2), (other / effect + 1) / (n_like + 2)
    spread = Z95 * np.sqrt((more + less - (more - less) ** 2) / (n_like + 2))
    middle = more - less
    return Difference(
        (one - other) / max(n, 1), (max(-1.0, float(middle - spread)), min(1.0, float(middle + spread))), p
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, adjusted so that one that falls below 5% by chance alone is met in 5% of such families.

    S. Holm, Scand. J. Stat. 6 (1979) 65.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    out, highest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        out[i] = highest
    return out
