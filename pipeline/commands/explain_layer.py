"""``headstart explain --features`` and ``--filters``: a layer of a base, as a contact sheet."""

from collections.abc import Sequence
from pathlib import Path

from cache.errors import DataError
from pipeline.commands.explain import files_of, place_of, write_picture
from pipeline.config.load import Config
from pipeline.targets.graph import extracted_layer, load_graph
from stages.progress import Progress


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
