"""What an extraction will cost, from a timed batch or two: before an hour is paid for."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from cache.errors import DataError
from cache.manifest import ImageRecord
from cache.shard import ShardInfo, write_shard
from cache.table import ShardTable
from stages.bases.frozen import FrozenBase
from stages.data.images import BadImageError
from stages.data.views import View
from stages.extract.cost import CostSpec
from stages.extract.decoding import ChangedError, Rejected, decoded_batches, load, sampled
from stages.extract.spec import CacheSpec
from stages.extract.writing import as_stored
from stages.progress import SILENT, in_bytes

# The first batch compiles and is not timed.
BATCHES = 4
# The share of decoding from which it is worth a word.
MUCH = 0.3


@dataclass(frozen=True)
class Measured:
    """Seconds and bytes on disk for one image, all layers together; ``images`` were timed.

    ``decoding`` is the share of the time that decoding would take alone, on all cores.
    """

    seconds: float
    bytes: float
    images: int
    decoding: float


def measure(
    base: FrozenBase, records: Sequence[ImageRecord], root: Path, cache: CacheSpec, view: View | None = None
) -> Measured:
    """Decode, extract and compress a few batches of ``records``, drawn by their contents; nothing is kept.

    With a ``view``, that view of each image is extracted.
    Raises DataError where none of them can be decoded.
    """
    sample = list(sampled(records, BATCHES * base.batch_size))
    while len(sample) < 2 * base.batch_size:  # so that there is a batch after the first
        sample += sample
    rows: list[dict[str, np.ndarray]] = []
    images = 0
    start = perf_counter()
    for batch in decoded_batches(root, sample, base.spec, base.batch_size, rejected := Rejected(), view):
        features = base(batch.images)
        if rows:
            images += len(batch.records)
        else:
            start = perf_counter()
        rows.append(features)
    seconds = perf_counter() - start
    if not images:
        reason = next(iter(rejected.skipped.values()), "it went away")
        raise DataError(f"{root / sample[0].path}: {reason}; too few images can be decoded to time a batch")
    size = sum(_size(np.concatenate([each[layer] for each in rows]), cache) for layer in base.layers)
    return Measured(seconds / images, size, images, _decoding(base, sample, root, view) * images / seconds)


def _decoding(base: FrozenBase, sample: Sequence[ImageRecord], root: Path, view: View | None) -> float:
    """Seconds that decoding takes for one image, on all cores."""
    start = perf_counter()
    few = sample[: 2 * (os.cpu_count() or 1)]
    for record in few:
        with suppress(BadImageError, ChangedError, OSError):
            load(root / record.path, record.sha256, base.spec, view)
    return (perf_counter() - start) / len(few) / (os.cpu_count() or 1)


def _size(features: np.ndarray, cache: CacheSpec) -> float:
    """Bytes of a shard for each of its rows."""
    table = ShardTable.of([ImageRecord(f"{i:032x}", f"{i:064x}", "class", "") for i in range(len(features))], ["class"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.h5"
        info = ShardInfo("", {}, "", "", {})
        write_shard(path, as_stored(features, cache.dtype, SILENT), table, info, cache.compression)
        return path.stat().st_size / len(features)


def plan_lines(
    name: str, found: Measured, images: int, copies: int, folder: Path, cost: CostSpec | None = None, views: int = 0
) -> list[str]:
    """The plan of one base, in words: of so many images, and so many ``views`` of images."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    passes = images + views
    size = passes * found.bytes
    lines = [
        f"{name}: {images:,} images to extract"
        + (f", and {views:,} augmented views of training images" if views else "")
        + (f" ({copies:,} copies of others are not extracted again)" if copies else ""),
        f"{name}: about {_duration(passes * found.seconds)} at {1 / found.seconds:,.1f} images/s, "
        f"as {found.images} timed images went",
        *_money(name, passes * found.seconds, cost),
        f"{name}: about {in_bytes(size)} on disk ({in_bytes(found.bytes)} an image), {in_bytes(free)} are free"
        + ("" if size < free else ": NOT ENOUGH"),
    ]
    if found.decoding > MUCH:
        share = f"{min(found.decoding, 1):.0%}"
        lines.append(
            f'{name}: decoding takes {share} of that; decode = "scaled" in the base is quicker for large JPEG files'
        )
    return lines


def _money(name: str, seconds: float, cost: CostSpec | None) -> list[str]:
    if cost is None:
        return []
    return [f"{name}: about {cost.in_words(cost.of(seconds))}, at {cost.in_words(cost.per_hour)} an hour"]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
