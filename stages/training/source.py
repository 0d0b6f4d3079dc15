"""Where the rows come from that heads are trained on: blocks of features that are in memory together."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.bases.backend import load_keras


class Block(NamedTuple):
    """Rows that are in memory together: their positions (m,), features (m or more, d) and labels int32, both as the backend's.

    What stands beyond the first m rows is there to fill up, and is no row.
    """

    number: int
    positions: NDArray[np.int64]
    X: Any
    y: Any


class Source(Protocol):
    """Where rows come from. ``inputs`` is d, ``y`` (n,) holds all labels; ``whole`` where all rows come in one block."""

    inputs: int
    y: NDArray[np.int64]
    whole: bool

    def blocks(self, rows: NDArray[np.int64], epoch: int | None) -> Iterator[Block]:
        """Blocks that hold all of ``rows`` between them; in an order of this epoch, or in a fixed one where it is None."""


class InMemory:
    """All features (n, d) in one block."""

    whole = True

    def __init__(self, X: NDArray[np.float32], y: NDArray[np.int64]) -> None:
        self.inputs = X.shape[1]
        self.y = y
        self._X = X
        self._kept: dict[bytes, Block] = {}

    def blocks(self, rows: NDArray[np.int64], epoch: int | None) -> Iterator[Block]:
        """One block. It is kept, so that rows that are asked for in every epoch are gathered once."""
        name = rows.tobytes()
        if name not in self._kept:
            tensor = load_keras().ops.convert_to_tensor
            self._kept[name] = Block(0, rows, tensor(self._X[rows]), tensor(self.y[rows].astype(np.int32)))
        yield self._kept[name]
