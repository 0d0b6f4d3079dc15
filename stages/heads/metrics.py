"""Scores of a head on one split, with their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.heads import classwise
from stages.heads.areas import area_under_curve
from stages.heads.calibration import calibration_error, expected_calibration_error
from stages.heads.intervals import (
    balanced_accuracy_interval,
    design_effect,
    f1_interval,
    macro_f1_interval,
    wilson,
)
from stages.heads.means import expected_largest, mean_interval
from stages.training.outcomes import Outcomes

# What a temperature changes: all that depends on more than the order of the probabilities.
CALIBRATED = ("log_loss", "brier", "calibration_error", "ece")


def scores(
    y: NDArray[np.int64],
    logs: NDArray[np.floating[Any]],
    classes: Sequence[str],
    intervals: bool = False,
    groups: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Accuracy, balanced accuracy, macro F1, area under the ROC curve, log loss (nats), Brier score, calibration, and precision,
    recall and F1 of each class.

    ``y`` (n,) indexes ``classes``; ``logs`` (n, number of classes) are log-probabilities. Means over classes are over those that
    occur in ``y``. Accuracy has its 95% interval as ``accuracy_interval``; with ``intervals`` each score has one, None where too few
    images tell (``stages.heads.intervals``). ``groups`` (n,) says which images are like one another: they count as fewer.
    """
    n = len(y)
    logs = np.asarray(logs, np.float64)
    p: NDArray[np.float64] = np.exp(logs)
    predicted = logs.argmax(axis=1)
    right = predicted == y
    effect = design_effect(right, groups)
    confusion = np.bincount(y * len(classes) + predicted, minlength=len(classes) ** 2).reshape(2 * (len(classes),))
    hits, spoken, support = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    recall, f1 = (
        np.nan_to_num(each) for each in (classwise.recall(hits, support), classwise.f1(hits, support, spoken))
    )
    # Of each row, if this class or that was the true one.
    each_loss = np.asarray(-logs, np.float64)
    each_brier: NDArray[np.float64] = (p**2).sum(axis=1, keepdims=True) - 2 * p + 1
    losses, brier = (np.asarray(each[np.arange(n), y], np.float64) for each in (each_loss, each_brier))
    area = area_under_curve(y, p, effect, groups)
    confidence = p.max(axis=1)
    calibration = calibration_error(confidence, right, intervals, effect)
    ece, by_chance = expected_calibration_error(confidence, right)
    out: dict[str, Any] = {
        "n": n,
        "design_effect": effect,
        "accuracy": float(right.mean()),
        "accuracy_interval": list(wilson(right.sum() / effect, n / effect)),
        "balanced_accuracy": float(classwise.balanced_accuracy(hits, support)),
        "macro_f1": float(classwise.macro_f1(hits, support, spoken)),
        "auc": area and area.value,
        "log_loss": float(losses.mean()),
        "brier": float(brier.mean()),
        "calibration_error": calibration.value,
        "ece": ece,
        "ece_by_chance": by_chance,
        "per_class": {
            name: {
                "precision": hits[i] / spoken[i] if spoken[i] else 0.0,
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(classes)
        },
    }
    among = classwise.among_top(Outcomes.of(y, logs).rank)
    out["top5_accuracy"] = float(among.mean()) if len(classes) > classwise.TOP else None
    if intervals:
        counts = confusion.astype(np.float64)
        found = {
            "balanced_accuracy": balanced_accuracy_interval(counts, out["balanced_accuracy"], effect),
            "macro_f1": macro_f1_interval(counts, out["macro_f1"], effect),
            "auc": area and area.interval,
            "log_loss": mean_interval(losses, expected_largest(p, each_loss), effect),
            "brier": mean_interval(brier, expected_largest(p, each_brier), effect),
            "top5_accuracy": wilson(among.sum() / effect, n / effect) if len(classes) > classwise.TOP else None,
            "calibration_error": calibration.interval,
        }
        out |= {f"{name}_interval": interval and list(interval) for name, interval in found.items()}
        for i, each in enumerate(out["per_class"].values()):
            each["precision_interval"] = list(wilson(hits[i] / effect, spoken[i] / effect))
            each["recall_interval"] = list(wilson(hits[i] / effect, support[i] / effect))
            each["f1_interval"] = list(f1_interval(hits[i] / effect, (support[i] + spoken[i] - hits[i]) / effect))
    return out


def smooth(values: Sequence[float], factor: float = 0.8) -> list[float]:
    """Exponentially smoothed values: each is ``factor`` of the one before and the rest of its own."""
    out: list[float] = []
    for value in values:
        out.append(factor * out[-1] + (1 - factor) * value if out else value)
    return out
