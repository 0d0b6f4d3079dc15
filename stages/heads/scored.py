"""The scores that may rank heads, and the version of all scores. Apart from what computes them, as light commands come here too."""

from typing import Literal, get_args

# Raised by hand when scores or their intervals change, so that older heads are shown with those of today.
SCORING = 2
Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "auc", "top5_accuracy", "log_loss"]
# Which way is better.
METRICS = {name: "low" if name == "log_loss" else "high" for name in get_args(Metric)}


def in_words(metric: str) -> str:
    """What a score is called: macro F1, AUC, log loss."""
    return {"auc": "AUC", "macro_f1": "macro F1", "top5_accuracy": "top-5 accuracy"}.get(
        metric, metric.replace("_", " ")
    )
