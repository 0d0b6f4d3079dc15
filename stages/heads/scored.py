"""The scores that may rank heads, and the version of all scores. Apart from what computes them, as light commands come here too."""

# Raised by hand when scores or their intervals change, so that older heads are shown with those of today.
SCORING = 2
# Which way is better.
METRICS = {
    "accuracy": "high",
    "balanced_accuracy": "high",
    "macro_f1": "high",
    "auc": "high",
    "top5_accuracy": "high",
    "log_loss": "low",
}
