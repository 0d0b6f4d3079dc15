"""Stage one on several machines: Dask workers extract, a shard at a time, into the folder that all of them share.

The unit of work is a shard: a worker decodes its images, runs the base (which it loads once), and writes the shard under the
number that it was given. A worker that dies costs the shard it was at, which Dask gives to another; a shard that was written
but not reported is written again with the same content. This process holds the stores' locks all the while.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np

from cache.errors import DataError, HeadstartError
from cache.manifest import ImageRecord
from cache.shard import ShardInfo, ShardTable, write_shard
from stages.bases import FrozenBase
from stages.decoding import Rejected, decoded_batches
from stages.features import Extraction, Stage, check_finite
from stages.progress import SILENT
from stages.scan import bad_image
from stages.specs import BaseSpec, CacheSpec
from stages.weights import Weights
from stages.writing import as_stored

SECONDS_TO_CONNECT = 10


@dataclass(frozen=True)
class ShardJob:
    """One shard's worth of images, for every layer the path of its shard and which of the images it lacks."""

    root: Path
    records: tuple[ImageRecord, ...]
    spec: BaseSpec
    weights: Path
    paths: Mapping[str, Path]
    lacking: Mapping[str, frozenset[str]]
    infos: Mapping[str, ShardInfo]
    classes: tuple[str, ...]
    cache: CacheSpec


@dataclass(frozen=True)
class ShardDone:
    """What a worker did: images extracted, and those that gave no row."""

    extracted: int
    rejected: Rejected


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
    with client, joblib.parallel_config(backend="dask"):
        if not client.scheduler_info()["workers"]:
            raise HeadstartError(f"--on {address}: expected workers, found a scheduler without any; start some")
        yield client


def extract_on(
    address: str, stage: Stage, base: FrozenBase, wanted: Sequence[str], compared: Mapping[str, dict[str, Any]]
) -> Extraction:
    """As ``stages.features.extract``, by the workers of the Dask scheduler at ``address``."""
    import joblib

    done = Extraction()
    start = perf_counter()
    jobs = _jobs(stage, base, wanted, compared)
    with cluster(address) as client, stage.progress.task("Extracting features", len(wanted)) as advance:
        workers = len(client.scheduler_info()["workers"])
        stage.progress.say(f"features: {len(jobs)} shards to extract on {workers} workers of {address}")
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch=4 * workers)
        try:
            for found in parallel(joblib.delayed(extract_shard)(job) for job in jobs):
                done.extracted += found.extracted
                done.rejected.skipped.update(found.rejected.skipped)
                done.rejected.changed.extend(found.rejected.changed)
                advance(found.extracted + len(found.rejected.skipped) + len(found.rejected.changed))
                if done.rejected.skipped and stage.data.on_bad_image == "fail":
                    sha, reason = next(iter(done.rejected.skipped.items()))
                    raise bad_image(stage.data, stage.manifest.by_digest[sha].path, reason)
        finally:
            stage.skipped.reasons |= done.rejected.skipped
            stage.skipped.save()
            for each in stage.layers.values():
                each.store.refresh()
    done.seconds = perf_counter() - start
    return done


def _jobs(
    stage: Stage, base: FrozenBase, wanted: Sequence[str], compared: Mapping[str, dict[str, Any]]
) -> list[ShardJob]:
    size = stage.cache.shard_images
    chunks = [wanted[start : start + size] for start in range(0, len(wanted), size)]
    paths = {layer: each.store.new_shards(len(chunks)) for layer, each in stage.layers.items()}
    infos = stage.infos(base, compared)
    weights = next(iter(stage.layers.values())).store.folder.parents[1] / "weights"
    return [
        ShardJob(
            root=stage.data.root,
            records=tuple(stage.manifest.by_digest[digest] for digest in chunk),
            spec=base.spec,
            weights=weights,
            paths={layer: paths[layer][i] for layer in stage.layers},
            lacking={layer: frozenset(each.store.missing(chunk)) for layer, each in stage.layers.items()},
            infos=infos,
            classes=stage.manifest.classes,
            cache=stage.cache,
        )
        for i, chunk in enumerate(chunks)
    ]


# A worker keeps the base that it was last asked for. One shard at a time, however many threads it has: a base uses all cores.
_LOADED: dict[str, FrozenBase] = {}
_LOCK = Lock()


def extract_shard(job: ShardJob) -> ShardDone:
    """What a worker does. Raises DataError where it does not see the images, or sees others."""
    if not job.root.is_dir():
        raise DataError(
            f"{job.root}: expected the images there on every worker, found no such folder on {os.uname().nodename}"
        )
    with _LOCK:
        base = _base(job)
        rejected = Rejected()
        rows: list[dict[str, np.ndarray]] = []
        records: list[ImageRecord] = []
        start = perf_counter()
        for batch in decoded_batches(job.root, job.records, base.spec, base.batch_size, rejected):
            if batch.records:
                features = base(batch.images)
                check_finite(features, batch.records, base)
                rows.append(features)
                records += batch.records
        for layer, path in job.paths.items():
            _write(job, layer, path, base, rows, records, perf_counter() - start)
    return ShardDone(len(records), rejected)


def _write(
    job: ShardJob,
    layer: str,
    path: Path,
    base: FrozenBase,
    rows: list[dict[str, np.ndarray]],
    records: list[ImageRecord],
    seconds: float,
) -> None:
    kept = [i for i, record in enumerate(records) if record.sha256 in job.lacking[layer]]
    if not kept:
        return
    ids = {name: i for i, name in enumerate(job.classes)}
    table = ShardTable(
        sha256=[records[i].sha256 for i in kept],
        labels=[ids[records[i].label] for i in kept],
        paths=[records[i].path for i in kept],
        class_names=list(job.classes),
    )
    given = job.infos[layer]
    # The worker says what really computed, which may be other hardware than the client's.
    info = ShardInfo(given.key, given.spec, base.precision, base.device, base.versions, given.drift, round(seconds, 3))
    features = np.concatenate([each[layer] for each in rows])[kept]
    write_shard(path, as_stored(features, job.cache.dtype, SILENT), table, info, job.cache.compression)


def _base(job: ShardJob) -> FrozenBase:
    name = f"{job.spec.model_dump_json()} {sorted(job.paths)} {job.weights}"
    if name not in _LOADED:
        _LOADED.clear()
        _LOADED[name] = FrozenBase(job.spec, Weights(job.spec, job.weights), tuple(job.paths))
    return _LOADED[name]
