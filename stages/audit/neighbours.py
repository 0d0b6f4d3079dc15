"""The nearest other contents of each: looked for once, and used for near-copies, for outliers, and for what a leak is worth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# As many as are looked for. The more there are, the seldomer is none of them in train.
NEAREST = 20
# So many more are kept until distances are exact: products of float32 may exchange two that are as near.
SPARE = 4
# Numbers in a block of products: 64 MB.
BLOCK = 2**24
# Numbers in a block of differences, that stay in the processor's cache.
CACHED = 2**19
# Rows of a block at least, so that a product is quick, and at most.
FEWEST, MOST = 16, 1024
# The share of a block from which on it is quicker to look for the best of all than to list those that may be.
MANY = 1 / 16


@dataclass(frozen=True)
class Neighbours:
    """``distance`` (u, k) float64 of vectors of length 1, from 0 to 2 and rising from the nearest on; ``position`` (u, k) int64."""

    distance: NDArray[np.float64]
    position: NDArray[np.int64]


def nearest(unit: NDArray[np.float32], most: int = NEAREST) -> Neighbours:
    """The nearest of the other rows (u, d), of length 1 or 0, up to ``most``, by exhaustive search: exact, and the same each time.

    Each pair is multiplied once, in float32, in blocks that serve both of its rows; scikit-learn's search multiplies all twice, in
    float64 (bench.audit). The distances of those that are found are then computed from the differences.
    """
    u = len(unit)
    k = min(most, u - 1)
    if k < 1:
        return Neighbours(np.empty((u, 0)), np.empty((u, 0), np.int64))
    best = _Best(u, min(k + SPARE, u - 1))
    asked, others = _sides(unit)
    start = 0
    while start < u:
        rows = slice(start, min(u, start + _rows(u - start)))
        product = asked[rows] @ others[start:].T
        mine = rows.stop - start
        np.fill_diagonal(product, -np.inf)
        best.take(product, rows, start)
        best.take(product[:, mine:], slice(rows.stop, u), start, down=True)
        start = rows.stop
    return _exact(unit, best.position, k)


def nearest_among(unit: NDArray[np.float32], asked: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.int64]:
    """The position of the nearest of the rows ``among`` (a,) for each of the rows ``asked`` (q,)."""
    found = np.empty(len(asked), np.int64)
    left, right = _sides(unit)
    others, step = right[among].T, _rows(len(among))
    for start in range(0, len(asked), step):
        product = left[asked[start : start + step]] @ others
        found[start : start + step] = among[product.argmax(axis=1)]
    return found


def _sides(unit: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two matrices (u, d + 2) of which a row of one times a row of the other is half the squared distance, below zero.

    Of rows of length 1 that is the cosine less 1; but rows of zeros, such as of images that the base sees nothing in, have no cosine.
    """
    half = -(unit * unit).sum(axis=1, keepdims=True) / 2
    one = np.ones_like(half)
    return np.concatenate([unit, half, one], axis=1), np.concatenate([unit, one, half], axis=1)


def _rows(width: int) -> int:
    return int(np.clip(BLOCK // max(width, 1), FEWEST, MOST))


class _Best:
    """The rows with the largest products so far, for each of u rows: as many as are ``kept``, in no order."""

    def __init__(self, u: int, kept: int) -> None:
        self.kept = kept
        self.value = np.full((u, kept), -np.inf, np.float32)
        self.position = np.full((u, kept), -1, np.int64)

    def take(self, product: NDArray[np.float32], rows: slice, first: int, down: bool = False) -> None:
        """Look at products (r, m) of some rows with those from ``first`` on; at (m, r) where ``down`` is set."""
        least = self.value[rows].min(axis=1)
        better = product > (least if down else least[:, None])
        if np.count_nonzero(better) > MANY * better.size:
            wide = np.ascontiguousarray(product.T) if down else product
            among = min(self.kept, wide.shape[1])
            column = np.argpartition(wide, -among, axis=1)[:, -among:].ravel()
            row = np.repeat(np.arange(len(wide)), among)
        else:
            # By one index: numpy looks for two far longer.
            row, column = np.divmod(np.flatnonzero(better), better.shape[1])[:: -1 if down else 1]
        if len(row):
            value = product[column, row] if down else product[row, column]
            self._merge(rows.start, row, first + column, value)

    def _merge(
        self, first: int, row: NDArray[np.int64], position: NDArray[np.int64], value: NDArray[np.float32]
    ) -> None:
        """Take what is found for some rows, from ``first`` on, in the place of what is less."""
        # For each row the largest first, and of these so many as are kept.
        order = np.argsort((row << 32) + (np.clip(-value, 0, 2) * 2**30).astype(np.int64))
        row, position, value = row[order], position[order], value[order]
        change, begin, count = np.unique(row, return_index=True, return_counts=True)
        place = np.arange(len(row)) - np.repeat(begin, count)
        line, inside = np.repeat(np.arange(len(change)), count), place < self.kept
        change += first
        line, place = line[inside], place[inside]
        values, positions = (np.concatenate([each[change]] * 2, axis=1) for each in (self.value, self.position))
        values[:, self.kept :] = -np.inf
        values[line, self.kept + place], positions[line, self.kept + place] = value[inside], position[inside]
        largest = np.argpartition(-values, self.kept - 1, axis=1)[:, : self.kept]
        self.value[change] = np.take_along_axis(values, largest, axis=1)
        self.position[change] = np.take_along_axis(positions, largest, axis=1)


def _exact(unit: NDArray[np.float32], position: NDArray[np.int64], k: int) -> Neighbours:
    """The k nearest of those found (u, k + spare), by exact distances; of equally near ones those that stand first."""
    position = np.sort(position, axis=1)
    distance = np.empty(position.shape)
    step = max(1, CACHED // (position.shape[1] * max(unit.shape[1], 1)))
    for start in range(0, len(unit), step):
        rows = slice(start, start + step)
        apart = unit[position[rows]] - unit[rows, None]
        distance[rows] = np.sqrt(np.einsum("ukd,ukd->uk", apart, apart))
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return Neighbours(np.take_along_axis(distance, order, axis=1), np.take_along_axis(position, order, axis=1))
