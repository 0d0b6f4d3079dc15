"""``headstart explain``: what a head looked at in image files, as a picture."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cache.errors import ConfigError, DataError, HeadError
from cache.files import atomic_path, digest_text
from pipeline.commands.heads import trained_head
from pipeline.commands.predict import source_of, spec_of
from pipeline.common.words import score_words
from pipeline.config.load import Config
from pipeline.config.tables import no_such
from pipeline.targets.graph import Graph, load_graph
from pipeline.targets.heads import HeadTarget
from stages.progress import Progress, counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.bases.frozen import FrozenBase
    from stages.bases.spec import BaseSpec
    from stages.explain.drawing import Cell
    from stages.heads.images_of import BaseOrImages
    from stages.predict.pixels import Images

# On one contact sheet.
MOST = 100


class Looked(NamedTuple):
    """What a head says of an image, and where it looked: the class, its calibrated probability, the ``map`` (height, width) from 0 to 1
    over the ``image`` (height, width, 3) as it is drawn, and by which method.
    """

    label: str
    probability: float
    image: "NDArray[np.uint8]"
    map: "NDArray[np.float32] | None"
    method: str


class Looker:
    """A trained head, asked where it looks."""

    def __init__(self, graph: Graph, chosen: HeadTarget, progress: Progress) -> None:
        from stages.heads.train import load_head
        from stages.predict.predict import Taken, taken_by

        result = chosen.result or {}
        self.head = load_head(chosen.folder)
        self.classes = [str(name) for name in self.head.classes_]
        self.temperature = float(result.get("temperature", 1.0))
        self._takes = taken_by(self.head, chosen.entry.base, result.get("layers", chosen.entry.layers))
        self._each = {
            (take.base, layer): Taken(take.base, (layer,), "none") for take in self._takes for layer in take.layers
        }
        self._sources = {
            name: source_of(graph, name, self._takes, progress)
            for name in dict.fromkeys(take.base for take in self._takes)
        }
        self._built: dict[BaseOrImages, FrozenBase | Images] = {}
        self._specs = {name: spec_of(graph, name) for name in self._sources}

    @property
    def spec(self) -> "BaseSpec":
        """How images come to the first base that the head takes features of."""
        return next(iter(self._specs.values()))

    def look(self, path: Path, label: str | None = None, occlusion: bool = False, edge: int = 0) -> list[Looked]:
        """Where the head looked in an image file for a class, left out for the one that it predicts; with ``occlusion``, by that too, and
        by that alone where the head does not say. Raises BadImageError for a file that cannot be read, and HeadError for a head that does
        not say.
        """
        from stages.data.images import BadImageError
        from stages.explain.drawing import EDGE, shown
        from stages.explain.maps import explain
        from stages.heads.calibration import cooled
        from stages.predict.predict import digests_of, features_of
        from stages.predict.rows import log_proba_of, seen_in

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

    def _occluded(self, data: bytes, k: int, size: tuple[int, int]) -> "NDArray[np.float32]":
        from stages.data.images import decode
        from stages.explain.occlusion import occluded

        images = {
            name: decode(data, spec.input_size, scaled=spec.decode == "scaled", how=spec.resizing)
            for name, spec in self._specs.items()
        }
        return occluded(images, self._says_of_images, k, size)

    def _says_of_images(self, images: "Mapping[BaseOrImages, NDArray[np.uint8]]") -> "NDArray[np.float64]":
        from stages.predict.rows import log_proba_of

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


def explained_lines(
    config: Config,
    progress: Progress,
    paths: Sequence[Path],
    head: str | None = None,
    label: str | None = None,
    occlusion: bool = False,
    out: Path | None = None,
) -> tuple[list[str], bool]:
    """Draw where a head looked in image files: what is to be printed, and whether all could be read.

    The head is the one named or the best on validation, the class the one named or, of each image, the predicted one.
    """
    from stages.data.images import BadImageError
    from stages.explain.drawing import sheet

    graph = load_graph(config, progress=progress)
    chosen = trained_head(graph, head, progress)
    files = files_of(paths)
    progress.say(f"head: {chosen.entry.name} ({score_words(chosen.result or {}, config.report.metric)})")
    looker = Looker(graph, chosen, progress)
    if label is not None and label not in looker.classes:
        raise ConfigError(f"--class: {no_such('class', label, looker.classes)}")
    lines, skipped, cells = [], [], []
    with progress.task("Explaining", len(files)) as advance:
        for path in files:
            try:
                found = looker.look(path, label, occlusion)
            except BadImageError as bad:
                skipped.append(f"{path}: skipped: {bad}")
            else:
                lines.append(_line(path, found))
                cells.append(_cell(path, found))
            advance(1)
    lines += skipped
    if cells:
        target, mark = place_of(config, out, files[0].stem, files[0])
        write_picture(target, sheet(cells, f"{chosen.entry.name}: what speaks for the class", mark=mark))
        lines.append(f"{target}: {counted(len(cells), 'image')} drawn")
    return lines, not skipped


def check_together(of_layer: Mapping[str, object], of_head: Mapping[str, object], base: str | None) -> None:
    """Raises ConfigError for options, by name, that cannot go together: one would be left aside, and nobody told."""
    layers, heads = ([name for name, value in each.items() if value] for each in (of_layer, of_head))
    if layers[1:]:
        raise ConfigError(f"{' and '.join(layers)}: expected one of them, found both; draw one after the other")
    if layers and heads:
        raise ConfigError(
            f"{layers[0]} with {' and '.join(heads)}: a layer is drawn as it is, and no head is asked; leave one of them out"
        )
    if base and not layers:
        raise ConfigError(f"--base: expected {' or '.join(of_layer)} beside it, found none; a head has its own base")


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The image files named and in the folders named. Raises DataError where they are more than a picture has room for."""
    from stages.predict.predict import find_images

    files = find_images(paths)
    if not files:
        raise DataError("expected image files or folders to explain, found none; name some: headstart explain PATH…")
    if len(files) > MOST:
        raise DataError(f"expected at most {MOST} images for one picture, found {len(files)}; name fewer")
    return files


