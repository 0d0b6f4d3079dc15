"""Rows → shards, behind the back of the base: while it computes, another thread compresses, writes and checks.

What a killed run loses is bounded: rows that are not yet in a whole shard are never more than ``shard_images``. So a
shard is closed a little before that, and the rest is what the base may compute while it is written.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.manifest import ImageRecord
from cache.reading import FLOAT16_MAX
from cache.shard import ShardInfo
from cache.store import FeatureStore
from stages.extract.decoding import step_back
from stages.extract.spec import CacheSpec
from stages.progress import Progress

# Rounding to float16 costs 2⁻¹¹ at most, relatively; more is lost only where values over- or underflow.
FLOAT16_LOSS = 1e-3

Rows = Mapping[str, NDArray[np.float32]]
Halved = Mapping[str, NDArray[np.float16] | None]


@dataclass(frozen=True)
class _Added:
    """Rows of every layer as they came, and, when the other thread has come to it, as float16."""

    features: Rows
    records: Sequence[ImageRecord]
    halved: Future[Halved]


class ShardWriter:
    """Collects rows of every layer and writes shards in the background. Use it from one thread.

    ``targets`` are the store of each layer, and what its shards say of themselves.
    """

    def __init__(
        self,
        targets: Mapping[str, tuple[FeatureStore, ShardInfo]],
        classes: Sequence[str],
        cache: CacheSpec,
        batch_size: int,
        progress: Progress,
    ) -> None:
        self._targets = targets
        self._classes = classes
        self._cache = cache
        self._progress = progress
        self._most = cache.shard_images
        self._close_at = self._most - self._most // 4 // batch_size * batch_size
        self._buffer: list[_Added] = []
        self._pending: deque[tuple[Future[None], int]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write", initializer=step_back)
        self._since = perf_counter()

    def make_room(self, rows: int) -> None:
        """Wait until ``rows`` more may be computed. Raises what writing raised."""
        if self._buffer and self._buffered() + rows > self._most:
            self._submit()
        while self._pending and self._buffered() + sum(n for _, n in self._pending) + rows > self._most:
            self._settle()

    def add(self, features: Rows, records: Sequence[ImageRecord]) -> None:
        """Take features (n, …) of each layer; row i belongs to ``records[i]``."""
        halved = self._thread.submit(self._halve, features)
        self._buffer.append(_Added(features, records, halved))
        if self._buffered() >= self._close_at:
            self._submit()

    def flush(self) -> None:
        """Write everything there is, and wait for it. Raises what writing raised."""
        if self._buffer:
            self._submit()
        while self._pending:
            self._settle()

    def close(self) -> None:
        """Wait for the shard at hand, and write no other."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _buffered(self) -> int:
        return sum(len(added.records) for added in self._buffer)

    def _settle(self) -> None:
        self._pending[0][0].result()
        self._pending.popleft()

    def _submit(self) -> None:
        now = perf_counter()
        rows = self._buffered()
        self._pending.append((self._thread.submit(self._write, self._buffer, now - self._since), rows))
        self._buffer, self._since = [], now

    def _halve(self, features: Rows) -> Halved:
        return {layer: as_float16(rows) if self._cache.dtype == "float16" else None for layer, rows in features.items()}

    def _write(self, buffer: list[_Added], seconds: float) -> None:
        records = [record for added in buffer for record in added.records]
        for layer, (store, info) in self._targets.items():
            # Another layer may lack images that this one has, and an interrupt may have handed rows over twice.
            wanted = [i for i, record in enumerate(records) if record.sha256 not in store]
            if not wanted:
                continue
            halves = [half for added in buffer if (half := added.halved.result()[layer]) is not None]
            if len(halves) == len(buffer):
                features: NDArray[Any] = np.concatenate(halves)
            else:
                whole = np.concatenate([added.features[layer] for added in buffer])
                features = as_stored(whole, self._cache.dtype, self._progress)
            store.append(
                features if len(wanted) == len(records) else features[wanted],
                [records[i] for i in wanted],
                self._classes,
                replace(info, seconds=round(seconds, 3)),
                self._cache.compression,
            )


def as_stored(features: NDArray[np.float32], dtype: str, progress: Progress) -> NDArray[Any]:
    """Features (n, …) in the dtype that they are stored in: float32 where float16 would lose more than rounding."""
    if dtype == "float32":
        return features
    stored = as_float16(features)
    if stored is None:
        low, high = np.abs(features).min(), np.abs(features).max()
        fit = f"features from {low:.2g} to {high:.2g} do not fit float16 (65504)"
        progress.say(f"warning: {fit}: this shard is stored as float32")
        return features
    return stored


def as_float16(features: NDArray[np.float32]) -> NDArray[np.float16] | None:
    """Features (n, …) as float16, or None where that would lose more than rounding in one of the rows."""
    rows = features.reshape(len(features), -1)
    if not rows.size:
        return features.astype(np.float16)
    if max(rows.max(), -rows.min()) > FLOAT16_MAX:
        return None
    stored: NDArray[np.float16] = features.astype(np.float16)
    # Each value is off by 2⁻¹¹ of itself or, below the normal numbers, by 2⁻²⁵. So a row is safe that is large as a whole;
    # the others, of which there are few, are looked at value by value.
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    doubtful = norms < np.sqrt(rows.shape[1]) * 2.0**-25 / (FLOAT16_LOSS - 2.0**-11)
    if doubtful.any() and _largest_loss(rows[doubtful], stored.reshape(rows.shape)[doubtful]) > FLOAT16_LOSS:
        return None
    return stored


def _largest_loss(rows: NDArray[np.float32], stored: NDArray[np.float16]) -> float:
    """The relative error of the row (n, d) that rounding changes most."""
    exact = rows.astype(np.float64)
    lost = np.linalg.norm(stored.astype(np.float64) - exact, axis=1)
    return float((lost / np.maximum(np.linalg.norm(exact, axis=1), 1e-300)).max())
