"""The area under the ROC curve, and its interval."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.heads.intervals import Z95, Interval, effect_on_sum, wilson

# As many images of the rarer class as the expected variance counts for, beside that of the images that were seen.
EXPECTED = 12


class AreaUnderCurve(NamedTuple):
    """The mean area under the ROC curves of each class against the others, and its interval."""

    value: float
    interval: Interval | None


def area_under_curve(
    y: NDArray[np.int64],
    p: NDArray[np.float64],
    effect: float = 1.0,
    groups: NDArray[np.int64] | None = None,
    shared: float = 1.0,
) -> AreaUnderCurve | None:
    """Of labels (n,) and probabilities (n, classes); None where ``y`` has one class alone. ``effect`` is the design effect of groups of
    like images on the accuracy. Where their ``groups`` (n,) are known, they may raise the variance by more (N. Obuchowski, Biometrics
    53 (1997) 567): pairs are in order by how sure a head is, and images of a group are alike in that where all of them are right. By
    ``shared`` times as much, whatever groups do, where heads of several folds share training images.

    The variance is that of E. DeLong et al., Biometrics 44 (1988) 837, which is nothing where every pair is in order. So it is mixed
    with the one that J. Hanley and B. McNeil, Radiology 143 (1982) 29, expect for such an area, as if that was known from 12 images of
    the rarer class. For two classes the interval is R. Newcombe's (Stat. Med. 25 (2006) 559, method 5), in which the expected variance
    is as much smaller; for more it is Wilson's at the number of images that would give the variance.
    """
    classes = [c for c in range(p.shape[1]) if 0 < (y == c).sum() < len(y)]
    if not classes:
        return None
    if p.shape[1] == 2:
        classes = [1]
    areas, expected, rarer, parts = [], 0.0, 0, np.zeros(len(y))
    for c in classes:
        mine = y == c
        m, k = int(mine.sum()), int((~mine).sum())
        above, below = _below(p[mine, c], p[~mine, c]), 1 - _below(p[~mine, c], p[mine, c])
        area = float(above.mean())
        areas.append(area)
        parts[mine] += (above - area) / np.sqrt(m * max(m - 1, 1))
        parts[~mine] += (below - area) / np.sqrt(k * max(k - 1, 1))
        least = min(m, k)
        expected += _hanley(float(np.clip(area, 0.25 / least, 1 - 0.25 / least)), m, k)
        rarer += least
    value, seen, known = float(np.mean(areas)), float((parts**2).sum()), rarer / effect
    if groups is not None:
        effect = max(effect, effect_on_sum(parts, groups))
        # What is seen is seen of as many groups, however unlike their images are.
        known = rarer * min(1 / effect, len(np.unique(groups)) / len(y))
    known, effect = known / shared, shared * effect
    variance = effect * (known * seen + EXPECTED * expected) / (known + EXPECTED)
    if p.shape[1] == 2:
        return AreaUnderCurve(value, _newcombe(value, m, k, variance / expected))
    share = min(value, 1 - 0.25 / len(y))
    effective = share * (1 - share) * len(classes) ** 2 / max(variance, 1e-12)
    return AreaUnderCurve(value, wilson(value * effective, effective))


def _below(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of the ``others`` (k,) that lie below each of the ``values`` (m,); those that are equal count half."""
    ordered = np.sort(others)
    found = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(found / (2 * len(others)), np.float64)


def _hanley(area: float, m: int, k: int) -> float:
    mean = (m + k) / 2 - 1
    return area * (1 - area) / (m * k) * (1 + mean * (1 - area) / (2 - area) + mean * area / (1 + area))


def _newcombe(area: float, m: int, k: int, times: float) -> Interval:
    """Where the truth may lie: where the area is not further off than by so many ``times`` the variance that would be expected there."""
    from scipy.optimize import brentq

    def beyond(truth: float) -> float:
        return float((area - truth) ** 2 - Z95**2 * times * _hanley(truth, m, k))

    step = 1e-9
    low = brentq(beyond, 0, area - step) if area > step and beyond(area - step) < 0 else 0.0
    high = brentq(beyond, area + step, 1) if area < 1 - step and beyond(area + step) < 0 else 1.0
    return float(low), float(high)
