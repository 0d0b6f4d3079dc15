"""Rows from the shards, a block at a time: for features that memory does not hold.

An epoch goes through the shards in an order of its own and takes as many at once as the limit allows; within such a block
each head shuffles for itself. While one block is trained on, the next is read.

Shards are written in the order of digests, so that each holds all classes. Earlier versions wrote them in the order of paths, one
class after another; of such shards a block takes parts, dealt out so that it holds the classes as the whole does.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.manifest import ImageRecord
from cache.store import FeatureStore
from stages.bases.backend import load_keras
from stages.heads.pooling import joined, pool_features
from stages.training.source import Block, of_places
from stages.training.spec import Pool

# Fewer rows than this at once would read each shard many times over, and split batches.
LEAST_ROWS = 512
# What is in memory at once, in blocks: one that is trained on, its copy in the backend, one that is read, and what reading takes.
BLOCKS_AT_ONCE = 5
# The intraclass correlation of labels within shards above which they are mixed: 0 where labels lie by chance, 1 with one a shard.
SORTED = 0.1
# Where shards are mixed, a block holds parts of so many at least; each part reads its shard, whose checksum is of the whole.
PARTS = 8


class Streamed:
    """Features of some layers, pooled, in blocks of a bounded size. See ``stages.training.source.Source``.

    Where there are ``views``, the stores of each layer's views, a block to train on holds those of its rows, too. A block has
    ``LEAST_ROWS`` at least. Blocks are float16 where the shards are and nothing is pooled. All have the same number of rows, the last
    ones of them zeros where there are fewer, so that one compiled function serves them all.
    """

    whole = False

    def __init__(
        self,
        records: Sequence[ImageRecord],
        y: NDArray[np.int64],
        stores: Mapping[str, FeatureStore],
        pool: Pool,
        memory: int,
        views: Mapping[str, Sequence[FeatureStore]] | None = None,
    ) -> None:
        self.y = y
        self._records, self._stores, self._pool = records, stores, pool
        # Of each view its store for each layer.
        self._views = (
            [dict(zip(views, each, strict=True)) for each in zip(*views.values(), strict=True)] if views else []
        )
        # What the shards say, and not the configuration: some may be float32, as float16 does not hold their values.
        every = [store for each in (stores, *self._views) for store in each.values()]
        self._halves = all(store.dtypes() == {"float16"} for store in every)
        example = self._read(np.arange(1), stores)
        self.inputs = example.shape[1]
        self.rows_at_once = max(LEAST_ROWS, memory // (BLOCKS_AT_ONCE * example.nbytes * (1 + len(self._views))))
        first = next(iter(stores.values()))
        self._shard_of = [first.shard_of(record.sha256) for record in records]

    def blocks(self, rows: NDArray[np.int64], epoch: int | None) -> Iterator[Block]:
        """Blocks of ``rows``, shard by shard, in an order of this epoch, or in that of the shards where it is None."""
        parts = self._parts(rows, epoch)
        views = self._views if epoch is not None else []
        size = max(map(len, parts)) * (1 + len(views))
        tensor = load_keras().ops.convert_to_tensor
        with ThreadPoolExecutor(1, thread_name_prefix="stream") as reader:
            ahead = reader.submit(self._read_all, parts[0], views)
            for number, part in enumerate(parts):
                found, places = ahead.result()
                if number + 1 < len(parts):
                    ahead = reader.submit(self._read_all, parts[number + 1], views)
                X = np.zeros((size, self.inputs), found.dtype)
                X[: len(found)] = found
                y = of_places(self.y[part], places, size).astype(np.int32)
                del found
                yield Block(number, part, tensor(X), tensor(y), places if views else None)

    def _parts(self, rows: NDArray[np.int64], epoch: int | None) -> list[NDArray[np.int64]]:
        """Positions of each block. Shards are dealt out so that all blocks come to about as many rows."""
        by_shard: dict[str, list[int]] = {}
        for row in rows:
            by_shard.setdefault(self._shard_of[int(row)], []).append(int(row))
        shards = [np.array(by_shard[name], np.int64) for name in sorted(by_shard)]
        count = -(-len(rows) // self.rows_at_once)
        if epoch is not None:
            rng = np.random.default_rng([len(rows), epoch])
            if count > 1 and likeness([self.y[shard] for shard in shards]) > SORTED:
                shards = self._mixed(shards, rng)
            else:
                shards = [shards[i] for i in rng.permutation(len(shards))]
        return np.array_split(np.concatenate(shards), count)

    def _mixed(self, shards: list[NDArray[np.int64]], rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """Parts of the shards, rows in a row each, so ordered that those of each class are spread evenly over the epoch."""
        most = max(1, self.rows_at_once // PARTS)
        # A row's place among all that are stored, so that the rows of a part lie one after another in their shard.
        store = next(iter(self._stores.values()))
        places = {digest: place for place, digest in enumerate(store.digests())}
        parts = [
            part
            for shard in shards
            for part in np.array_split(
                sorted(shard, key=lambda row: places[self._records[int(row)].sha256]), -(-len(shard) // most)
            )
        ]
        parts = [parts[i] for i in rng.permutation(len(parts))]
        classes = [int(np.bincount(self.y[part]).argmax()) for part in parts]
        # The parts of a class stand at even distances from 0 to 1, from a beginning of chance.
        total, begin = np.bincount(classes), rng.random(max(classes) + 1)
        met = np.zeros(len(total), np.int64)
        at = np.empty(len(parts))
        for i, c in enumerate(classes):
            at[i] = (met[c] + begin[c]) / total[c]
            met[c] += 1
        return [parts[i] for i in np.argsort(at, kind="stable")]

    def _read_all(
        self, part: NDArray[np.int64], views: Sequence[Mapping[str, FeatureStore]]
    ) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """The rows of a part and behind them their views, and the places (m, views + 1) of each row and of its views."""
        found = [self._read(part, self._stores)]
        places = np.repeat(np.arange(len(part), dtype=np.int32)[:, None], 1 + len(views), axis=1)
        end = len(part)
        for number, stores in enumerate(views, 1):
            first = next(iter(stores.values()))
            there = np.flatnonzero(
                [(r := self._records[int(row)]).split == "train" and r.sha256 in first for row in part]
            )
            found.append(self._read(part[there], stores))
            places[there, number] = end + np.arange(len(there))
            end += len(there)
        return np.concatenate(found) if views else found[0], places

    def _read(self, part: NDArray[np.int64], stores: Mapping[str, FeatureStore]) -> NDArray[Any]:
        digests = [self._records[int(row)].sha256 for row in part]
        (store, *others) = stores.values()
        if not others and self._pool == "flatten" and self._halves:
            return store.read(digests, dtype="float16").reshape(len(part), -1)
        # Pooled shard by shard: maps of a whole block may be many times what is kept of them.
        pooled = [each.read(digests, lambda rows: pool_features(rows, self._pool)) for each in stores.values()]
        return joined(pooled, self._pool)


def likeness(shards: Sequence[NDArray[np.int64]]) -> float:
    """The intraclass correlation of the labels (n,) within shards: 0 where they lie by chance, 1 where each shard has one label."""
    n = sum(map(len, shards))
    counts = [np.bincount(labels) for labels in shards]
    overall = np.bincount(np.concatenate(shards)) / n
    by_chance = float((overall**2).sum())
    # Of two rows of one shard, the share that has one label, without the pairs of a row with itself.
    pairs = sum(len(labels) * (len(labels) - 1) for labels in shards)
    like = sum(int((count * (count - 1)).sum()) for count in counts)
    return (like / pairs - by_chance) / (1 - by_chance) if pairs and by_chance < 1 else 0.0
