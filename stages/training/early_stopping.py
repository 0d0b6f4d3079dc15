"""Early stopping: by what an epoch is chosen, whether it is the one to keep so far, and whether training is at its end.

One rule for heads that are trained together, for models that are trained by themselves, and for folds of a trial, which choose together.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from stages.training.member import Fitted
from stages.training.spec import Monitor


def criterion(told: Sequence[Mapping[str, float]], rows: Sequence[int], monitor: Monitor) -> float:
    """What the epoch is chosen by, the lower the better, from one line of the history of each member that chooses with the others,
    which has so many validation rows: the mean validation loss, or minus the mean accuracy; not finite where a loss is not.
    """
    total = sum(rows)
    loss = sum(each["val_loss"] * (n / total) for each, n in zip(told, rows, strict=True))
    if monitor == "loss" or not np.isfinite(loss):
        return loss
    # Rounded, as the same number of right rows is no better for lying in other folds.
    return -round(sum(each["val_accuracy"] * (n / total) for each, n in zip(told, rows, strict=True)), 6)


def is_kept(fitted: Sequence[Fitted], rows: Sequence[int], monitor: Monitor, last: bool = False) -> bool:
    """Whether the epoch that was trained just now is the one to keep so far, of heads that choose together and have so many validation rows
    each: it is better than all before, or no more than finite where it is the ``last`` that is kept.
    """
    now = criterion([each.history[-1] for each in fitted], rows, monitor)
    best = [each.history[each.best_epoch - 1] for each in fitted if each.best_epoch]
    lowest = criterion(best, rows, monitor) if best else float("inf")
    return bool(np.isfinite(now) and (last or now < lowest))


def is_at_its_end(fitted: Fitted, epochs: int, patience: int | None) -> bool:
    """Whether so many ``epochs`` are done, or as many as its ``patience`` without a better one."""
    done = len(fitted.history)
    return done >= epochs or done - (fitted.best_epoch or 0) >= (patience or epochs)


def best_epoch(histories: Sequence[Sequence[Mapping[str, float]]], rows: Sequence[int], monitor: Monitor) -> int | None:
    """The epoch (from 1) of the lowest mean validation loss, or the highest mean accuracy, over folds of so many rows, among those that
    all folds reached; None where no loss was finite. ``histories`` are those of each fold.
    """
    found = [criterion(each, rows, monitor) for each in zip(*histories, strict=False)]
    finite = [epoch for epoch, value in enumerate(found, 1) if np.isfinite(value)]
    return min(finite, key=lambda epoch: found[epoch - 1], default=None)
