"""Manifest and store → arrays: the rows that heads are trained and scored on."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from cache.errors import DataError
from cache.manifest import Manifest
from cache.store import FeatureStore
from stages.bases.backend import load_keras
from stages.heads.pooling import L2, joined, pool_features
from stages.heads.stream import Streamed
from stages.progress import in_bytes
from stages.training.source import InMemory, Source, gathered, of_places
from stages.training.spec import Pool

# Of an array, while heads are trained on it: as it was read, what is gathered of it, and that again in the backend (bench/stream.py).
COPIES = 4.0


class Trainable(NamedTuple):
    """Features (m, …) float32 and labels (m,) to train on; ``views`` (images, v) are the places of each image and of its views in them,
    None where each row is an image.
    """

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    views: NDArray[np.int32] | None


class Dataset:
    """The images of a manifest, in an order that depends on their contents alone, with the features of a base's layers.

    ``y`` (n,) int64 indexes ``classes``. Arrays are read once for each layer and pooling, and kept; those that would take more
    than ``memory`` bytes (left out: half of the machine's), the ``limit``, while a head is trained are streamed. ``views`` are the
    stores of augmented views of training images, by layer.
    """

    def __init__(
        self,
        manifest: Manifest,
        stores: Mapping[str, FeatureStore],
        memory: int | None = None,
        views: Mapping[str, Sequence[FeatureStore]] | None = None,
    ) -> None:
        self.manifest, self.stores, self.classes = manifest, stores, manifest.classes
        self.views = views or {}
        self.limit = memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        # By content: a file that is renamed in its class changes nothing, not even the order of batches.
        self.records = sorted(manifest.records, key=lambda record: (record.sha256, record.label, record.path))
        ids = {name: i for i, name in enumerate(self.classes)}
        self.y = np.array([ids[record.label] for record in self.records], np.int64)
        self._arrays: dict[tuple[str, Pool, bool], NDArray[np.float32]] = {}

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

    def X(self, pool: Pool, layers: Sequence[str] = (), views: bool = False) -> NDArray[np.float32]:
        """Pooled features (n, d) float32 of some layers side by side; of the last one where none is named.

        With ``views`` those of the augmented views come behind, at the places that ``view_places`` says. Raises CacheError where a store
        lacks an image or is damaged, DataError where memory would not hold them, or where those of several layers are to stay as they
        are.
        """
        if pool == "none" and len(layers) > 1:
            raise DataError(
                f'a head of kind "keras" takes the features of one layer, found {len(layers)} ({", ".join(layers)}); '
                f'set layers = ["{layers[-1]}"] for it, or train one head for each'
            )
        if not self.fits(pool, layers, views):
            need, limit = in_bytes(self._bytes(pool, layers, views)), in_bytes(self.limit)
            remedy = 'set pool = "avg", or ' if pool.startswith("flatten") else ""
            raise DataError(
                f"{len(self.records):,} rows of features, pool {pool!r}, take {need} while they are trained on, expected at most "
                f"{limit}, and dense heads alone can be streamed; {remedy}raise memory in [cache]"
            )
        return joined([self._pooled(layer, pool, views) for layer in layers or list(self.stores)[-1:]], pool)

    @cached_property
    def view_places(self) -> NDArray[np.int64]:
        """Of each image (n, v) its own position and those of its views in ``X``; its own where it has no such view."""
        here = np.arange(len(self.records), dtype=np.int64)
        of = next(iter(self.views.values()), [])
        found = np.repeat(here[:, None], 1 + len(of), axis=1)
        end = len(here)
        for number, rows in enumerate(self._viewed_rows, 1):
            found[rows, number] = end + np.arange(len(rows))
            end += len(rows)
        return found

    def with_views(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions in ``X`` of some images and all of their views (m,), and the images that they are of (m,).

        Each image has as many: one that lacks views stands there several times.
        """
        places = self.view_places[rows]
        return places.ravel(), np.repeat(rows, places.shape[1])

    def to_train(self, X: NDArray[np.float32], rows: NDArray[np.int64], views: bool) -> Trainable:
        """Some rows of the features ``X``, and where these have ``views``, those of the rows."""
        if not views:
            return Trainable(X[rows], self.y[rows], None)
        places, of = gathered(rows, self.view_places)
        return Trainable(X[places], of_places(self.y[rows], of, len(places)), of)

    @cached_property
    def _viewed_rows(self) -> list[NDArray[np.int64]]:
        """The positions of the images that have each view: those of train, though what is stored may have been it once."""
        train = self.rows("train")
        of = next(iter(self.views.values()), [])
        return [np.array([row for row in train if self.records[row].sha256 in store], np.int64) for store in of]

    def fits(self, pool: Pool, layers: Sequence[str] = (), views: bool = False) -> bool:
        """Whether memory holds the features while a head is trained on them."""
        return self._bytes(pool, layers, views) <= self.limit

    def width(self, pool: Pool, layers: Sequence[str] = ()) -> int:
        """Features of one image, pooled: d."""
        shapes = [shape for shape in self.feature_shapes(layers or list(self.stores)[-1:]).values() if shape]
        return sum(math.prod(shape) if pool == "none" or pool.startswith("flatten") else shape[-1] for shape in shapes)

    def _bytes(self, pool: Pool, layers: Sequence[str], views: bool) -> int:
        rows = len(self.records) + (sum(map(len, self._viewed_rows)) if views else 0)
        return int(COPIES * 4 * rows * self.width(pool, layers))

    def source(self, pool: Pool, layers: Sequence[str], views: bool = False) -> Source:
        """Rows to train dense heads on, and with ``views`` those of the images: in memory where they fit, else streamed from the shards."""
        if self.fits(pool, layers, views):
            return InMemory(self.X(pool, layers, views), self.y, self.view_places if views else None)
        theirs = {layer: self.views[layer] for layer in layers} if views else None
        return Streamed(self.records, self.y, {layer: self.stores[layer] for layer in layers}, pool, self.limit, theirs)

    def parts(self, pool: Pool, layers: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """All rows, a part at a time: positions (m,) and features (m, d) float32."""
        everything = np.arange(len(self.records))
        if self.fits(pool, layers):
            yield everything, self.X(pool, layers)
            return
        for block in self.source(pool, layers).blocks(everything, None):
            rows = load_keras().ops.convert_to_numpy(block.X)
            yield block.positions, rows[: len(block.positions)].astype(np.float32)

    def _pooled(self, layer: str, pool: Pool, views: bool) -> NDArray[np.float32]:
        pool = cast(Pool, pool.removesuffix(L2))
        if (layer, pool, views) not in self._arrays:
            # What was read before for another pooling goes, where both would be too much.
            if sum(each.nbytes for each in self._arrays.values()) * COPIES > self.limit / 2:
                self._arrays.clear()
            everything = [(self.stores[layer], np.arange(len(self.records)))]
            everything += zip(self.views[layer], self._viewed_rows, strict=True) if views else []
            pooled = partial(pool_features, pool=pool)
            parts = [store.read([self.records[row].sha256 for row in rows], pooled) for store, rows in everything]
            self._arrays[layer, pool, views] = np.concatenate(parts) if views else parts[0]
        return self._arrays[layer, pool, views]

    def feature_shapes(self, layers: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Shape of one image's features, as the base gives them, by layer."""
        return {layer: tuple(self.stores[layer].read(()).shape[1:]) for layer in layers}
