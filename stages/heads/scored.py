"""The scores that may rank heads. Apart from what computes them, as commands that only look come here too."""

# Which way is better.
METRICS = {
    "accuracy": "high",
    "balanced_accuracy": "high",
    "macro_f1": "high",
    "auc": "high",
    "top5_accuracy": "high",
    "log_loss": "low",
}
