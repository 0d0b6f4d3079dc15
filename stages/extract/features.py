"""Stage one: every image that a store lacks goes through the frozen base, once for all layers, and lands in shards."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from cache.errors import BaseError, DamageError, DataError
from cache.manifest import ImageRecord, Manifest
from cache.shard import ShardInfo
from cache.skipped import SkippedImages
from cache.store import FeatureStore
from stages.bases.frozen import FrozenBase
from stages.data.scan import bad_image
from stages.data.spec import DataSpec
from stages.data.views import View
from stages.extract import drift
from stages.extract.decoding import Rejected, decoded_batches
from stages.extract.spec import CacheSpec
from stages.extract.writing import Rows, ShardWriter
from stages.progress import SILENT, Progress


@dataclass
class Extraction:
    """What a run of stage one did."""

    extracted: int = 0
    rejected: Rejected = field(default_factory=Rejected)
    seconds: float = 0.0


@dataclass(frozen=True)
class LayerStore:
    """The store of one layer of a base, its key, and the identity that the key was made of."""

    store: FeatureStore
    key: str
    identity: dict[str, Any]


@dataclass
class Stage:
    """Everything that one extraction needs: where images are, where features of each layer go, and what to tell.

    With a ``view``, that view of each image goes through the base. ``allow_drift`` adds to a store even where features computed
    here differ from those it has.
    """

    data: DataSpec
    manifest: Manifest
    layers: Mapping[str, LayerStore]
    skipped: SkippedImages
    cache: CacheSpec
    progress: Progress = SILENT
    allow_drift: bool = False
    view: View | None = None

    def wanted(self) -> list[str]:
        """The contents (SHA-256) that one of the stores lacks, and that can be decoded as far as is known."""
        # By digest and not by path, so that a shard holds all classes: heads that are streamed see the shards one after another.
        return sorted({digest for layer in self.layers for digest in self._lacking(layer)})

    def _lacking(self, layer: str) -> set[str]:
        return set(self.layers[layer].store.missing(self.manifest.by_digest)) - self.skipped.reasons.keys()

    def least_rows(self) -> int:
        """The images whose features all layers have."""
        return min(len(each.store) for each in self.layers.values())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the locks of all stores, which are there then."""
        with ExitStack() as held:
            # Each process takes the locks in the same order, so that two of them never wait for one another.
            for each in sorted(self.layers.values(), key=lambda each: each.store.folder):
                held.enter_context(each.store.writing(self.progress.say))
                each.store.create(each.identity)
            yield

    def keep_lacking(self) -> bool:
        """Go on with the layers whose stores lack an image still, as another process may have worked on them; whether there are any."""
        self.layers = {layer: each for layer, each in self.layers.items() if self._lacking(layer)}
        return bool(self.layers)

    def check(self, rejected: Rejected) -> None:
        """Raise DataError for the first image that cannot be decoded, where the data spec says to fail."""
        if rejected.skipped and self.data.on_bad_image == "fail":
            digest, reason = next(iter(rejected.skipped.items()))
            raise bad_image(self.data, self.manifest.by_digest[digest].path, reason)


def extract(
    stage: Stage, base: FrozenBase, wanted: Sequence[str], compared: Mapping[str, dict[str, Any]]
) -> Extraction:
    """Run ``base`` over the contents ``wanted`` (SHA-256) and write the features of its layers as shards.

    Images that cannot be decoded are recorded in ``stage.skipped`` with the reason. On Ctrl-C the rows that are ready are
    written as a shard of their own before KeyboardInterrupt goes on. ``compared`` is what ``compare`` found.
    Raises BaseError for features that are not finite, and DataError for a bad image where the data spec says to fail.
    """
    computed = (base.precision, base.device, base.versions)
    targets = {
        layer: (each.store, ShardInfo(each.key, each.identity, *computed, compared.get(layer, {})))
        for layer, each in stage.layers.items()
    }
    writer = ShardWriter(targets, stage.manifest.classes, stage.cache, base.batch_size, stage.progress)
    done = Extraction()
    start = perf_counter()
    records = [stage.manifest.by_digest[digest] for digest in wanted]
    try:
        with stage.progress.task("Extracting features", len(records)) as advance:
            for batch in decoded_batches(
                stage.data.root, records, base.spec, base.batch_size, done.rejected, stage.view
            ):
                writer.make_room(len(batch.records))
                features = base(batch.images)
                check_finite(features, batch.records, base)
                writer.add(features, batch.records)
                done.extracted += len(batch.records)
                advance(batch.seen)
                stage.check(done.rejected)
            stage.check(done.rejected)  # those behind the last batch
            writer.flush()
    except (KeyboardInterrupt, BaseError, DataError):
        writer.flush()
        raise
    finally:
        writer.close()
        stage.skipped.reasons |= done.rejected.skipped
        stage.skipped.save()
    done.seconds = perf_counter() - start
    return done


def compare(stage: Stage, base: FrozenBase) -> dict[str, dict[str, Any]]:
    """Compare with what is stored before adding to it; what shards record of it, by layer.

    A shard that turns out to be damaged is removed, and its images are missing then. Raises CacheError where features
    computed here differ from those stored, unless drift is allowed.
    """
    known, root = stage.manifest.by_digest, stage.data.root
    found: dict[str, dict[str, Any]] = {}
    for layer, each in stage.layers.items():
        while layer not in found:
            try:
                told = (stage.allow_drift, stage.progress, stage.view)
                found[layer] = drift.compare(each.store, known, root, base, layer, *told)
            except DamageError:
                each.store.discard_damaged()
    return found


def check_finite(features: Rows, records: Sequence[ImageRecord], base: FrozenBase) -> None:
    """Raise BaseError for features that are not finite, with the name of the first such image."""
    for layer, rows in features.items():
        finite = np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
        if not finite.all():
            name = records[int(np.argmin(finite))].path
            remedy = "check the weights" if base.precision == "float32" else 'set precision = "float32"'
            raise BaseError(
                f"{name}: expected finite features, found NaN or infinity in {base.precision} ({layer}); {remedy}"
            )
