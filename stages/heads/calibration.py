"""Whether probabilities can be believed: calibration error, reliability by confidence, and the temperature that mends them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.heads.intervals import LEAST_ROWS, Interval

# The least probability: 0 has no logarithm.
EPSILON = 1e-7
# Of Guo et al., of equal width; and of Kumar et al., of as many images each.
BINS, LEAST_IN_A_BIN = 15, 6
# Samples of a head whose confidences are true.
SIMULATED = 1000
# Standard deviation of log T before any row is seen: a factor of two either way is nothing unusual.
PRIOR = float(np.log(2))
# Logits of features that are not standardised are hundreds.
COLDEST, HOTTEST = 0.05, 1000.0


def log_probabilities(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Logarithms of probabilities (n, classes), of which none counts as less than 1e-7; rows of probabilities sum to 1."""
    return log_softmax(np.log(np.maximum(np.asarray(probabilities, np.float64), EPSILON)))


def log_softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Log-probabilities (n, classes) from logits; (n, 1) are those of the second of two classes."""
    z = np.asarray(logits, np.float64)
    if z.shape[1] == 1:
        return -np.logaddexp(0.0, np.hstack([z, -z]))
    z = z - z.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return found


def expected_calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, float]:
    """The mean difference of confidence (n,) and accuracy over 15 bins, and the one that chance alone would give.

    C. Guo et al., ICML 2017. It is above 0 for the best of heads, as the accuracy of a bin varies by chance: by the mean of a
    half-normal distribution, where every confidence is true.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.maximum(np.bincount(bins, minlength=BINS), 1)
    gaps = np.bincount(bins, right - confidence, minlength=BINS)
    # Rounding may take a confidence beyond 1.
    variance = np.bincount(bins, np.maximum(confidence * (1 - confidence), 0), minlength=BINS) / counts
    by_chance = np.sqrt(2 / np.pi * counts * variance).sum()
    return float(np.abs(gaps).sum() / len(right)), float(by_chance / len(right))


@dataclass(frozen=True)
class Bin:
    """Images of about one confidence: how many, their mean confidence, their accuracy."""

    n: int
    confidence: float
    accuracy: float


def reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> list[Bin]:
    """At most 15 bins of as many images each, in ascending order of confidence."""
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, max(1, min(BINS, len(order) // LEAST_IN_A_BIN)))
    return [Bin(len(part), float(confidence[part].mean()), float(right[part].mean())) for part in parts if len(part)]


@dataclass(frozen=True)
class CalibrationError:
    """By how much confidence and accuracy differ, as a root mean square, and its 95% interval; None for fewer than 100 images."""

    value: float
    interval: Interval | None


def calibration_error(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], intervals: bool = True, effect: float = 1.0
) -> CalibrationError:
    """The debiased calibration error of A. Kumar et al., "Verified Uncertainty Calibration", NeurIPS 2019.

    What the accuracies of the bins vary by chance is taken off, so that a calibrated head comes out at about 0, whatever the
    number of images. The interval inverts the distribution of the sum of squares, a scaled noncentral χ² (F. Satterthwaite,
    Biometrics 2 (1946) 110). It holds 0 where the sum is one that true confidences give in 97.5% of cases, which is simulated: of few
    mistakes the sum has a longer tail than χ² (J. Bröcker and L. Smith, Weather Forecast. 22 (2007) 651).
    """
    from scipy.optimize import brentq
    from scipy.special import chdtr, chndtr

    bins = reliability(confidence, right)
    n = len(right) / effect
    # A bin without a mistake varies too: two more images, as sure as the others, tell by how much.
    shares = [(b.accuracy * b.n + 2 * b.confidence) / (b.n + 2) for b in bins]
    variances = np.maximum([share * (1 - share) for share in shares], 1e-12)
    found = sum(b.n * (b.accuracy - b.confidence) ** 2 for b in bins) / len(right)
    value = float(np.sqrt(max(found - variances.sum() / n, 0)))
    if n < LEAST_ROWS or not intervals:
        return CalibrationError(value, None)
    scale = float((variances**2).sum() / variances.sum())
    freedom = float(variances.sum() ** 2 / (variances**2).sum())
    at = n * found / scale

    def beyond(shift: float, share: float) -> float:
        return float((chndtr(at, freedom, shift) if shift > 0 else chdtr(freedom, at)) - share)

    def end(share: float) -> float:
        if beyond(0, share) <= 0:
            return 0.0
        return float(np.sqrt(brentq(beyond, 0, 4 * at + 50, args=(share,)) * scale / n))

    low = 0.0 if found <= effect * _by_chance(bins) else end(0.975)
    return CalibrationError(value, (low, min(1.0, end(0.025))))


def _by_chance(bins: Sequence[Bin]) -> float:
    """What the mean of squared differences of ``bins`` stays below in 97.5% of cases, where every confidence is true."""
    n, confidence = np.array([b.n for b in bins]), np.minimum([b.confidence for b in bins], 1)
    right = np.random.default_rng(0).binomial(n, confidence, (SIMULATED, len(bins))) / n
    return float(np.quantile((n * (right - confidence) ** 2).sum(axis=1) / n.sum(), 0.975))


def temperature(y: NDArray[np.int64], logs: NDArray[np.float64]) -> float:
    """The temperature T > 0 for which softmax(``logs`` ÷ T) has the lowest log loss; ``logs`` (n, classes) are log-probabilities.

    C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. Above 1 where the head is too sure of itself. A normal
    prior on log T keeps it from 0 where every row is right, for which no temperature would be low enough.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_t: float) -> float:
        after = cooled(logs, float(np.exp(log_t)))
        return float(-after[np.arange(len(y)), y].sum()) + log_t**2 / (2 * PRIOR**2)

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def cooled(logs: NDArray[np.float64], t: float) -> NDArray[np.float64]:
    """The log-probabilities of softmax(``logs`` ÷ ``t``), row by row. The most probable class of a row stays the same."""
    return log_softmax(logs / t)
