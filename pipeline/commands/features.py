"""``headstart features``: stage one, what the cache lacks; with ``--dry-run``, what that would take."""

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cache.errors import DataError
from pipeline.common.build import frozen_base, stores_to_write
from pipeline.common.checks import check_heads
from pipeline.common.words import data_lines
from pipeline.config.load import Config
from pipeline.targets.features import BaseTarget, LayerTarget, ViewTarget, base_target
from pipeline.targets.graph import Graph, load_graph
from stages.progress import Progress, counted

if TYPE_CHECKING:
    from stages.bases.frozen import FrozenBase
    from stages.extract.features import Stage


def extract_missing(
    config: Config, progress: Progress, rehash: bool = False, allow_drift: bool = False, on: str | None = None
) -> None:
    """Stage one: extract what the cache lacks, bring labels in the shards up to date.

    ``on`` is the address of a Dask scheduler whose workers extract; without it this process does.
    """
    graph = load_graph(config, rehash, progress)
    for line in data_lines(graph):
        progress.say(line)
    undecodable = dict(graph.skipped.reasons)
    stale = [base for base in graph.bases.values() if base.stale]
    if any(base.missing for base in stale):
        gc.set_threshold(700, 10, 10)  # what the command line raised for commands that only look
        check_heads(graph)
    # All are built before the first runs, so that a mistake in the last is not found an hour later.
    built = {target.name: frozen_base(graph, target, progress) for target in stale if target.missing}
    for target in stale:
        _bring_up_to_date(graph, target, built.get(target.name), progress, allow_drift, on)
    if not stale:
        progress.say("features: up to date")
    elif graph.skipped.reasons != undecodable:
        # The manifest without what cannot be decoded; raises where the rest is too little to train on.
        load_graph(config)


def _bring_up_to_date(
    graph: Graph, target: BaseTarget, base: "FrozenBase | None", progress: Progress, allow_drift: bool, on: str | None
) -> None:
    from stages.extract.features import Stage

    if not target.key():  # the weights have just been fetched or quantised
        target = base_target(graph.config, target.name, target.spec, graph.manifest)
    told = (graph.skipped, graph.config.cache, progress, allow_drift)
    for each in (ViewTarget(None, target.layers), *target.views):
        if not any(layer.reasons for layer in each.layers):
            continue
        layers = stores_to_write(each.layers)
        manifest = graph.manifest.train if each.view else graph.manifest
        stage = Stage(graph.config.data, manifest, layers, *told, each.view)
        base = _one_pass(graph, target, stage, base, on)


def _one_pass(
    graph: Graph, target: BaseTarget, stage: "Stage", base: "FrozenBase | None", on: str | None
) -> "FrozenBase | None":
    """Bring the stores of the images, or of one view of them, up to date; the base, where it was built."""
    from stages.extract.features import compare

    progress = stage.progress
    with stage.writing():
        graph.skipped.refresh()
        rewritten = 0
        for each in stage.layers.values():
            each.store.discard_damaged()
            rewritten += each.store.relabel(stage.manifest)
            each.store.discard_damaged()  # what relabelling found
        if rewritten:
            progress.say(
                f"features: labels and names brought up to date in {counted(rewritten, 'shard')}, nothing extracted"
            )
        if not stage.keep_lacking():
            return base
        if base is None or not set(stage.layers) <= set(base.layers):
            base = frozen_base(graph, target, progress, list(stage.layers))
        _extract(stage, base, compare(stage, base), on)
    return base


def _extract(stage: "Stage", base: "FrozenBase", compared: dict[str, dict[str, Any]], on: str | None) -> None:
    from stages.extract.cluster import extract_on
    from stages.extract.features import extract

    progress, wanted = stage.progress, stage.wanted()
    title = f"features, view {stage.view.number}" if stage.view else "features"
    before = stage.least_rows()
    try:
        done = extract_on(on, stage, base.spec, wanted) if on else extract(stage, base, wanted, compared)
    except KeyboardInterrupt:
        kept = stage.least_rows() - before
        progress.say(f"{title}: interrupted; {kept} of {len(wanted)} images are kept, the next run goes on from there")
        raise
    for sha, reason in done.rejected.skipped.items():
        progress.say(f"skipped: {stage.manifest.by_digest[sha].path}: {reason}")
    rate = done.extracted / done.seconds if done.seconds else 0.0
    folders = ", ".join(str(each.store.folder) for each in stage.layers.values())
    progress.say(
        f"{title}: {done.extracted} images extracted in {done.seconds:.1f} s ({rate:.0f} images/s), "
        f"{len(done.rejected.skipped)} skipped → {folders}"
    )
    if changed := done.rejected.changed:
        raise DataError(f"{changed[0]}: {len(changed)} images changed or went away while they were read; run again")


def plan(config: Config, progress: Progress) -> list[str]:
    """What `features` would do, in words: images, bytes and the time they take by a timed batch or two. Writes no feature."""
    from stages.extract.plan import measure, plan_lines

    graph = load_graph(config, progress=progress)
    check_heads(graph)
    lines = data_lines(graph)[:1]
    copies = len(graph.manifest.records) - len(graph.manifest.by_digest)
    for target in graph.bases.values():
        images, of_views = (
            [sha for layers in passes for sha in _missing(layers) if sha not in graph.skipped.reasons]
            for passes in ([target.layers], [each.layers for each in target.views])
        )
        wanted = list(dict.fromkeys([*images, *of_views]))
        if not wanted:
            lines.append(f"{target.name}: nothing to extract")
            continue
        base = frozen_base(graph, target, progress)
        records = [graph.manifest.by_digest[sha] for sha in wanted]
        found = measure(base, records, config.data.root, config.cache, target.views[0].view if of_views else None)
        counts = (len(images), copies if images else 0)
        lines += plan_lines(target.name, found, *counts, config.cache.dir, config.cost, len(of_views))
    return lines


def _missing(layers: Sequence[LayerTarget]) -> list[str]:
    """The contents that one of the layers lacks."""
    return list(dict.fromkeys(digest for layer in layers for digest in layer.missing))
