"""Batches for models that are trained by themselves: of activations in the cache, or of image files that are decoded meanwhile."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from cache.manifest import ImageRecord
from stages.bases.backend import load_keras
from stages.bases.spec import BaseSpec
from stages.data.views import View
from stages.extract.decoding import Rejected, decoded_batches
from stages.heads.epochs import Batch
from stages.heads.keras_fit import mixed
from stages.heads.tuned_spec import ScheduledSpec
from stages.training.member import class_weights
from stages.training.source import Source
from stages.training.stack import NOTHING, Draw

# Images or activations that are scored at once, at least.
SCORED = 32


class _Targets:
    """What rows are to be taken for: one probability for two classes, else one for each class; with weights by class where asked for."""

    def __init__(self, spec: ScheduledSpec, y: NDArray[np.int64], train: NDArray[np.int64], n_classes: int) -> None:
        self.spec, self.y, self.single = spec, y, n_classes == 2
        self.weights = class_weights(spec, y[train], n_classes)

    def plain(self, X: Any, rows: NDArray[np.int64]) -> Batch:
        """Rows to score, or to train on as they are."""
        y = np.eye(len(self.weights), dtype=np.float32)[self.y[rows]]
        return Batch(X, y[:, 1:] if self.single else y)

    def trained(
        self, X: Any, rows: NDArray[np.int64], pairs: tuple[NDArray[np.int64], NDArray[np.float32]] | None
    ) -> Batch:
        """Rows to train on; ``pairs`` are the places of each row's partner in the batch, and the shares that remain of the rows."""
        if pairs is None:
            batch = self.plain(X, rows)
            return batch._replace(weight=self.weights[self.y[rows]]) if self.spec.class_weight else batch
        (partners, shares), ops = pairs, load_keras().ops
        X = ops.cast(ops.convert_to_tensor(X), "float32")
        others = ops.take(X, partners.astype(np.int32), axis=0)
        hot = np.diag(self.weights)[self.y[rows]]
        return Batch(*mixed(X, others, hot, hot[partners], shares, self.single))


def _mixing(
    draw: Draw, rows: int, size: int, alpha: float
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]] | None]:
    """For each batch of ``size`` of so many rows, in their order: the places of partners in it and the shares; None without mixup."""
    steps = -(-rows // size)
    if not alpha:
        return [None] * steps
    slots = np.full(steps * size, NOTHING, np.int32)
    slots[:rows] = np.arange(rows)
    partners, shares = draw.mixup(slots.reshape(steps, size), alpha)
    found: list[Any] = []
    for i in range(steps):
        here = min(size, rows - i * size)
        found.append((partners[i, :here].astype(np.int64) - i * size, shares[i, :here]))
    return found


class FeatureBatches:
    """Batches of activations of ``shape`` that a source has, in memory or streamed, shuffled as those of a dense head with this seed."""

    images_read = 0

    def __init__(
        self,
        source: Source,
        shape: tuple[int, ...],
        spec: ScheduledSpec,
        train: NDArray[np.int64],
        validation: NDArray[np.int64],
        n_classes: int,
    ) -> None:
        self.rows = len(train)
        self._source, self._shape, self._spec = source, shape, spec
        self._train, self._validation = train, validation
        self._targets = _Targets(spec, source.y, train, n_classes)

    def training(self, epoch: int) -> Iterator[Batch]:
        size = self._spec.batch_size
        for block in self._source.blocks(self._train, epoch):
            rows = len(block.positions)
            draw = Draw(self._spec.seed, epoch, block.number)
            orders = draw.order(np.arange(rows, dtype=np.int32), size, -(-rows // size))
            places = orders if block.views is None else draw.views(orders, block.views)
            for order, place, pairs in zip(orders, places, _mixing(draw, rows, size, self._spec.mixup), strict=True):
                here = order[order != NOTHING]
                X = self._shaped(load_keras().ops.take(block.X, place[: len(here)], axis=0))
                yield self._targets.trained(X, block.positions[here], pairs)

    def validation(self) -> Iterator[Batch]:
        size = max(SCORED, self._spec.batch_size)
        for block in self._source.blocks(self._validation, None):
            for i in range(0, len(block.positions), size):
                rows = block.positions[i : i + size]
                yield self._targets.plain(self._shaped(block.X[i : i + len(rows)]), rows)

    def _shaped(self, rows: Any) -> Any:
        ops = load_keras().ops
        return ops.reshape(ops.cast(rows, "float32"), (-1, *self._shape))


class ImageBatches:
    """Batches of image files (n, height, width, 3) uint8, decoded by threads ahead of the model, in the order of their epoch.

    With ``view``, an epoch (from 0) sees the view of each training image that it gives. ``records`` are all images, ``y`` (n,) their
    labels. Raises HeadError for an image that cannot be decoded, or is another than was scanned.
    """

    def __init__(
        self,
        root: Path,
        records: Sequence[ImageRecord],
        y: NDArray[np.int64],
        images: BaseSpec,
        spec: ScheduledSpec,
        train: NDArray[np.int64],
        validation: NDArray[np.int64],
        n_classes: int,
        view: Callable[[int], View] | None = None,
    ) -> None:
        self.rows, self.images_read = len(train), 0
        self._root, self._records, self._images, self._spec, self._view = root, records, images, spec, view
        self._train, self._validation = train, validation
        self._targets = _Targets(spec, y, train, n_classes)

    def training(self, epoch: int) -> Iterator[Batch]:
        size, draw = self._spec.batch_size, Draw(self._spec.seed, epoch, 0)
        order = draw.order(np.arange(self.rows, dtype=np.int32), size, -(-self.rows // size)).ravel()[: self.rows]
        view = self._view(epoch) if self._view else None
        decoded = self.decoded(self._train[order], size, view)
        for (rows, images), pairs in zip(decoded, _mixing(draw, self.rows, size, self._spec.mixup), strict=True):
            yield self._targets.trained(images, rows, pairs)

    def validation(self) -> Iterator[Batch]:
        for rows, images in self.decoded(self._validation, max(SCORED, self._spec.batch_size)):
            yield self._targets.plain(images, rows)

    def decoded(
        self, rows: NDArray[np.int64], size: int, view: View | None = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
        """Images of some rows, ``size`` at a time, with these rows."""
        records = [self._records[int(row)] for row in rows]
        at, rejected = 0, Rejected()

        def of(record: ImageRecord) -> View | None:
            """Training images alone have views, also where a refit takes those of validation."""
            return view if record.split == "train" else None

        for batch in decoded_batches(self._root, records, self._images, size, rejected, of):
            self._check(rejected)
            yield rows[at : at + len(batch.records)], batch.images
            at += len(batch.records)
            self.images_read += len(batch.records)
        self._check(rejected)

    def _check(self, rejected: Rejected) -> None:
        if rejected.changed:
            raise HeadError(
                f"{rejected.changed[0]}: expected the image that was scanned, found another or none; run again"
            )
        for digest, reason in rejected.skipped.items():
            path = next(each.path for each in self._records if each.sha256 == digest)
            raise HeadError(f"{path}: {reason}; run `make features`, which lists and skips it, and then `make heads`")
