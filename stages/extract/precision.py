"""What ``precision = "auto"`` comes to: the fast precision of the hardware, where this base's features bear it.

Rounding every activation to the 8 bits of bfloat16 costs VGG16 and ResNet50 less than a hundredth; in bases of many thin
layers it adds up to several. Which of them yours is, is measured on a few of its own images before its store is begun.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.errors import DataError
from cache.manifest import ImageRecord, Manifest
from cache.store import FeatureStore
from stages.bases import backend
from stages.bases.frozen import FrozenBase
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.extract.decoding import Rejected, decoded_batches, sample
from stages.progress import Progress

# Of the features of a sample, in the Frobenius norm: ‖reduced − float32‖ / ‖float32‖.
LARGEST_ERROR = 1e-2
IMAGES = 16


def stored_precision(spec: BaseSpec, stores: Iterable[FeatureStore]) -> str:
    """The precision to compute in beside what is stored: for ``auto``, that of the stored rows where this machine has it."""
    return _begun_in(spec, stores) or backend.precision_for(spec.precision, spec.computed_by)


def _begun_in(spec: BaseSpec, stores: Iterable[FeatureStore]) -> str | None:
    """For ``auto``, the precision of the rows that there are; None where nothing is stored that says.

    With rows of both kinds, float32: what is computed more exactly than some of them agrees with all.
    """
    used = {info.precision for store in stores if len(store) for info in store.info()}
    if spec.precision != "auto":
        return None
    if "float32" in used:
        return "float32"
    fast = backend.precision_for("auto", spec.computed_by)
    return fast if fast in used else None


def suitable_base(
    spec: BaseSpec,
    weights: Weights,
    layers: Sequence[str],
    stores: Iterable[FeatureStore],
    records: Sequence[ImageRecord],
    root: Path,
    progress: Progress,
) -> FrozenBase:
    """The base in the precision that suits it, which for ``auto`` is measured on a few of ``records``.

    A store that was begun goes on in the precision of its rows. ``stores`` are those of ``layers``. Raises BaseError as
    FrozenBase does.
    """
    begun = _begun_in(spec, stores)
    base = FrozenBase(spec, weights, layers, begun)
    if spec.precision != "auto" or base.precision == "float32" or begun:
        return base
    few = sample(root, records, spec, min(IMAGES, base.batch_size))
    if few is None:
        return base
    exact = FrozenBase(spec, weights, layers, "float32")
    error = relative_error(base(few.images), exact(few.images))
    if error <= LARGEST_ERROR:
        return base
    progress.say(
        f"base: {spec.name} in {base.precision} is {error:.2%} away from float32 on {len(few.images)} of these images, more than "
        f'{LARGEST_ERROR:.0%}, so it computes in float32; precision = "{base.precision}" would insist'
    )
    return exact


def relative_error(found: dict[str, NDArray[np.float32]], expected: dict[str, NDArray[np.float32]]) -> float:
    """‖found − expected‖ / ‖expected‖ in the Frobenius norm, the largest of all layers."""
    errors = [
        float(np.linalg.norm(found[layer] - rows) / max(float(np.linalg.norm(rows)), 1e-12))
        for layer, rows in expected.items()
    ]
    # Where a value is not finite, the error is not a number, which is no maximum either.
    return max(error if np.isfinite(error) else float("inf") for error in errors)


def calibration_images(manifest: Manifest, root: Path, spec: BaseSpec) -> Iterator[NDArray[np.uint8]]:
    """Training images (1, height, width, 3) uint8, as many as the spec says, drawn by their content.

    Raises DataError where none of them can be decoded.
    """
    # Digests are as good as random, so their order draws a sample, and the same one on every machine.
    digests = sorted(digest for digest, record in manifest.by_digest.items() if record.split == "train")
    records = [manifest.by_digest[digest] for digest in digests[: spec.calibration_images]]
    images = [batch.images for batch in decoded_batches(root, records, spec, 1, Rejected())]
    if not images:
        raise DataError(f"{root}: expected training images to calibrate int8 on, found none that can be decoded")
    yield from images
