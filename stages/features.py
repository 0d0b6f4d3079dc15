"""Stage one: every image that the store lacks goes through the frozen base, and lands in shards."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import BaseError, DamageError, DataError
from cache.manifest import ImageRecord, Manifest
from cache.shard import ShardInfo
from cache.skipped import SkippedImages
from cache.store import FeatureStore
from stages import backend, drift
from stages.bases import FrozenBase
from stages.images import BadImageError, decode
from stages.progress import SILENT, Progress
from stages.scan import bad_image
from stages.specs import BaseSpec, CacheSpec, DataSpec

# Rounding to float16 costs 2⁻¹¹ at most, relatively; more is lost only where values over- or underflow.
FLOAT16_LOSS = 1e-3
# Batches that are decoded ahead of the base: enough that it never waits, few enough that memory stays bounded.
BATCHES_AHEAD = 4


@dataclass
class Extraction:
    """What a run of stage one did."""

    extracted: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Stage:
    """Everything that one extraction needs: where images are, where features go, and what to tell.

    ``allow_drift`` adds to a store even where features computed here differ from those it has.
    """

    data: DataSpec
    manifest: Manifest
    store: FeatureStore
    skipped: SkippedImages
    cache: CacheSpec
    progress: Progress = SILENT
    allow_drift: bool = False


def extract(
    stage: Stage, base: FrozenBase, key: str, spec: dict[str, Any], wanted: Sequence[str], compared: dict[str, Any]
) -> Extraction:
    """Run ``base`` over the contents ``wanted`` (SHA-256) and write their features as shards.

    Images that cannot be decoded are recorded in ``stage.skipped`` with the reason. On Ctrl-C the rows that are ready are
    written as a shard of their own before KeyboardInterrupt goes on. ``compared`` is what ``compare`` found.
    Raises BaseError for features that are not finite,
    CacheError for features that differ from those stored, and DataError for a bad image where the data spec says to fail.
    """
    info = ShardInfo(key, spec, base.precision, base.device, backend.versions(), compared)
    writer = _Writer(stage, info)
    done = Extraction()
    start = perf_counter()
    records = [stage.manifest.by_digest[digest] for digest in wanted]
    with stage.progress.task("Extracting features", len(records)) as advance:
        try:
            for batch, seen in decoded_batches(stage.data.root, records, base.spec, done):
                if batch:
                    features = base(np.stack([image for _, image in batch]))
                    _check_finite(features, [record for record, _ in batch], base)
                    writer.add(features, [record for record, _ in batch])
                    done.extracted += len(batch)
                advance(seen)
                if done.skipped and stage.data.on_bad_image == "fail":
                    sha, reason = next(iter(done.skipped.items()))
                    raise bad_image(stage.data, stage.manifest.by_digest[sha].path, reason)
            writer.flush()
        except (KeyboardInterrupt, DataError):
            writer.flush()
            raise
        finally:
            stage.skipped.reasons |= done.skipped
            stage.skipped.save()
    done.seconds = perf_counter() - start
    return done


def compare(stage: Stage, base: FrozenBase) -> dict[str, Any]:
    """Compare with what is stored before adding to it; what shards record of it.

    A shard that turns out to be damaged is removed, and its images are missing then. Raises CacheError where features
    computed here differ from those stored, unless drift is allowed.
    """
    while True:
        if not len(stage.store):
            return {}
        try:
            found = drift.measure(stage.store, stage.manifest, stage.data.root, base)
            break
        except DamageError:
            stage.store.discard_damaged()
    if found is None:
        stage.progress.say("features: none of the images that are stored is here, so nothing can be compared")
        return {}
    if not found.acceptable:
        if not stage.allow_drift:
            drift.refuse(found, stage.store, base, backend.versions())
        stage.progress.say(f"warning: features differ from those stored by {found.largest:.2%}; added all the same")
    return found.as_json(allowed=not found.acceptable)


class _Writer:
    """Collects rows and writes a shard whenever one is full."""

    def __init__(self, stage: Stage, info: ShardInfo) -> None:
        self._stage = stage
        self._info = info
        self._features: list[NDArray[np.float32]] = []
        self._records: list[ImageRecord] = []

    def add(self, features: NDArray[np.float32], records: Sequence[ImageRecord]) -> None:
        self._features.append(features)
        self._records.extend(records)
        while len(self._records) >= self._stage.cache.shard_images:
            self._write(self._stage.cache.shard_images)

    def flush(self) -> None:
        if self._records:
            self._write(len(self._records))

    def _write(self, rows: int) -> None:
        features = np.concatenate(self._features)
        records = self._records
        # An interrupt may come between a shard's rename and the next line; what is stored is not written again.
        if records[0].sha256 not in self._stage.store:
            self._stage.store.append(
                self._as_stored(features[:rows]),
                records[:rows],
                self._stage.manifest.classes,
                self._info,
                self._stage.cache.compression,
            )
        self._features = [features[rows:]] if len(features) > rows else []
        self._records = records[rows:]

    def _as_stored(self, features: NDArray[np.float32]) -> NDArray[np.floating]:
        if self._stage.cache.dtype == "float32":
            return features
        with np.errstate(over="ignore"):
            stored = features.astype(np.float16)
        if _largest_loss(features, stored) <= FLOAT16_LOSS:  # not for infinity, nor for what underflowed
            return stored
        low, high = float(np.abs(features).min()), float(np.abs(features).max())
        self._stage.progress.say(
            f"warning: features from {low:.2g} to {high:.2g} do not fit float16 (65504): this shard is stored as float32"
        )
        return features


def _largest_loss(features: NDArray[np.float32], stored: NDArray[np.float16]) -> float:
    """The relative error of the row that rounding changes most; infinite where a value overflowed."""
    rows = features.reshape(len(features), -1).astype(np.float64)
    lost = np.linalg.norm(stored.reshape(len(stored), -1).astype(np.float64) - rows, axis=1)
    return float((lost / np.maximum(np.linalg.norm(rows, axis=1), 1e-300)).max())


def decoded_batches(
    root: Path, records: Sequence[ImageRecord], spec: BaseSpec, done: Extraction
) -> Iterator[tuple[list[tuple[ImageRecord, NDArray[np.uint8]]], int]]:
    """Decoded images in batches, with the number of records each took; bad ones go to ``done``."""
    size, batch_size = spec.input_size, spec.batch_size
    waiting: deque[tuple[ImageRecord, Future[NDArray[np.uint8]]]] = deque()
    upcoming = iter(records)
    pool = ThreadPoolExecutor(max_workers=(os.cpu_count() or 1) + 1, thread_name_prefix="decode")
    try:
        batch: list[tuple[ImageRecord, NDArray[np.uint8]]] = []
        seen = 0
        while True:
            for record in upcoming:
                waiting.append((record, pool.submit(_load, root / record.path, record.sha256, size)))
                if len(waiting) >= BATCHES_AHEAD * batch_size:
                    break
            if not waiting:
                break
            record, future = waiting.popleft()
            seen += 1
            try:
                batch.append((record, future.result()))
            except BadImageError as bad:
                done.skipped[record.sha256] = str(bad)
            except (_ChangedError, OSError):
                done.changed.append(record.path)
            if len(batch) == batch_size:
                yield batch, seen
                batch, seen = [], 0
        if seen:
            yield batch, seen
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _ChangedError(Exception):
    """The file is no longer the one that was scanned."""


def _load(path: Path, digest: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    data = path.read_bytes()
    if sha256(data).hexdigest() != digest:
        raise _ChangedError
    return decode(data, size)


def _check_finite(features: NDArray[np.float32], records: Sequence[ImageRecord], base: FrozenBase) -> None:
    finite = np.isfinite(features.reshape(len(features), -1)).all(axis=1)
    if not finite.all():
        name = records[int(np.argmin(finite))].path
        remedy = "check the weights" if base.precision == "float32" else 'set precision = "float32"'
        raise BaseError(f"{name}: expected finite features, found NaN or infinity in {base.precision}; {remedy}")
