"""A trained head put to use on image files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache.errors import DataError
from cache.files import sha256_file
from cache.manifest import ImageRecord
from cache.store import FeatureStore
from stages.data.views import View
from stages.data.walk import EXTENSIONS, walk
from stages.heads.calibration import cooled
from stages.heads.head import Head
from stages.heads.pooling import pool_layers
from stages.progress import Progress
from stages.training.spec import Pool

if TYPE_CHECKING:
    from stages.bases.frozen import FrozenBase

# Images whose features are held at a time.
CHUNK = 1024


@dataclass(frozen=True)
class Prediction:
    """One image file: its classes' names and probabilities, or the reason why it could not be read.

    One that is not ``sure`` has a probability below that from which on the head is to answer.
    """

    path: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    reason: str | None = None
    sure: bool = True

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(np.argmax(self.probabilities))]


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files named and the images in the folders named, in order. Raises DataError for a path that is not there."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            walked = walk(path)
            inside = sorted([*walked.files, *walked.skipped])
            if not inside:
                raise DataError(f"{path}: expected images ({' '.join(sorted(EXTENSIONS))}), found none in this folder")
            found += [path / name for name in inside]
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: expected an image or a folder of images, found nothing; check the path")
    return found


def predict_images(
    files: Sequence[Path],
    head: Head,
    stores: Mapping[str, FeatureStore],
    make_base: Callable[[], "FrozenBase"],
    progress: Progress,
    temperature: float = 1.0,
    threshold: float = 0.0,
    views: Sequence[View | None] = (None,),
) -> list[Prediction]:
    """Predictions in the order of ``files``. Features that the stores have are read, the rest are extracted and not kept.

    Probabilities are means over ``views``, of which None is the image itself. They are calibrated by ``temperature``, which leaves the
    labels of single views as they are. Below ``threshold`` a prediction is not sure.
    ``stores`` are those of the layers that the head was trained on, in its order.
    """
    base: FrozenBase | None = None
    classes = tuple(str(name) for name in head.classes_)
    out: list[Prediction] = []
    remaining = iter(files)
    with progress.task("Predicting", len(files)) as advance:
        while chunk := list(islice(remaining, CHUNK)):
            digests, reasons = _digests(chunk)
            by_view = []
            for view in views:
                features: dict[str, NDArray[np.float32]] = {}  # by digest
                cached = [digest for digest in digests.values() if all(digest in each for each in stores.values())]
                if cached and view is None:
                    rows = [store.read(cached) for store in stores.values()]
                    features |= zip(cached, pool_layers(rows, head.spec.pool), strict=True)
                if new := {path: digest for path, digest in digests.items() if digest not in features}:
                    base = base or make_base()
                    features |= _extract(new, base, head.spec.pool, reasons, view)
                readable = {path: features[digests[path]] for path in chunk if path not in reasons}
                by_view.append(_probabilities(readable, head, temperature))
            for path in chunk:
                each = [found[path] for found in by_view if path in found]
                p = tuple(map(float, np.mean(each, axis=0))) if path not in reasons else ()
                out.append(Prediction(path, classes, p, reasons.get(path), max(p, default=0.0) >= threshold))
            advance(len(chunk))
    return out


def _digests(files: Sequence[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
    digests, reasons = {}, {}
    for path in files:
        if not path.is_file():  # a broken link, or a pipe that would never end
            reasons[path] = "not a regular file" if path.exists() else "a link to a file that does not exist"
            continue
        try:
            digests[path] = sha256_file(path)
        except OSError as error:
            reasons[path] = f"cannot be read: {error.strerror}"
    return digests, reasons


def _extract(
    digests: dict[Path, str], base: "FrozenBase", pool: Pool, reasons: dict[Path, str], view: View | None
) -> dict[str, NDArray[np.float32]]:
    from stages.extract.decoding import Rejected, decoded_batches

    records = [ImageRecord(str(path.absolute()), digest, "", "") for path, digest in digests.items()]
    rejected = Rejected()
    found: dict[str, NDArray[np.float32]] = {}
    for batch in decoded_batches(Path("/"), records, base.spec, base.batch_size, rejected, view):
        rows = pool_layers(list(base(batch.images).values()), pool)
        found |= zip([record.sha256 for record in batch.records], rows, strict=True)
    for path, digest in digests.items():
        if digest not in found:
            reasons[path] = rejected.skipped.get(digest, "changed while it was read")
    return found


def _probabilities(
    features: dict[Path, NDArray[np.float32]], head: Head, temperature: float
) -> dict[Path, tuple[float, ...]]:
    if not features:
        return {}
    logs = head.predict_log_proba(np.stack(list(features.values())))
    rows = np.exp(cooled(logs, temperature))
    return {path: tuple(map(float, row)) for path, row in zip(features, rows, strict=True)}
