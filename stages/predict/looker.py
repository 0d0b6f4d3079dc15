"""Where a trained head looks in image files."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.bases.spec import BaseSpec
from stages.data.images import BadImageError, decode
from stages.explain.drawing import EDGE, shown
from stages.explain.maps import explain
from stages.explain.occlusion import occluded
from stages.heads.calibration import cooled
from stages.heads.head import Head
from stages.heads.images_of import BaseOrImages
from stages.predict.pixels import Images
from stages.predict.predict import Source, Taken, digests_of, features_of
from stages.predict.rows import log_proba_of, seen_in

if TYPE_CHECKING:
    from stages.bases.frozen import FrozenBase


class Looked(NamedTuple):
    """What a head says of an image, and where it looked: the class, its calibrated probability, the ``map`` (height, width) from 0 to 1
    over the ``image`` (height, width, 3) as it is drawn, and by which method.
    """

    label: str
    probability: float
    image: NDArray[np.uint8]
    map: NDArray[np.float32] | None
    method: str


class Looker:
    """A trained head, asked where it looks. It ``takes`` what ``taken_by`` says, from ``sources``, of bases with these ``specs``."""

    def __init__(
        self,
        head: Head,
        takes: Sequence[Taken],
        sources: Mapping[BaseOrImages, Source],
        specs: Mapping[BaseOrImages, BaseSpec],
        temperature: float = 1.0,
    ) -> None:
        self.head, self.temperature = head, temperature
        self.classes = [str(name) for name in head.classes_]
        self._takes, self._sources, self._specs = takes, sources, specs
        self._each = {(take.base, layer): Taken(take.base, (layer,), "none") for take in takes for layer in take.layers}
        self._built: dict[BaseOrImages, FrozenBase | Images] = {}

    @property
    def spec(self) -> BaseSpec:
        """How images come to the first base that the head takes features of."""
        return next(iter(self._specs.values()))

    def look(self, path: Path, label: str | None = None, occlusion: bool = False, edge: int = 0) -> list[Looked]:
        """Where the head looked in an image file for a class, left out for the one that it predicts; with ``occlusion``, by that too, and
        by that alone where the head does not say. Raises BadImageError for a file that cannot be read, and HeadError for a head that does
        not say.
        """
        digests, unread = digests_of([path])
        found = features_of(digests, list(self._each.values()), self._sources, self._built, unread)
        if path in unread:
            raise BadImageError(unread[path])
        data = path.read_bytes()
        rows = {key: found[each][digests[path]] for key, each in self._each.items()}
        seen = seen_in(self._takes, rows, self._specs)
        logs = log_proba_of(self.head, self._takes, {key: row[None] for key, row in rows.items()})
        p = np.exp(cooled(logs, self.temperature))[0]
        k = int(p.argmax()) if label is None else self.classes.index(label)
        image = shown(data, self.spec, edge or EDGE)
        size = (image.shape[0], image.shape[1])
        looked = partial(Looked, self.classes[k], float(p[k]), image)
        try:
            maps = [looked(*explain(self.head, seen, k, size))]
        except HeadError:
            if not occlusion:
                raise
            maps = []
        if occlusion:
            maps.append(looked(self._occluded(data, k, size), "occlusion"))
        return maps

    def _occluded(self, data: bytes, k: int, size: tuple[int, int]) -> NDArray[np.float32]:
        images = {
            name: decode(data, spec.input_size, scaled=spec.decode == "scaled", how=spec.resizing)
            for name, spec in self._specs.items()
        }
        return occluded(images, self._says_of_images, k, size)

    def _says_of_images(self, images: Mapping[BaseOrImages, NDArray[np.uint8]]) -> NDArray[np.float64]:
        found: dict[tuple[BaseOrImages, str], list[NDArray[np.float32]]] = {key: [] for key in self._each}
        for name, source in self._sources.items():
            if name not in self._built:
                self._built[name] = source.make_base()
            base = self._built[name]
            for start in range(0, len(images[name]), base.batch_size):
                computed = base(images[name][start : start + base.batch_size])
                for of, layer in found:
                    if of == name:
                        found[of, layer].append(np.asarray(computed[layer], np.float32))
        return log_proba_of(self.head, self._takes, {key: np.concatenate(each) for key, each in found.items()})
