"""Scores of a head on one split, with their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
EPSILON = 1e-7
BINS = 15
# Standard deviation of log T before any row is seen: a factor of two either way is nothing unusual.
PRIOR = float(np.log(2))
# Of the bootstrap; fewer samples where there are many rows, whose intervals are narrow and steady.
RESAMPLES, RESAMPLED_ROWS = 1000, 20_000_000


def wilson(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a share of ``correct`` out of ``n``, 95% by default.

    Wilson, J. Am. Stat. Assoc. 22 (1927) 209. It stays within 0…1 and is honest near the ends and for small ``n``.
    """
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    centre = share + z * z / (2 * n)
    spread = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, float((centre - spread) / scale)), min(1.0, float((centre + spread) / scale))


def scores(
    y: NDArray[np.int64], probabilities: NDArray[np.floating[Any]], classes: Sequence[str], intervals: bool = False
) -> dict[str, Any]:
    """Accuracy with its 95% interval, balanced accuracy, log loss (nats), expected calibration error, and precision, recall
    and F1 of each class.

    ``y`` (n,) indexes ``classes``; ``probabilities`` is (n, number of classes). Balanced accuracy is the mean recall
    of the classes that occur in ``y``. With ``intervals`` every score has one, as ``…_interval``: Wilson's for shares
    (precision and recall are), and the percentile bootstrap's elsewhere (Efron, Tibshirani, 1993, chapter 13).
    """
    labels = np.arange(len(classes))
    predicted = probabilities.argmax(axis=1)
    true, said = y[:, None] == labels, predicted[:, None] == labels
    p = clipped(probabilities)
    # What every score is a function of the sums of: hits, predictions and members of each class, losses, gaps by bin.
    parts = [true & said, said, true, -np.log(p[np.arange(len(y)), y])[:, None], _gaps(y, p)]
    columns = np.concatenate([np.asarray(part, np.float64) for part in parts], axis=1)
    found = _from_sums(columns.sum(axis=0)[None], len(y), len(classes))
    correct = int(columns[:, : len(classes)].sum())
    hits, spoken, support = columns.sum(axis=0)[: 3 * len(classes)].reshape(3, -1).astype(int)
    out: dict[str, Any] = {
        "n": len(y),
        "accuracy": correct / len(y),
        "accuracy_interval": list(wilson(correct, len(y))),
        "balanced_accuracy": float(found["balanced_accuracy"][0]),
        "log_loss": float(found["log_loss"][0]),
        "ece": float(found["ece"][0]),
        "per_class": {
            name: {
                "precision": hits[i] / spoken[i] if spoken[i] else 0.0,
                "recall": hits[i] / support[i] if support[i] else 0.0,
                "f1": float(found["f1"][0, i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(classes)
        },
    }
    if intervals:
        drawn = _from_sums(_resampled(columns), len(y), len(classes))
        # A sample with repetitions looks worse calibrated than the rows that it was drawn from; by as much it is shifted back.
        drawn["ece"] = np.maximum(drawn["ece"] - drawn["ece"].mean() + out["ece"], 0)
        for name in ("balanced_accuracy", "log_loss", "ece"):
            out[f"{name}_interval"] = _percentiles(drawn[name])
        for i, each in enumerate(out["per_class"].values()):
            each["precision_interval"] = list(wilson(int(hits[i]), int(spoken[i])))
            each["recall_interval"] = list(wilson(int(hits[i]), int(support[i])))
            each["f1_interval"] = _percentiles(drawn["f1"][:, i])
    return out


def clipped(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probabilities of which none is 0, so that each has a logarithm; rows sum to 1."""
    p = np.clip(np.asarray(probabilities, np.float64), EPSILON, 1.0)
    normalised: NDArray[np.float64] = p / p.sum(axis=1, keepdims=True)
    return normalised


def _gaps(y: NDArray[np.int64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, bins): by how much each row's confidence misses what came true, in the column of its bin."""
    confidence = p.max(axis=1)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    out = np.zeros((len(y), BINS))
    out[np.arange(len(y)), bins] = (p.argmax(axis=1) == y) - confidence
    return out


def _from_sums(sums: NDArray[np.float64], n: int, n_classes: int) -> dict[str, NDArray[np.float64]]:
    """Scores (m,) and F1 (m, classes) of m samples of n rows, from their column sums (m, …).

    The expected calibration error is that of C. Guo et al., ICML 2017, over equal bins of confidence.
    """
    hits, said, true = (sums[:, i * n_classes : (i + 1) * n_classes] for i in range(3))
    recall = np.divide(hits, true, out=np.zeros_like(hits), where=true > 0)
    return {
        "balanced_accuracy": recall.sum(axis=1) / np.maximum((true > 0).sum(axis=1), 1),
        "f1": np.divide(2 * hits, said + true, out=np.zeros_like(hits), where=said + true > 0),
        "log_loss": sums[:, 3 * n_classes] / n,
        "ece": np.abs(sums[:, 3 * n_classes + 1 :]).sum(axis=1) / n,
    }


def _resampled(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Column sums of samples of the rows, drawn with replacement; the same ones for the same number of rows."""
    n = len(columns)
    rng = np.random.default_rng(n)
    samples = min(RESAMPLES, max(100, RESAMPLED_ROWS // n))
    out = np.empty((samples, columns.shape[1]))
    for i in range(samples):
        out[i] = np.bincount(rng.integers(0, n, n), minlength=n) @ columns
    return out


def _percentiles(values: NDArray[np.float64]) -> list[float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return [float(low), float(high)]


def temperature(y: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> float:
    """The temperature T > 0 for which the probabilities, as softmax(log p ÷ T), have the lowest log loss.

    C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. Above 1 where the head is too sure of itself. A normal
    prior on log T keeps it from 0 where every row is right, for which no temperature would be low enough.
    """
    from scipy.optimize import minimize_scalar

    logs = np.log(clipped(probabilities))

    def loss(log_t: float) -> float:
        p = cooled(logs, float(np.exp(log_t)))
        return float(-np.log(np.maximum(p[np.arange(len(y)), y], EPSILON)).sum()) + log_t**2 / (2 * PRIOR**2)

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


def cooled(logs: NDArray[np.float64], t: float) -> NDArray[np.float64]:
    """softmax(``logs`` ÷ ``t``), row by row. The most probable class of a row stays the same."""
    scaled = logs / t
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    out: NDArray[np.float64] = scaled / scaled.sum(axis=1, keepdims=True)
    return out


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """The exact p-value of McNemar's test that two heads, right or wrong on the same images (n,), are equally good.

    Q. McNemar, Psychometrika 12 (1947) 153; the exact form is the binomial test of the images that one of them alone has right.
    """
    from scipy.stats import binomtest

    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(one, one + other).pvalue) if one + other else 1.0


def smooth(values: Sequence[float], factor: float = 0.8) -> list[float]:
    """Exponentially smoothed values: each is ``factor`` of the one before and the rest of its own."""
    out: list[float] = []
    for value in values:
        out.append(factor * out[-1] + (1 - factor) * value if out else value)
    return out
