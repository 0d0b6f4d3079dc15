"""The rows nearest to a query, by exhaustive search: each row is multiplied with it, so that the answer is exact."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float16] | NDArray[np.float32]

# Numbers in a block: as float32 they stay in the processor's cache, so that a row is read from memory once, in two bytes a number.
BLOCK = 2**18
# What a float16's bits, moved to the place of a float32's, are too small by: the exponents are counted from 15 and from 127.
SHIFTED = 2.0**112
# So many more are compared in float64: products of float32 may exchange two rows that are as near.
SPARE = 16


@dataclass(frozen=True)
class Found:
    """The nearest rows, from the nearest on: their ``position`` (k,) int64, and the cosine of each with the query, (k,) float64."""

    position: NDArray[np.int64]
    similarity: NDArray[np.float64]


def nearest(query: NDArray[np.float32], rows: Rows, k: int, lengths: NDArray[np.float32] | None = None) -> Found:
    """The ``k`` rows (n, d), float16 or float32, whose angle with ``query`` (d,) is least; fewer where there are fewer rows.

    ``lengths`` (n,) are what ``lengths_of`` gives for the rows, which spares computing them for each query. Of rows that are found equally
    near, the one that stands first comes first. The cosine with a row of zeros is 0.
    """
    k = min(k, len(rows))
    if k < 1:
        return Found(np.empty(0, np.int64), np.empty(0))
    products = _by_row(rows, lambda block: np.einsum("ij,j->i", block, query))
    cosines = products / np.maximum(lengths_of(rows) if lengths is None else lengths, np.finfo(np.float32).tiny)
    several = min(k + SPARE, len(rows))
    some = np.sort(np.argpartition(-cosines, several - 1)[:several])
    exact, asked = rows[some].astype(np.float64), query.astype(np.float64)
    size = np.linalg.norm(exact, axis=1) * np.linalg.norm(asked)
    similarity = np.divide(exact @ asked, size, out=np.zeros(len(some)), where=size > 0)
    order = np.argsort(-similarity, kind="stable")[:k]
    return Found(some[order].astype(np.int64), similarity[order])


def lengths_of(rows: Rows) -> NDArray[np.float32]:
    """The Euclidean length (n,) of each row."""
    return np.sqrt(_by_row(rows, lambda block: np.einsum("ij,ij->i", block, block)))


def _by_row(rows: Rows, number: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> NDArray[np.float32]:
    """A number for each row, (n,): blocks of rows become float32 one after another, in as many threads as there are cores."""
    out = np.empty(len(rows), np.float32)
    step = max(1, BLOCK // max(rows.shape[1], 1))

    def part(first: int, end: int) -> None:
        block = np.empty((step, rows.shape[1]), np.float32)
        for start in range(first, end, step):
            stop = min(start + step, end)
            out[start:stop] = number(_as_float32(rows[start:stop], block[: stop - start]))

    # NumPy converts and adds up without holding the interpreter's lock; einsum, unlike a product by BLAS, starts no threads of its own.
    edges = np.linspace(0, len(rows), (os.cpu_count() or 1) + 1).astype(int).tolist()
    with ThreadPoolExecutor(len(edges) - 1) as threads:
        list(threads.map(part, edges[:-1], edges[1:]))
    return out


def _as_float32(rows: Rows, out: NDArray[np.float32]) -> NDArray[np.float32]:
    """Finite rows as float32, in ``out``. NumPy converts float16 one number at a time; by whole numbers it goes several times as fast."""
    if rows.dtype != np.float16:
        np.copyto(out, rows)
        return out
    bits = out.view(np.int32)
    np.copyto(bits, rows.view(np.int16))  # the sign fills the upper half
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(-0x70000001), out=bits)  # of the sign, one bit is left
    np.multiply(out, np.float32(SHIFTED), out=out)
    return out
