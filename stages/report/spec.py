"""``[report]``: what heads are ranked by, and what the page shows beside that."""

from typing import Literal

from stages.fields import Spec

Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "auc", "top5_accuracy", "log_loss"]


class ReportSpec(Spec):
    """``[report]``. ``metric`` is the validation score by which heads are ranked; with ``maps``, mistakes are shown with where the
    head looked.
    """

    metric: Metric = "accuracy"
    maps: bool = False
