"""Image files → decoded batches, by threads that run ahead of the base by a bounded number of images."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.manifest import ImageRecord
from stages.bases.spec import BaseSpec
from stages.data.images import BadImageError, decode
from stages.data.views import View
from stages.data.warp import viewed

# Batches that are decoded ahead of the base: enough that it never waits, few enough that memory stays bounded.
BATCHES_AHEAD = 4


class ChangedError(Exception):
    """The file is no longer the one that was scanned."""


@dataclass
class Rejected:
    """Images that gave no row: reasons by content (SHA-256) for those that cannot be decoded, names of those that changed."""

    skipped: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    """Decoded ``images`` (n, height, width, 3) uint8 of ``records``, and how many records were ``seen`` for them."""

    records: list[ImageRecord]
    images: NDArray[np.uint8]
    seen: int


def decoded_batches(
    root: Path,
    records: Sequence[ImageRecord],
    spec: BaseSpec,
    batch_size: int,
    rejected: Rejected,
    view: View | Callable[[ImageRecord], View | None] | None = None,
) -> Iterator[Batch]:
    """Batches of ``batch_size`` images in the order of ``records``, the last one smaller; bad ones go to ``rejected``.

    With a ``view``, that view of each image, or the one that it gives for its record.
    """
    waiting: deque[tuple[ImageRecord, Future[NDArray[np.uint8]]]] = deque()
    upcoming = iter(records)
    # Pillow releases the GIL while it decodes and resizes, so threads serve, and share their images with the base for free.
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="decode", initializer=step_back)
    try:
        ready: list[ImageRecord] = []
        images: list[NDArray[np.uint8]] = []
        seen = 0
        while True:
            for record in islice(upcoming, BATCHES_AHEAD * batch_size - len(waiting)):
                of = view(record) if callable(view) else view
                waiting.append((record, pool.submit(load, root / record.path, record.sha256, spec, of)))
            if not waiting:
                break
            record, future = waiting.popleft()
            seen += 1
            try:
                images.append(future.result())
                ready.append(record)
            except BadImageError as bad:
                rejected.skipped[record.sha256] = str(bad)
            except (ChangedError, OSError):
                rejected.changed.append(record.path)
            if len(ready) == batch_size:
                yield Batch(ready, np.stack(images), seen)
                ready, images, seen = [], [], 0
        if ready:
            yield Batch(ready, np.stack(images), seen)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def sample(
    root: Path, records: Sequence[ImageRecord], spec: BaseSpec, most: int, view: View | None = None
) -> Batch | None:
    """A few images, drawn by their contents; None where none of those looked at can be decoded. With a ``view``, that of each."""
    # Twice as many are looked at as are wanted, as some may not be readable here.
    return next(decoded_batches(root, sampled(records, 2 * most), spec, most, Rejected(), view), None)


def sampled(records: Sequence[ImageRecord], most: int) -> Sequence[ImageRecord]:
    """At most so many of the records, by their contents' digests, which are as good as random: the same ones everywhere."""
    return sorted(records, key=lambda record: record.sha256)[:most]


def step_back() -> None:
    """Let the base have the processor: this thread works where that one waits.

    A base on a CPU splits each operation over all cores and waits for the last of them, so that a core which is taken
    from it for a millisecond is a millisecond lost on every core. Linux has priorities for each thread.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def load(path: Path, digest: str, spec: BaseSpec, view: View | None = None) -> NDArray[np.uint8]:
    """One image (height, width, 3) as the spec wants it, or a ``view`` of it. Raises ChangedError, BadImageError or OSError."""
    data = path.read_bytes()
    if sha256(data).hexdigest() != digest:
        raise ChangedError
    at = partial(decode, data, scaled=spec.decode == "scaled", how=spec.resizing)
    return viewed(at, spec.input_size, view, digest) if view else at(spec.input_size)
