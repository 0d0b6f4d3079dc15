"""``[report]``: what heads are ranked by, and what the page shows beside that."""

from stages.fields import Spec
from stages.heads.scored import Metric


class ReportSpec(Spec):
    """``[report]``. ``metric`` is the validation score by which heads are ranked; with ``maps``, mistakes are shown with where the
    head looked.
    """

    metric: Metric = "accuracy"
    maps: bool = False
