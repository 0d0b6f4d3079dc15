"""``headstart similar``: the images of the cache that are most like some image files."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cache.files import write_csv
from pipeline.common.build import base_as_stored
from pipeline.config.load import Config
from pipeline.targets.graph import extracted_layer, load_graph
from stages.progress import Progress, counted

if TYPE_CHECKING:
    from stages.search.index import Hit

COLUMNS = ("image", "rank", "path", "label", "split", "similarity")


def similar_lines(
    config: Config,
    progress: Progress,
    paths: Sequence[Path],
    base: str | None = None,
    layer: str | None = None,
    k: int = 10,
    csv: Path | None = None,
    page: Path | None = None,
) -> tuple[list[str], bool]:
    """The ``k`` images most like each image file, by the features of a layer of a base: what is to be printed, and whether all files
    could be read. With ``csv`` and ``page`` they are written there.

    Left out, ``base`` is the first, and ``layer`` the last that is extracted. Raises ConfigError for one that there is not.
    """
    from stages.predict.predict import Source, Taken, digests_of, features_of, find_images
    from stages.search.index import Index

    graph = load_graph(config, progress=progress)
    target, name, store = extracted_layer(graph, base, layer, option="--")
    files = find_images(paths)
    index = Index.read(graph.manifest, store)
    if missing := len(graph.manifest.by_digest) - len(index.records):
        progress.say(
            f"similar: {counted(missing, 'image')} have no features yet, and are not searched; run `make features`"
        )
    digests, reasons = digests_of(files)
    source = Source({name: store}, partial(base_as_stored, target, progress, [name]))
    taken = Taken(target.name, (name,), "avg")
    features = features_of(digests, [taken], {target.name: source}, {}, reasons)[taken]
    found = {path: index.like(features[digests[path]], k, digests[path]) for path in files if path not in reasons}
    lines = []
    for path in files:
        if path in reasons:
            lines.append(f"{path}: skipped: {reasons[path]}")
            continue
        itself = graph.manifest.by_digest.get(digests[path])
        lines.append(
            f"{path}: "
            + (f"the same file as {itself.path} ({itself.label}, {itself.split})" if itself else "most like")
        )
        lines += [
            f"  {hit.similarity:.3f}  {hit.record.path} ({hit.record.label}, {hit.record.split})" for hit in found[path]
        ]
    if csv:
        rows = [
            (path, rank, hit.record.path, hit.record.label, hit.record.split, f"{hit.similarity:.6f}")
            for path, hits in found.items()
            for rank, hit in enumerate(hits, 1)
        ]
        write_csv(csv, COLUMNS, rows)
        lines.append(f"{csv}: {counted(len(rows), 'line')} written")
    if page:
        lines += _write_page(page, config.data.root, found, f"{target.spec.name} at {name}")
    return lines, not reasons


def _write_page(page: Path, root: Path, found: "dict[Path, list[Hit]]", features: str) -> list[str]:
    from stages.search.page import Part, Shown, write_page

    parts = []
    for path, hits in found.items():
        asked = Shown(path, "this image", "", "", path.name)
        like = [
            Shown(root / hit.record.path, hit.record.label, f"{hit.similarity:.3f}", hit.record.split, hit.record.path)
            for hit in hits
        ]
        parts.append(Part(str(path), [asked, *like]))
    lead = (
        f"The images most like each of {counted(len(found), 'image')}, with label, similarity and split; by {features}."
    )
    return write_page(page, "Similar images", lead, parts)
