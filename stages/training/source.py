"""Where the rows come from that heads are trained on: blocks of features that are in memory together."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.bases.backend import load_keras


class Block(NamedTuple):
    """Rows that are in memory together: their positions (m,), features (m or more, d) and labels int32, both as the backend's.

    What stands beyond the first m rows is there to fill up, and is no row; or it is views of them: ``views`` (m, v) int32 are the
    places of each row and of its augmented views in ``X``, the row itself in the place of those that it has not.
    """

    number: int
    positions: NDArray[np.int64]
    X: Any
    y: Any
    views: NDArray[np.int32] | None = None


class Source(Protocol):
    """Where rows come from. ``inputs`` is d, ``y`` (n,) holds all labels; ``whole`` where all rows come in one block."""

    inputs: int
    y: NDArray[np.int64]
    whole: bool

    def blocks(self, rows: NDArray[np.int64], epoch: int | None) -> Iterator[Block]:
        """Blocks that hold all of ``rows`` between them; in an order of this epoch, or in a fixed one where it is None."""


class InMemory:
    """All features (n, d) in one block.

    Where ``X`` has more rows, these are augmented views: ``views`` (n, v) int64 are the places of each row, and of its views.
    """

    whole = True

    def __init__(self, X: NDArray[np.float32], y: NDArray[np.int64], views: NDArray[np.int64] | None = None) -> None:
        self.inputs = X.shape[1]
        self.y = y
        self._X, self._views = X, views
        self._kept: dict[tuple[bytes, bool], Block] = {}

    def blocks(self, rows: NDArray[np.int64], epoch: int | None) -> Iterator[Block]:
        """One block. It is kept, so that rows that are asked for in every epoch are gathered once."""
        with_views = epoch is not None and self._views is not None
        name = (rows.tobytes(), with_views)
        if name not in self._kept:
            tensor = load_keras().ops.convert_to_tensor
            places, y, views = rows, self.y[rows], None
            if with_views and self._views is not None:
                places, views = gathered(rows, self._views)
                y = of_places(y, views, len(places))
            self._kept[name] = Block(0, rows, tensor(self._X[places]), tensor(y.astype(np.int32)), views)
        yield self._kept[name]


def gathered(rows: NDArray[np.int64], views: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The ``rows`` (m,) and behind them their views, all as positions (m + views,), and where each row and its views are in that.

    ``views`` (n, v) are the positions of all rows and of their views, as in ``InMemory``.
    """
    theirs = views[rows]
    others = theirs[theirs != rows[:, None]]
    places = np.concatenate([rows, others])
    found = np.repeat(np.arange(len(rows), dtype=np.int32)[:, None], theirs.shape[1], axis=1)
    found[theirs != rows[:, None]] = len(rows) + np.arange(len(others), dtype=np.int32)
    return places, found


def of_places(values: NDArray[np.int64], views: NDArray[np.int32], places: int) -> NDArray[np.int64]:
    """What each row has (m,), for so many places in which it and its ``views`` (m, v) are."""
    found = np.zeros(places, values.dtype)
    found[views] = values[:, None]
    return found
