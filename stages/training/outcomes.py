"""What a head says of images that it was not trained on, row by row: little enough to keep for every trial of a sweep."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray


class Outcomes(NamedTuple):
    """Of n rows: the ``predicted`` class (n,) uint16, the log-probability ``log_p`` (n,) float32 of the true class in nats, and its
    ``rank`` (n,) uint16: how many classes are more probable.

    ``logs`` (n, classes) float32 are the log-probabilities of all classes, where they are asked for, else None.
    """

    predicted: NDArray[np.uint16]
    log_p: NDArray[np.float32]
    rank: NDArray[np.uint16]
    logs: NDArray[np.float32] | None = None

    @classmethod
    def empty(cls, n: int, classes: int = 0) -> Self:
        """Of ``n`` rows that are still to be filled in; with the log-probabilities of so many ``classes``, 0 for none of them."""
        logs = np.zeros((n, classes), np.float32) if classes else None
        return cls(np.zeros(n, np.uint16), np.zeros(n, np.float32), np.zeros(n, np.uint16), logs)

    @classmethod
    def of(cls, y: NDArray[np.int64], logs: NDArray[np.floating[Any]], whole: bool = False) -> Self:
        """From labels (n,) and log-probabilities (n, classes), which are kept where the ``whole`` is asked for."""
        true = logs[np.arange(len(y)), y]
        return cls(
            logs.argmax(axis=1).astype(np.uint16),
            true.astype(np.float32),
            (logs > true[:, None]).sum(axis=1).astype(np.uint16),
            logs.astype(np.float32) if whole else None,
        )

    @classmethod
    def joined(cls, parts: Sequence["Outcomes"], order: NDArray[np.intp]) -> Self:
        """Of several parts one after another, the rows in this ``order`` (n,)."""
        logs = [each.logs for each in parts if each.logs is not None]
        return cls(
            np.concatenate([each.predicted for each in parts])[order],
            np.concatenate([each.log_p for each in parts])[order],
            np.concatenate([each.rank for each in parts])[order],
            np.concatenate(logs)[order] if logs else None,
        )

    def put(self, places: NDArray[np.intp], part: Sequence[NDArray[np.generic]]) -> None:
        """Fill in the rows at ``places`` (m,) from arrays in the order of the fields, (m, …) each."""
        mine = [each for each in self if each is not None]
        for whole, theirs in zip(mine, part, strict=True):
            whole[places] = theirs
