"""``headstart label-next``: which unlabelled images to label next."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cache.files import write_csv
from cache.manifest import ImageRecord
from pipeline.common.build import base_as_stored, stores_to_write
from pipeline.common.sources import sources_of, takes_of
from pipeline.common.trained import asked
from pipeline.config.load import Config
from pipeline.targets.features import BaseTarget
from pipeline.targets.graph import Graph, load_graph
from stages.progress import Progress, counted

if TYPE_CHECKING:
    from stages.predict.predict import Prediction

COLUMNS = ("rank", "path", "predicted", "probability", "next", "next_probability", "margin")
# What shards call the label of an image that has none.
UNLABELLED = ""


def label_next_lines(
    config: Config,
    progress: Progress,
    paths: Sequence[Path],
    head: str | None = None,
    count: int = 50,
    csv: Path | None = None,
    page: Path | None = None,
) -> tuple[list[str], bool]:
    """Up to ``count`` of the image files, or of the data folder's images without a label, to label next: what is to be printed, and whether
    all could be read. With ``csv`` and ``page`` they are written there.

    The features of the images are kept: whoever labels asks again after each training, and labelled images are to be extracted once.
    """
    import numpy as np

    from stages.heads.train import load_head
    from stages.predict.predict import digests_of, predict_images
    from stages.search.index import as_searched
    from stages.search.labelling import SAMPLE, near_distance, to_label

    graph = load_graph(config, progress=progress)
    nothing = "expected images without a label, found none; name files or folders: headstart label-next PATH…"
    chosen, files = asked(graph, head, paths, progress, nothing)
    digests, unread = digests_of(files)
    once = {digest: path for path, digest in reversed(digests.items())}
    known = once.keys() & graph.manifest.by_digest.keys()
    records = [
        ImageRecord(os.path.relpath(path, config.data.root), digest, UNLABELLED, "")
        for digest, path in once.items()
        if digest not in known
    ]
    told = [
        (len(known), "has a label already", "have a label already"),
        (len(digests) - len(once), "is a copy", "are copies"),
    ]
    for n, one, many in told:
        if n:
            progress.say(f"label-next: {counted(n, 'image')} {one if n == 1 else many}, left out")
    model = load_head(chosen.folder)
    takes = takes_of(chosen, model)
    sources = sources_of(graph, takes, progress)
    of_features = [name for name in sources if isinstance(name, str)] or [next(iter(graph.bases))]
    for name in of_features:
        _keep_features(graph, graph.bases[name], records, progress)
    refused = {once[record.sha256]: graph.skipped.reasons.get(record.sha256) for record in records}
    unread |= {path: reason for path, reason in refused.items() if reason}
    places = [path for path, reason in refused.items() if not reason]
    predictions = predict_images(places, model, takes, sources, progress, (chosen.result or {}).get("temperature", 1.0))
    layer, store = next(reversed(graph.bases[of_features[0]].stores.items()))
    usable = [(digests[each.path], each) for each in predictions if not each.reason and digests[each.path] in store]
    lines = [f"{path}: skipped: {reason}" for path, reason in unread.items()]
    lines += [f"{each.path}: skipped: {each.reason}" for each in predictions if each.reason]
    complete = not lines
    if not usable:
        return [*lines, "label-next: no image is left to label"], complete
    unit = store.read([digest for digest, _ in usable], as_searched)
    labelled = sorted(digest for digest in graph.manifest.by_digest if digest in store)[:SAMPLE]
    near = near_distance(store.read(labelled, as_searched))
    p = np.array([each.probabilities for _, each in usable])
    found = to_label(p, unit, count, config.data.seed, near)
    picked = [usable[i][1] for i in found.chosen]
    rows = []
    for rank, each in enumerate(picked, 1):
        one, first, two, second = _doubt(each)
        rows.append((rank, each.path, one, f"{first:.6f}", two, f"{second:.6f}", f"{first - second:.6f}"))
        lines.append(f"{rank:4}  {each.path}: {one} {first:.3f}, {two} {second:.3f}")
    copies = counted(found.copies, "near-copy", "near-copies")
    lines.append(f"label-next: {len(picked)} of {counted(len(usable), 'image')}; {copies} of these left out")
    if csv:
        write_csv(csv, COLUMNS, rows)
        lines.append(f"{csv}: {counted(len(rows), 'line')} written")
    if page:
        lines += _write_page(page, picked, f"{chosen.entry.name}, {layer}")
    return lines, complete


def _doubt(each: "Prediction") -> tuple[str, float, str, float]:
    """The two most probable classes, each with its probability."""
    second, first = sorted(range(len(each.probabilities)), key=each.probabilities.__getitem__)[-2:]
    return each.classes[first], each.probabilities[first], each.classes[second], each.probabilities[second]


def _keep_features(graph: Graph, target: BaseTarget, records: Sequence[ImageRecord], progress: Progress) -> None:
    """Extract what the stores of a base lack of images without a label, as stage one does: in whole shards, which a kill leaves."""
    from stages.extract.features import Stage, compare, extract

    if not target.stores:
        target.require()  # its weights are not here yet
    layers = stores_to_write(target.layers)
    manifest = replace(graph.manifest, records=tuple(records), classes=(*graph.manifest.classes, UNLABELLED), groups=())
    stage = Stage(graph.config.data, manifest, layers, graph.skipped, graph.config.cache, progress)
    if not stage.wanted():
        return
    with stage.writing():
        if not stage.keep_lacking():
            return
        base = base_as_stored(target, progress, list(stage.layers))
        done = extract(stage, base, stage.wanted(), compare(replace(stage, manifest=graph.manifest), base))
    progress.say(f"label-next: the features of {counted(done.extracted, 'image')} are extracted and kept")


def _write_page(page: Path, picked: "Sequence[Prediction]", by: str) -> list[str]:
    from stages.search.page import Part, Shown, write_page

    shown = []
    for each in picked:
        one, p, two, q = _doubt(each)
        shown.append(Shown(each.path, one, f"{p:.2f}", f"or {two} {q:.2f}", str(each.path)))
    lead = f"{counted(len(picked), 'image')} that the head is unsure of, and that are unlike one another; by {by}."
    return write_page(page, "To label next", lead, [Part("", shown)])
