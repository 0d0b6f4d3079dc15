"""Manifest and store → arrays: the rows that heads are trained and scored on."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cache.errors import DataError
from cache.manifest import Manifest
from cache.store import FeatureStore
from stages.bases.backend import load_keras
from stages.heads.pooling import L2, joined, pool_features
from stages.heads.stream import Streamed
from stages.progress import in_bytes
from stages.training.source import InMemory, Source
from stages.training.spec import Pool

# Of an array, while heads are trained on it: as it was read, what is gathered of it, and that again in the backend (bench/stream.py).
COPIES = 4.0


class Dataset:
    """The images of a manifest, in an order that depends on their contents alone, with the features of a base's layers.

    ``y`` (n,) int64 indexes ``classes``. Arrays are read once for each layer and pooling, and kept; those that would take more
    than ``memory`` bytes (left out: half of the machine's), the ``limit``, while a head is trained are streamed.
    """

    def __init__(self, manifest: Manifest, stores: Mapping[str, FeatureStore], memory: int | None = None) -> None:
        self.manifest, self.stores, self.classes = manifest, stores, manifest.classes
        self.limit = memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        # By content: a file that is renamed in its class changes nothing, not even the order of batches.
        self.records = sorted(manifest.records, key=lambda record: (record.sha256, record.label, record.path))
        ids = {name: i for i, name in enumerate(self.classes)}
        self.y = np.array([ids[record.label] for record in self.records], np.int64)
        self._arrays: dict[tuple[str, Pool], NDArray[np.float32]] = {}

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """The group of each image (n,) int64, one of its own for an image in none; None where groups are not used."""
        if not self.manifest.groups:
            return None
        of = self.manifest.group_of
        ids: dict[tuple[bool, str], int] = {}
        names = ((record.sha256 in of, of.get(record.sha256, record.sha256)) for record in self.records)
        return np.array([ids.setdefault(name, len(ids)) for name in names], np.int64)

    def rows(self, *splits: str) -> NDArray[np.int64]:
        """The positions of the images of some splits."""
        return np.array([i for i, record in enumerate(self.records) if record.split in splits], np.int64)

    def distinct(self, *splits: str) -> NDArray[np.int64]:
        """The positions of the images of some splits, of copies with one label only the first: they are one image."""
        first = {(self.records[i].sha256, self.records[i].label): int(i) for i in self.rows(*splits)[::-1]}
        return np.array(sorted(first.values()), np.int64)

    def X(self, pool: Pool, layers: Sequence[str] = ()) -> NDArray[np.float32]:
        """Pooled features (n, d) float32 of some layers side by side; of the last one where none is named.

        Raises CacheError where a store lacks an image or is damaged, DataError where memory would not hold them, or where those
        of several layers are to stay as they are.
        """
        if pool == "none" and len(layers) > 1:
            raise DataError(
                f'a head of kind "keras" takes the features of one layer, found {len(layers)} ({", ".join(layers)}); '
                f'set layers = ["{layers[-1]}"] for it, or train one head for each'
            )
        if not self.fits(pool, layers):
            need, limit = in_bytes(self._bytes(pool, layers)), in_bytes(self.limit)
            remedy = 'set pool = "avg", or ' if pool.startswith("flatten") else ""
            raise DataError(
                f"{len(self.records):,} rows of features, pool {pool!r}, take {need} while they are trained on, expected at most "
                f"{limit}, and dense heads alone can be streamed; {remedy}raise memory in [cache]"
            )
        return joined([self._pooled(layer, pool) for layer in layers or list(self.stores)[-1:]], pool)

    def fits(self, pool: Pool, layers: Sequence[str] = ()) -> bool:
        """Whether memory holds the features while a head is trained on them."""
        return self._bytes(pool, layers) <= self.limit

    def width(self, pool: Pool, layers: Sequence[str] = ()) -> int:
        """Features of one image, pooled: d."""
        shapes = [shape for shape in self.feature_shapes(layers or list(self.stores)[-1:]).values() if shape]
        return sum(math.prod(shape) if pool == "none" or pool.startswith("flatten") else shape[-1] for shape in shapes)

    def _bytes(self, pool: Pool, layers: Sequence[str]) -> int:
        return int(COPIES * 4 * len(self.records) * self.width(pool, layers))

    def source(self, pool: Pool, layers: Sequence[str]) -> Source:
        """Rows to train dense heads on: in memory where they fit, else streamed from the shards."""
        if self.fits(pool, layers):
            return InMemory(self.X(pool, layers), self.y)
        return Streamed(self.records, self.y, {layer: self.stores[layer] for layer in layers}, pool, self.limit)

    def parts(self, pool: Pool, layers: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """All rows, a part at a time: positions (m,) and features (m, d) float32."""
        everything = np.arange(len(self.records))
        if self.fits(pool, layers):
            yield everything, self.X(pool, layers)
            return
        for block in self.source(pool, layers).blocks(everything, None):
            rows = load_keras().ops.convert_to_numpy(block.X)
            yield block.positions, rows[: len(block.positions)].astype(np.float32)

    def _pooled(self, layer: str, pool: Pool) -> NDArray[np.float32]:
        pool = cast(Pool, pool.removesuffix(L2))
        if (layer, pool) not in self._arrays:
            # What was read before for another pooling goes, where both would be too much.
            if sum(each.nbytes for each in self._arrays.values()) * COPIES > self.limit / 2:
                self._arrays.clear()
            digests = [record.sha256 for record in self.records]
            self._arrays[layer, pool] = self.stores[layer].read(digests, lambda rows: pool_features(rows, pool))
        return self._arrays[layer, pool]

    def feature_shapes(self, layers: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Shape of one image's features, as the base gives them, by layer."""
        return {layer: tuple(self.stores[layer].read(()).shape[1:]) for layer in layers}
