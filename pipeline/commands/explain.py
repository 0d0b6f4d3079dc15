"""``headstart explain``: what a head looked at in image files, or what a layer of a base sees, as a picture."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import ConfigError, DataError
from cache.files import atomic_path, digest_text
from pipeline.common.sources import looker_of
from pipeline.common.trained import trained_head
from pipeline.common.words import score_words
from pipeline.config.load import Config
from pipeline.config.tables import no_such
from pipeline.targets.graph import extracted_layer, load_graph
from stages.progress import Progress, counted

if TYPE_CHECKING:
    from stages.explain.drawing import Cell
    from stages.predict.looker import Looked

# On one contact sheet.
MOST = 100


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
    looker = looker_of(graph, chosen, progress)
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


def layer_lines(
    config: Config,
    progress: Progress,
    paths: Sequence[Path],
    features: str | None,
    filters: str | None,
    base: str | None = None,
    out: Path | None = None,
) -> tuple[list[str], bool]:
    """Draw the feature maps of an image at a layer, or the patterns that a layer's filters answer to: what is to be printed, and whether
    the image could be read. Any layer of the base will do, extracted or not.
    """
    from stages.bases.frozen import FrozenBase
    from stages.data.images import BadImageError, decode
    from stages.explain.drawing import Cell, sheet, shown
    from stages.explain.layers import EDGE, filter_cells, map_cells, strongest

    graph = load_graph(config, progress=progress)
    target, _, _ = extracted_layer(graph, base, None, option="--")
    layer = features or filters or ""
    files = files_of(paths) if paths else []
    if (features and len(files) != 1) or len(files) > 1:
        raise DataError(f"expected one image, found {len(files)}; name one")
    cells, channels = [], None
    if files:
        spec, data = target.spec, files[0].read_bytes()
        try:
            pixels = decode(data, spec.input_size, scaled=spec.decode == "scaled", how=spec.resizing)
            image = shown(data, spec, EDGE)
        except BadImageError as bad:
            return [f"{files[0]}: skipped: {bad}"], False
        maps = FrozenBase(spec, target.weights, [layer], "float32" if not spec.onnx else None)(pixels[None])[layer][0]
        cells = map_cells(maps, layer)
        channels = strongest(maps, len(cells))
    of = f" for {files[0].name}" if files else ""
    if filters:
        cells = filter_cells(target.spec, target.weights, layer, channels, config.data.seed, progress)
        title = f"{target.spec.name}, {layer}: what drives up {'the channels that are strongest' if files else 'the first channels'}{of}"
    else:
        cells = [Cell([image], [files[0].name, "the image"]), *cells]
        title = f"{target.spec.name}, {layer}: the strongest channels{of}"
    name = f"{'filters' if filters else 'features'}-{layer}"
    picture, mark = place_of(config, out, name, files[0] if files else None, target.name)
    write_picture(picture, sheet(cells, title, columns=8, mark=mark))
    return [f"{picture}: {title}"], True


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


def _line(path: Path, found: Sequence["Looked"]) -> str:
    from stages.explain.occlusion import agreement

    first = found[0]
    words = [each.method for each in found]
    if len(found) > 1 and first.map is not None and found[1].map is not None:
        words.append(f"rank correlation of the two {agreement(first.map, found[1].map):.2f}")
    if first.map is not None and not first.map.any():
        words.append("nothing speaks for it")
    return f"{path}: {first.label} {first.probability:.3f} ({', '.join(words)})"


def _cell(path: Path, found: Sequence["Looked"]) -> "Cell":
    from stages.explain.drawing import Cell, overlay

    image = found[0].image
    pictures = [image, *(overlay(image, each.map) for each in found if each.map is not None)]
    return Cell(
        pictures,
        [f"{found[0].label}  {found[0].probability:.3f}", f"{path.name}  ({', '.join(each.method for each in found)})"],
    )
