"""Scores of a head on one split, with their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
# The least probability: 0 has no logarithm.
EPSILON = 1e-7
BINS = 15
# Standard deviation of log T before any row is seen: a factor of two either way is nothing unusual.
PRIOR = float(np.log(2))
# Logits of features that are not standardised are hundreds.
COLDEST, HOTTEST = 0.05, 1000.0
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
    y: NDArray[np.int64], logs: NDArray[np.floating[Any]], classes: Sequence[str], intervals: bool = False
) -> dict[str, Any]:
    """Accuracy with its 95% interval, balanced accuracy, log loss (nats), expected calibration error, and precision, recall
    and F1 of each class.

    ``y`` (n,) indexes ``classes``; ``logs`` (n, number of classes) are log-probabilities. Balanced accuracy is the mean recall
    of the classes that occur in ``y``. With ``intervals`` every score has one, as ``…_interval``: Wilson's for shares
    (precision and recall are), and the percentile bootstrap's elsewhere (Efron, Tibshirani, 1993, chapter 13).
    """
    labels = np.arange(len(classes))
    logs = np.asarray(logs, np.float64)
    predicted = logs.argmax(axis=1)
    true, said = y[:, None] == labels, predicted[:, None] == labels
    # What every score is a function of the sums of: hits, predictions and members of each class, losses, gaps by bin.
    parts = [true & said, said, true, -logs[np.arange(len(y)), y][:, None], _gaps(y, np.exp(logs))]
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
