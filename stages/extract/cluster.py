"""Stage one on several machines: Dask workers extract, a shard at a time, into the folder that all of them share.

The unit of work is a shard: a worker decodes its images, runs the base (which it loads once), and writes the shard under the
number that it was given. A worker that dies costs the shard it was at, which Dask gives to another; a shard that was written
but not reported is written again with the same content. This process holds the stores' locks all
the while; what a worker still computes for a run that is over is not written.
"""

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL, getLogger
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np

from cache.errors import DataError, HeadstartError
from cache.files import TEMPORARY_PREFIX
from cache.manifest import ImageRecord
from cache.shard import ShardInfo, write_shard
from cache.store import FeatureStore
from cache.table import ShardTable
from stages.bases.frozen import FrozenBase
from stages.bases.quantise import base_digest
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.data.views import View
from stages.extract import drift, precision
from stages.extract.decoding import Rejected, decoded_batches
from stages.extract.features import Extraction, Stage, check_finite
from stages.extract.spec import CacheSpec
from stages.extract.writing import Rows, as_stored
from stages.progress import SILENT, counted

SECONDS_TO_CONNECT = 10


@dataclass(frozen=True)
class LayerShard:
    """A shard that is to be written: its path, which of the images its store lacks, and the key and identity of its features."""

    path: Path
    lacking: frozenset[str]
    key: str
    identity: dict[str, Any]


@dataclass(frozen=True)
class ShardJob:
    """One shard's worth of images, and what a worker has to know to extract them and to write a shard for every layer."""

    root: Path
    records: tuple[ImageRecord, ...]
    spec: BaseSpec
    weights: Path
    layers: Mapping[str, LayerShard]
    classes: tuple[str, ...]
    cache: CacheSpec
    allow_drift: bool
    # The file without which a worker writes nothing: gone when the run is over, however it ended.
    lease: Path
    # Where the precision is to be measured: the same images for every worker, so that like machines decide alike.
    sample: tuple[ImageRecord, ...]
    view: View | None


@contextmanager
def cluster(address: str) -> Iterator[Any]:
    """Connect to a Dask scheduler; within, joblib runs there. Raises HeadstartError where there is none."""
    try:
        import joblib
        from dask.distributed import Client
    except ImportError as error:
        raise HeadstartError(
            f"--on {address}: expected the package distributed, found none ({error}); install headstart[cluster]"
        ) from error
    try:
        client = Client(address, timeout=SECONDS_TO_CONNECT)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise HeadstartError(
            f"--on {address}: expected a Dask scheduler, found none ({reason}); start one there"
        ) from error
    # Where Ctrl-C comes while a call has not begun, Distributed fails in a callback (its `sync` cancels what is not there yet), and
    # Tornado would log that with a traceback.
    getLogger("tornado.application").setLevel(CRITICAL)
    with client, joblib.parallel_config(backend="dask"):
        if not client.scheduler_info()["workers"]:
            raise HeadstartError(f"--on {address}: expected workers, found a scheduler without any; start some")
        yield client


def extract_on(address: str, stage: Stage, spec: BaseSpec, wanted: Sequence[str]) -> Extraction:
    """As ``stages.extract.features.extract``, by the workers of the Dask scheduler at ``address``.

    Through Dask itself and not through joblib, whose backend works here where the cluster has a single worker, and
    waits for ever for a task that was given up.
    """
    from dask.distributed import KilledWorker, as_completed

    done = Extraction()
    said: set[str] = set()  # each worker says what it found, and like ones find the same
    start = perf_counter()
    jobs = _jobs(stage, spec, wanted)
    lease = jobs[0].lease
    with cluster(address) as client, stage.progress.task("Extracting features", len(wanted)) as advance:
        workers = len(client.scheduler_info()["workers"])
        stage.progress.say(
            f"features: {counted(len(jobs), 'shard')} to extract on {counted(workers, 'worker')} of {address}"
        )
        futures: list[Any] = []
        try:
            lease.touch()
            # Not pure: a shard that is asked for again is to be written again.
            futures = client.map(extract_shard, jobs, pure=False)
            for future in as_completed(futures):
                extracted, rejected, lines = future.result()
                done.extracted += extracted
                done.rejected.skipped.update(rejected.skipped)
                done.rejected.changed.extend(rejected.changed)
                for line in lines:
                    if line not in said:
                        said.add(line)
                        stage.progress.say(line)
                advance(extracted + len(rejected.skipped) + len(rejected.changed))
                stage.check(done.rejected)
        except KilledWorker as error:
            raise HeadstartError(
                f"--on {address}: a shard was given up, as each worker that had it died ({error})"
            ) from None
        except ImportError as error:
            raise HeadstartError(f"--on {address}: the workers need headstart and its extras, found {error}") from None
        finally:
            lease.unlink(missing_ok=True)
            client.cancel(futures)
            stage.skipped.reasons |= done.rejected.skipped
            stage.skipped.save()
            for each in stage.layers.values():
                each.store.refresh()
    done.seconds = perf_counter() - start
    return done


