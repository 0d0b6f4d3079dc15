"""95% confidence intervals, each by a method that stays sane at the edges: few images, all of them right, all of them wrong. Those of
losses are in ``means``, those of areas under the ROC curve in ``areas``.

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
    return effect_on_sum(right - share, groups)


def effect_on_sum(values: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """By how much groups (n,) raise the variance of a sum of ``values`` (n,) whose mean is 0: 1 or more."""
    which, alone = np.unique(groups, return_inverse=True)[1], float((values**2).sum())
    return max(1.0, _between(values, which) / alone * wider(int(which.max()) + 1)) if alone > 0 and which.max() else 1.0


def _between(values: NDArray[np.float64], which: NDArray[np.intp]) -> float:
    """The variance of a sum of ``values`` (n,) whose mean is 0, of groups that are drawn as a whole."""
    sums = np.bincount(which, values)
    return float((sums**2).sum() * len(sums) / (len(sums) - 1))


def wider(groups: int) -> float:
    """By how much more variance a normal interval must allow for, where the variance is known from so few groups alone."""
    from scipy.special import stdtrit  # as scipy.stats has it, whose import takes a second

    return float((stdtrit(groups - 1, 0.975) / Z95) ** 2)


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
    images, the groups change sides as a whole, in the interval and in the test (a permutation test, 10,000 draws); where fewer than
    ``LEAST_OF_A_CLASS`` groups differ, each counts as one image in the interval.
    """
    from scipy.special import bdtr  # scipy.stats, which has the test, takes a second to import

    n = len(first)
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    p = min(1.0, 2 * float(bdtr(min(one, other), one + other, 0.5)))  # of no image, bdtr is 1
    effect = 1.0
    if groups is not None and n:
        which = np.unique(groups, return_inverse=True)[1]
        sums = np.bincount(which, first.astype(float) - second)
        mean = (one - other) / n
        by_image = one + other - n * mean**2
        if (sums != 0).sum() < LEAST_OF_A_CLASS or by_image <= 0:
            effect = n / len(sums)
        else:
            effect = effect_on_sum(first.astype(float) - second - mean, groups)
        if one + other:
            differ = sums[sums != 0]
            signs = np.random.default_rng(0).choice((-1.0, 1.0), (FLIPS, len(differ)))
            p = float((1 + (np.abs(signs @ differ) >= abs(differ.sum()) - 1e-9).sum()) / (1 + FLIPS))
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