def place_of(config: Config, out: Path | None, name: str, image: Path | None, of: str = "") -> tuple[Path, str]:
    """Where a picture goes, ``out`` or a place by its ``name`` in the cache; and its mark, that of the image and ``of`` what it is.

    Images in several folders may have one name: one of them does not get the place of another's picture.
    """
    from stages.explain.drawing import free_place

    shows = os.path.relpath(image, config.path.parent) if image else ""
    mark = digest_text(f"{of} {shows}")[:8]
    return out or free_place(config.cache.dir / "explain", name, mark), mark


def write_picture(path: Path, png: bytes) -> None:
    """Write a PNG file, atomically. Raises ConfigError for a name that is of another kind."""
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--out {path}: expected a name that ends in .png, found {path.suffix or 'none'!r}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(png)


def _line(path: Path, found: Sequence[Looked]) -> str:
    from stages.explain.occlusion import agreement

    first = found[0]
    words = [each.method for each in found]
    if len(found) > 1 and first.map is not None and found[1].map is not None:
        words.append(f"rank correlation of the two {agreement(first.map, found[1].map):.2f}")
    if first.map is not None and not first.map.any():
        words.append("nothing speaks for it")
    return f"{path}: {first.label} {first.probability:.3f} ({', '.join(words)})"


def _cell(path: Path, found: Sequence[Looked]) -> "Cell":
    from stages.explain.drawing import Cell, overlay

    image = found[0].image
    pictures = [image, *(overlay(image, each.map) for each in found if each.map is not None)]
    return Cell(
        pictures,
        [f"{found[0].label}  {found[0].probability:.3f}", f"{path.name}  ({', '.join(each.method for each in found)})"],
    )
