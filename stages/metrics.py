"""Scores of a head on one split, with their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
EPSILON = 1e-7


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


def scores(y: NDArray[np.int64], probabilities: NDArray[np.floating[Any]], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy with its 95% interval, balanced accuracy, log loss (nats), and precision, recall and F1 of each class.

    ``y`` (n,) indexes ``classes``; ``probabilities`` is (n, number of classes). Balanced accuracy is the mean recall
    of the classes that occur in ``y``.
    """
    from sklearn.metrics import log_loss, precision_recall_fscore_support

    p = np.clip(np.asarray(probabilities, np.float64), EPSILON, 1.0)
    p /= p.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    labels = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(y, predicted, labels=labels, zero_division=0.0)
    correct = int((predicted == y).sum())
    return {
        "n": len(y),
        "accuracy": correct / len(y),
        "accuracy_interval": list(wilson(correct, len(y))),
        "balanced_accuracy": float(recall[support > 0].mean()),
        "log_loss": float(log_loss(y, p, labels=labels)),
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(classes)
        },
    }


def smooth(values: Sequence[float], factor: float = 0.8) -> list[float]:
    """Exponentially smoothed values: each is ``factor`` of the one before and the rest of its own."""
    out: list[float] = []
    for value in values:
        out.append(factor * out[-1] + (1 - factor) * value if out else value)
    return out
