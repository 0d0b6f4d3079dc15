"""The interval of the mean of losses: a few large ones carry it, and the largest may not have been drawn."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.heads.intervals import LEAST_ROWS, Z95, Interval

# Below, the skewness of a sum is that of a normal distribution, and the gamma distribution would have no end.
STRAIGHT = 1e-2


def expected_largest(p: NDArray[np.float64], losses: NDArray[np.float64]) -> float:
    """A large loss, as a head with probabilities ``p`` (n, classes) should meet it; ``losses`` (n, classes) has one for each class
    that may be the true one.

    The size of the rare events in a sum that has the mean, the variance and the third moment of these losses: mean + μ₃ ÷ σ².
    """
    # Sums without copies of the whole.
    first, second, third = (
        float(np.einsum(f"ij,{','.join(['ij'] * power)}->", p, *[losses] * power)) / len(p) for power in (1, 2, 3)
    )
    variance = second - first**2
    if not variance > 1e-12 * second:
        return first
    return first + (third - 3 * first * second + 2 * first**3) / variance


def mean_interval(values: NDArray[np.float64], largest: float = 0.0, effect: float = 1.0) -> Interval | None:
    """Of the mean of ``values`` (n,), losses that are not negative; None for fewer than 100.

    Its ends are quantiles of a gamma distribution with three moments of the values, as M. Fay and E. Feuer, Stat. Med. 16 (1997) 791,
    have them for sums of rare events that weigh differently: for shares they are Clopper's and Pearson's, for many equal values
    normal. As there, the upper end is that of a sample with one more event of the largest weight: of the largest value, or of
    ``largest``, which may not have been drawn. For without mistakes, a sample does not tell how much one costs. ``effect`` is the
    design effect of groups of like images.
    """
    n = len(values) / effect
    if n < LEAST_ROWS or not np.isfinite(values).all():
        return None
    mean = float(values.mean())
    plain = _Moments.of(values, np.full(len(values), 1 / effect))
    more = np.append(values, max(largest, float(values.max())))
    raised = _Moments.of(more, np.append(np.full(len(values), 1 / effect), 1.0))
    return min(mean, max(0.0, plain.quantile(0.025))), max(mean, raised.quantile(0.975))


class _Moments(NamedTuple):
    """Mean, variance and skewness of values, and the weight of all of them, which is their number."""

    mean: float
    variance: float
    skewness: float
    n: float

    @classmethod
    def of(cls, values: NDArray[np.float64], weights: NDArray[Any]) -> "_Moments":
        n = float(weights.sum())
        mean = float(weights @ values) / n
        away = values - mean
        variance = float(weights @ away**2) / n
        third = float(weights @ away**3) / n
        scale = variance**1.5
        return cls(mean, variance, third / scale if scale > 0 else 0.0, n)

    def quantile(self, share: float) -> float:
        """Of the gamma distribution with the mean, the variance and twice the skewness of the mean of so many values."""
        from scipy.special import gammaincinv

        deviation = np.sqrt(self.variance / self.n)
        if abs(self.skewness) < STRAIGHT:
            return float(self.mean + np.sign(share - 0.5) * Z95 * deviation)
        shape, sign = self.n / self.skewness**2, float(np.sign(self.skewness))
        at = gammaincinv(shape, share if sign > 0 else 1 - share)
        return float(self.mean + sign * deviation * (at - shape) / np.sqrt(shape))
