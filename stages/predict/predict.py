"""A trained head put to use on image files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import DataError
from cache.files import sha256_file
from cache.manifest import ImageRecord
from cache.store import FeatureStore
from stages.data.views import View
from stages.data.walk import EXTENSIONS, walk
from stages.heads.calibration import cooled
from stages.heads.ensemble import EnsembleHead
from stages.heads.head import Head
from stages.heads.images_of import BaseOrImages, ImagesOf
from stages.heads.pooling import pool_layers
from stages.heads.tuned_spec import ON_IMAGES
from stages.predict.pixels import PIXELS, Images
from stages.progress import Progress
from stages.training.spec import Pool

if TYPE_CHECKING:
    from stages.bases.frozen import FrozenBase

# Images whose features are held at a time.
CHUNK = 1024


@dataclass(frozen=True)
class Source:
    """A base of whose features a head takes some: its ``stores`` by layer, and what builds it for these layers."""

    stores: Mapping[str, FeatureStore]
    make_base: Callable[[], "FrozenBase | Images"]


class Taken(NamedTuple):
    """What a head takes of an image: the features of some layers of a base, pooled and side by side; or the image itself."""

    base: BaseOrImages
    layers: tuple[str, ...]
    pool: Pool


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


def taken_by(head: Head, base: str, layers: Sequence[str]) -> list[Taken]:
    """What a head takes that was trained on these layers of a base; what each of its heads takes, where it is an ensemble."""
    if isinstance(head, EnsembleHead):
        return [_taken(each, told["base"], told["layers"]) for told, each in head.voters]
    return [_taken(head, base, layers)]


def _taken(head: Head, base: str, layers: Sequence[str]) -> Taken:
    if isinstance(head.spec, ON_IMAGES):
        return Taken(ImagesOf.taken(head.spec, base), (PIXELS,), "none")
    return Taken(base, tuple(layers), head.spec.pool)


def predict_images(
    files: Sequence[Path],
    head: Head,
    takes: Sequence[Taken],
    sources: Mapping[BaseOrImages, Source],
    progress: Progress,
    temperature: float = 1.0,
    threshold: float = 0.0,
    views: Sequence[View | None] = (None,),
) -> list[Prediction]:
    """Predictions in the order of ``files``. Features that the stores have are read, the rest are extracted and not kept.

    Probabilities are means over ``views``, of which None is the image itself. They are calibrated by ``temperature``, which leaves the
    labels of single views as they are. Below ``threshold`` a prediction is not sure.
    The head ``takes`` what ``taken_by`` says, from ``sources``, by the name of their base. Each base computes once what all take of it.
    """
    built: dict[BaseOrImages, FrozenBase | Images] = {}
    classes = tuple(str(name) for name in head.classes_)
    out: list[Prediction] = []
    remaining = iter(files)
    with progress.task("Predicting", len(files)) as advance:
        while chunk := list(islice(remaining, CHUNK)):
            digests, reasons = digests_of(chunk)
            by_view = []
            for view in views:
                features = features_of(digests, takes, sources, built, reasons, view)
                readable = [path for path in chunk if path not in reasons]
                taken = [[features[each][digests[path]] for path in readable] for each in takes]
                by_view.append(_probabilities(readable, taken, head, temperature))
            for path in chunk:
                each = [found[path] for found in by_view if path in found]
                p = tuple(map(float, np.mean(each, axis=0))) if path not in reasons else ()
                out.append(Prediction(path, classes, p, reasons.get(path), max(p, default=0.0) >= threshold))
            advance(len(chunk))
    return out


def features_of(
    digests: Mapping[Path, str],
    takes: Sequence[Taken],
    sources: Mapping[BaseOrImages, Source],
    built: "dict[BaseOrImages, FrozenBase | Images]",
    reasons: dict[Path, str],
    view: View | None = None,
) -> dict[Taken, dict[str, NDArray[np.float32]]]:
    """What is ``taken`` of image files, by the SHA-256 of their contents: read where the stores have it, else computed and not kept.

    A base that has to be built stays in ``built``, for the next files; why a file gives nothing goes to ``reasons``.
    """
    features: dict[Taken, dict[str, NDArray[np.float32]]] = {each: {} for each in takes}
    for name, source in sources.items():
        of_base = [each for each in features if each.base == name]
        stores = source.stores.values()
        cached = [digest for digest in digests.values() if all(digest in each for each in stores)]
        if cached and stores and view is None:
            rows = {layer: store.read(cached) for layer, store in source.stores.items()}
            _keep(features, of_base, cached, rows)
        known = features[of_base[0]]
        if new := {path: digest for path, digest in digests.items() if digest not in known}:
            if name not in built:
                built[name] = source.make_base()
            _extract(new, built[name], features, of_base, reasons, view)
    return features


def digests_of(files: Sequence[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
    """The SHA-256 of each file, and for those that cannot be read the reason."""
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


def _keep(
    features: Mapping[Taken, dict[str, NDArray[np.float32]]],
    of_base: Sequence[Taken],
    digests: Sequence[str],
    rows: Mapping[str, NDArray[Any]],
) -> None:
    """Pool the features of some images, by layer, for all that take them."""
    for each in of_base:
        pooled = pool_layers([rows[layer] for layer in each.layers], each.pool)
        features[each] |= zip(digests, pooled, strict=True)


def _extract(
    digests: dict[Path, str],
    base: "FrozenBase | Images",
    features: Mapping[Taken, dict[str, NDArray[np.float32]]],
    of_base: Sequence[Taken],
    reasons: dict[Path, str],
    view: View | None,
) -> None:
    from stages.extract.decoding import Rejected, decoded_batches

    records = [ImageRecord(str(path.absolute()), digest, "", "") for path, digest in digests.items()]
    rejected = Rejected()
    for batch in decoded_batches(Path("/"), records, base.spec, base.batch_size, rejected, view):
        _keep(features, of_base, [record.sha256 for record in batch.records], base(batch.images))
    found = features[of_base[0]]
    for path, digest in digests.items():
        if digest not in found:
            reasons[path] = rejected.skipped.get(digest, "changed while it was read")


def _probabilities(
    files: Sequence[Path], taken: Sequence[Sequence[NDArray[np.float32]]], head: Head, temperature: float
) -> dict[Path, tuple[float, ...]]:
    if not files:
        return {}
    X = [np.stack(rows) for rows in taken]
    logs = head.combined(X) if isinstance(head, EnsembleHead) else head.predict_log_proba(X[0])
    return {path: tuple(map(float, row)) for path, row in zip(files, np.exp(cooled(logs, temperature)), strict=True)}
