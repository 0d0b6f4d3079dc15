"""The scores that may rank heads, from the little that is kept of each row: what ``stages.heads.metrics`` gives for the same rows."""

import numpy as np
from numpy.typing import NDArray

from stages.heads import classwise
from stages.heads.areas import area_under_curve
from stages.heads.intervals import (
    Interval,
    balanced_accuracy_interval,
    macro_f1_interval,
    wilson,
)
from stages.heads.means import expected_largest, mean_interval
from stages.training.outcomes import Outcomes


def losses(found: Outcomes) -> NDArray[np.float64]:
    """The log loss of each row (n,), in nats."""
    return -found.log_p.astype(np.float64)


def told(metric: str, found: Outcomes, n_classes: int) -> bool:
    """Whether the outcomes say what this score needs: the area under the curve of more than two classes needs all of them."""
    return metric != "auc" or n_classes == 2 or found.logs is not None


def score(metric: str, y: NDArray[np.int64], found: Outcomes, n_classes: int) -> float | None:
    """A score of ``stages.heads.scored.METRICS`` on rows with labels ``y`` (n,); None where there is none, such as the area under
    the curve of one class, or where the outcomes do not tell.
    """
    if metric == "accuracy":
        return float((found.predicted == y).mean())
    if metric == "log_loss":
        return float(losses(found).mean())
    if metric == "top5_accuracy":
        return float(classwise.among_top(found.rank).mean()) if n_classes > classwise.TOP else None
    if metric == "auc":
        if not told(metric, found, n_classes):
            return None
        area = area_under_curve(y, probabilities(y, found))
        return area and area.value
    confusion = _confusion(y, found, n_classes)
    hits, spoken, support = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    if metric == "balanced_accuracy":
        return float(classwise.balanced_accuracy(hits, support))
    return float(classwise.macro_f1(hits, support, spoken))


def interval(
    metric: str,
    y: NDArray[np.int64],
    found: Outcomes,
    n_classes: int,
    effect: float = 1.0,
    groups: NDArray[np.int64] | None = None,
    shared: float = 1.0,
) -> Interval | None:
    """The 95% interval of ``score``, by the methods of ``stages.heads.intervals``; None where too few images tell. ``effect`` is the
    design effect of ``groups`` (n,) of like images on the accuracy; that on an area is computed from them. ``shared`` is by how much
    heads of several folds raise the variance beside that.
    """
    if metric == "auc":
        area = (
            area_under_curve(y, probabilities(y, found), effect, groups, shared)
            if told(metric, found, n_classes)
            else None
        )
        return area and area.interval
    effect = shared * effect
    n = len(y) / effect
    if metric == "accuracy":
        return wilson(float((found.predicted == y).sum()) / effect, n)
    if metric == "log_loss":
        return mean_interval(losses(found), _largest_loss(found), effect)
    if metric == "top5_accuracy":
        return wilson(float(classwise.among_top(found.rank).sum()) / effect, n) if n_classes > classwise.TOP else None
    value = score(metric, y, found, n_classes)
    by_name = {"balanced_accuracy": balanced_accuracy_interval, "macro_f1": macro_f1_interval}
    assert value is not None
    return by_name[metric](_confusion(y, found, n_classes).astype(np.float64), value, effect)


def _largest_loss(found: Outcomes) -> float:
    """The loss that the head may expect of a bad row; where the outcomes do not tell of all classes, all but the true one count as one."""
    if found.logs is not None:
        logs = found.logs.astype(np.float64)
    else:
        of_true = np.minimum(found.log_p.astype(np.float64), -1e-12)
        logs = np.stack([of_true, np.log(-np.expm1(of_true))], axis=1)
    return expected_largest(np.exp(logs), -logs)


def probabilities(y: NDArray[np.int64], found: Outcomes) -> NDArray[np.float64]:
    """Probabilities (n, classes) of all classes; of two, what the true class does not have is the other's."""
    if found.logs is not None:
        return np.exp(found.logs.astype(np.float64))
    of_true = found.log_p.astype(np.float64)
    second = np.where(y == 1, np.exp(of_true), -np.expm1(of_true))
    return np.stack([1 - second, second], axis=1)


def _confusion(y: NDArray[np.int64], found: Outcomes, n_classes: int) -> NDArray[np.int64]:
    """Counts (true, predicted)."""
    cells = y * n_classes + found.predicted.astype(np.int64)
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)