def _jobs(stage: Stage, spec: BaseSpec, wanted: Sequence[str]) -> list[ShardJob]:
    size = stage.cache.shard_images
    chunks = [wanted[start : start + size] for start in range(0, len(wanted), size)]
    paths = {layer: each.store.new_shards(len(chunks)) for layer, each in stage.layers.items()}
    folder = next(iter(stage.layers.values())).store.folder
    sample = tuple(stage.manifest.by_digest[digest] for digest in wanted[: 2 * precision.IMAGES])
    # Named as temporary files are, so that the next writer of the store removes that of a killed run.
    lease = folder / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-lease"
    return [
        ShardJob(
            root=stage.data.root,
            records=tuple(stage.manifest.by_digest[digest] for digest in chunk),
            spec=spec,
            weights=folder.parents[1] / "weights",
            layers={
                layer: LayerShard(paths[layer][i], frozenset(each.store.missing(chunk)), each.key, each.identity)
                for layer, each in stage.layers.items()
            },
            classes=stage.manifest.classes,
            cache=stage.cache,
            allow_drift=stage.allow_drift,
            lease=lease,
            sample=sample,
            view=stage.view,
        )
        for i, chunk in enumerate(chunks)
    ]


# A worker keeps the base that it was last asked for, and how far its features are from those stored, by layer.
_LOADED: dict[str, tuple[FrozenBase, dict[str, dict[str, Any]]]] = {}
# One shard at a time, however many threads a worker has: a base uses all cores.
_LOCK = Lock()


class _Lines:
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    task = SILENT.task
    show = SILENT.show


def extract_shard(job: ShardJob) -> tuple[int, Rejected, list[str]]:
    """What a worker does; returns the images extracted, those that gave no row, and lines for the person who waits.

    Raises DataError where the worker does not see the images or the weights, CacheError for drift.
    """
    if not job.root.is_dir():
        raise DataError(
            f"{job.root}: expected the images there on every worker, found no such folder on {os.uname().nodename}"
        )
    with _LOCK:
        rejected, said = Rejected(), _Lines()
        base, compared = _load(job, said)
        rows: list[Rows] = []
        records: list[ImageRecord] = []
        start = perf_counter()
        for batch in decoded_batches(job.root, job.records, base.spec, base.batch_size, rejected, job.view):
            features = base(batch.images)
            check_finite(features, batch.records, base)
            rows.append(features)
            records += batch.records
        seconds = round(perf_counter() - start, 3)
        if not job.lease.exists():
            raise HeadstartError(f"{job.lease.parent}: the run that asked for this shard is over; nothing is written")
        for layer, shard in job.layers.items():
            kept = [i for i, record in enumerate(records) if record.sha256 in shard.lacking]
            if not kept:
                continue
            stored = as_stored(np.concatenate([each[layer] for each in rows])[kept], job.cache.dtype, said)
            table = ShardTable.of([records[i] for i in kept], job.classes)
            # What really computed: the worker's hardware may be another than the client's.
            computed = (base.precision, base.device, base.versions)
            info = ShardInfo(shard.key, shard.identity, *computed, compared[layer], seconds)
            write_shard(shard.path, stored, table, info, job.cache.compression)
    return len(records), rejected, said.lines


def _load(job: ShardJob, said: _Lines) -> tuple[FrozenBase, dict[str, dict[str, Any]]]:
    """The base, loaded unless it is the last one that was, and compared with what is stored."""
    name = f"{job.spec.model_dump_json()} {[shard.key for shard in job.layers.values()]} {job.weights}"
    if name not in _LOADED:
        _LOADED.clear()
        weights = Weights(job.spec, job.weights)
        expected = next(iter(job.layers.values())).identity["weights"]
        if (found := base_digest(job.spec, weights)) != expected:
            raise DataError(
                f"weights of {job.spec.name}: expected {expected[:12]} on every worker, "
                f"found {str(found)[:12]} on {os.uname().nodename}; copy the file there"
            )
        stores = {layer: FeatureStore(shard.path.parent) for layer, shard in job.layers.items()}
        base = precision.suitable_base(job.spec, weights, tuple(stores), stores.values(), job.sample, job.root, said)
        compared: dict[str, dict[str, Any]] = {}
        for layer, store in stores.items():
            known = {digest: ImageRecord(path, digest, "", "") for digest, path in store.paths().items()}
            told = (job.allow_drift, SILENT, job.view)
            compared[layer] = drift.compare(store, known, job.root, base, layer, *told)
        _LOADED[name] = base, compared
    return _LOADED[name]
