"""The nearest other contents of each: looked for once, and used for near-copies, for outliers, and for what a leak is worth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# As many as are looked for. The more there are, the seldomer is none of them in train.
NEAREST = 20


@dataclass(frozen=True)
class Neighbours:
    """``distance`` (u, k) float64 of vectors of length 1, from 0 to 2 and rising from the nearest on; ``position`` (u, k) int64."""

    distance: NDArray[np.float64]
    position: NDArray[np.int64]

    @property
    def cosine(self) -> NDArray[np.float64]:
        """The cosine similarity (u, k) float64, falling."""
        found: NDArray[np.float64] = 1 - self.distance**2 / 2
        return found


def nearest(unit: NDArray[np.float32], most: int = NEAREST) -> Neighbours:
    """The nearest of the other rows (u, d), up to ``most``, by exhaustive search: exact, and the same each time."""
    from sklearn.neighbors import NearestNeighbors

    k = min(most, len(unit) - 1)
    if k < 1:
        return Neighbours(np.empty((len(unit), 0)), np.empty((len(unit), 0), np.int64))
    distance, position = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(unit).kneighbors()
    return Neighbours(distance.astype(np.float64), position.astype(np.int64))
