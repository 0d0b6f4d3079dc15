"""Rows of many shards → one array, in the order asked for: a thread checks and converts while the next shard is read."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cache.errors import CacheError
from cache.index import ShardEntry
from cache.shard import read_shard, shape_of

DTYPES = (np.float16, np.float32, np.float64)
FLOAT16_MAX = float(np.finfo(np.float16).max)

Transform = Callable[[NDArray[Any]], NDArray[Any]]


def read_rows(
    folder: Path,
    entries: Mapping[str, ShardEntry],
    places: Sequence[tuple[str, int]],
    transform: Transform | None,
    dtype: DTypeLike,
) -> NDArray[Any]:
    """The rows at ``places`` (name of the shard, row), in that order, as an array (n, …) of ``dtype``.

    ``transform`` is as in ``FeatureStore.read``. Without places the array is empty, of the shape that rows have.
    Raises ValueError for another dtype than float16, float32 and float64, CacheError for values that do not fit float16 and
    for a shard that changed, DamageError for a damaged one, FileNotFoundError for one that went away.
    """
    if np.dtype(dtype) not in DTYPES:
        raise ValueError(f"dtype: expected float16, float32 or float64, found {dtype}")
    by_shard: dict[str, list[tuple[int, int]]] = {}
    for position, (name, row) in enumerate(places):
        by_shard.setdefault(name, []).append((position, row))
    names = sorted(by_shard) or sorted(entries)[:1]
    if not names:
        return np.empty((0,), dtype)
    shape = shape_of(folder / names[0])[1:]
    if transform is not None:
        shape = transform(np.zeros((1, *shape), np.float32)).shape[1:]
    out = np.empty((len(places), *shape), dtype)

    def read_one(name: str) -> None:
        _read_into(out, folder / name, entries[name], by_shard[name], transform)

    # HDF5 reads one shard at a time; meanwhile the other thread checks and converts the one before.
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(read_one, by_shard))  # where one fails, those that have not begun are cancelled
    return out


def _read_into(
    out: NDArray[Any], path: Path, entry: ShardEntry, where: list[tuple[int, int]], transform: Transform | None
) -> None:
    """Row ``row`` of a shard to ``out[position]``, for each (position, row) of ``where``."""
    positions, rows = map(list, zip(*where, strict=True))
    whole = rows == list(range(len(entry.sha256)))
    run = slice(positions[0], positions[0] + len(positions))
    in_a_row = positions == list(range(run.start, run.stop))
    target = out[run] if whole and in_a_row and transform is None else None
    features, table = read_shard(path, target)
    if table.sha256 != entry.sha256:
        raise CacheError(f"{path}: changed while it was read; run again")
    if features is target:
        return
    values = features if whole else features[rows]
    values = values if transform is None else transform(values.astype(np.float32))
    if out.dtype == np.float16 and values.dtype != np.float16 and np.abs(values).max(initial=0) > FLOAT16_MAX:
        raise CacheError(f"{path}: holds values that do not fit float16; read them as float32")
    out[run if in_a_row else positions] = values
