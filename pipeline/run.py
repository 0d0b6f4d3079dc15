"""What each command does: bring features, heads and the report up to date, in words that can be printed."""

import gc
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from cache.errors import CacheError, DataError, HeadError
from cache.files import lock
from cache.manifest import Manifest
from pipeline.build import base_as_stored, frozen_base
from pipeline.config import Config
from pipeline.graph import BaseTarget, Graph, HeadTarget, base_target, load_graph
from pipeline.words import data_lines, first
from stages.fields import nearest
from stages.progress import Progress

if TYPE_CHECKING:
    from stages.bases.frozen import FrozenBase
    from stages.extract.features import LayerStore, Stage
    from stages.predict.predict import Prediction


def features(
    config: Config, progress: Progress, rehash: bool = False, allow_drift: bool = False, on: str | None = None
) -> int:
    """Stage one: extract what the cache lacks, bring labels in the shards up to date. Returns the images extracted.

    ``on`` is the address of a Dask scheduler whose workers extract; without it this process does.
    """
    graph = load_graph(config, rehash, progress)
    for line in data_lines(graph):
        progress.say(line)
    undecodable = dict(graph.skipped.reasons)
    stale = [base for base in graph.bases.values() if base.stale]
    if any(base.missing for base in stale):
        gc.set_threshold(700, 10, 10)  # what the command line raised for commands that only look
        _check_heads(graph)
    # All are built before the first runs, so that a mistake in the last is not found an hour later.
    built = {target.name: frozen_base(graph, target, progress) for target in stale if target.missing}
    extracted = 0
    for target in stale:
        extracted += _bring_up_to_date(graph, target, built.get(target.name), progress, allow_drift, on)
    if not stale:
        progress.say("features: up to date")
    elif graph.skipped.reasons != undecodable:
        # The manifest without what cannot be decoded; raises where the rest is too little to train on.
        load_graph(config)
    return extracted


def _bring_up_to_date(
    graph: Graph, target: BaseTarget, base: "FrozenBase | None", progress: Progress, allow_drift: bool, on: str | None
) -> int:
    from stages.extract.features import LayerStore, Stage, compare

    if not target.key():  # the weights have just been fetched or quantised
        target = base_target(graph.config, target.name, target.spec, graph.manifest)
    layers = {
        layer.layer: LayerStore(layer.store, layer.key, layer.identity)
        for layer in target.layers
        if layer.store is not None and layer.key is not None
    }
    stage = Stage(graph.config.data, graph.manifest, layers, graph.skipped, graph.config.cache, progress, allow_drift)
    with ExitStack() as held:
        # Each process takes the locks in the same order, so that two of them never wait for one another.
        for each in sorted(layers.values(), key=lambda each: each.store.folder):
            held.enter_context(each.store.writing(progress.say))
        graph.skipped.refresh()
        if rewritten := sum(_mend(each, graph.manifest) for each in layers.values()):
            progress.say(f"features: labels and names brought up to date in {rewritten} shards, nothing extracted")
        # Another process may have worked on the stores since the graph was made, so look again under the lock.
        stage.layers = {layer: each for layer, each in layers.items() if stage.lacks(layer)}
        if not stage.layers:
            return 0
        if base is None or not set(stage.layers) <= set(base.layers):
            base = frozen_base(graph, target, progress, list(stage.layers))
        return _extract(stage, base, compare(stage, base), on)


def _mend(each: "LayerStore", manifest: Manifest) -> int:
    """Bring a store to what its spec and the manifest say; what is damaged goes. Returns the shards rewritten."""
    each.store.create(each.identity)
    each.store.discard_damaged()
    rewritten = each.store.relabel(manifest)
    each.store.discard_damaged()  # what relabelling found
    return rewritten


def _extract(stage: "Stage", base: "FrozenBase", compared: dict[str, dict[str, Any]], on: str | None) -> int:
    from stages.extract.features import extract

    progress, wanted = stage.progress, stage.wanted()
    before = stage.least_rows()
    try:
        if on is None:
            done = extract(stage, base, wanted, compared)
        else:
            from stages.extract.cluster import extract_on

            done = extract_on(on, stage, base.spec, wanted)
    except KeyboardInterrupt:
        kept = stage.least_rows() - before
        progress.say(f"features: interrupted; {kept} of {len(wanted)} images are kept, the next run goes on from there")
        raise
    for sha, reason in done.rejected.skipped.items():
        progress.say(f"skipped: {stage.manifest.by_digest[sha].path}: {reason}")
    rate = done.extracted / done.seconds if done.seconds else 0.0
    folders = ", ".join(str(each.store.folder) for each in stage.layers.values())
    progress.say(
        f"features: {done.extracted} images extracted in {done.seconds:.1f} s ({rate:.0f} images/s), "
        f"{len(done.rejected.skipped)} skipped → {folders}"
    )
    if changed := done.rejected.changed:
        raise DataError(f"{changed[0]}: {len(changed)} images changed or went away while they were read; run again")
    return done.extracted


def plan(config: Config, progress: Progress) -> list[str]:
    """What `features` would do, in words: images, bytes and the time they take by a timed batch or two. Writes no feature."""
    from stages.extract.plan import measure, plan_lines

    graph = load_graph(config, progress=progress)
    lines = data_lines(graph)[:1]
    copies = len(graph.manifest.records) - len(graph.manifest.by_digest)
    for target in graph.bases.values():
        wanted = [sha for sha in target.missing if sha not in graph.skipped.reasons]
        if not wanted:
            lines.append(f"{target.name}: nothing to extract")
            continue
        base = frozen_base(graph, target, progress)
        records = [graph.manifest.by_digest[sha] for sha in wanted]
        found = measure(base, records, config.data.root, config.cache)
        lines += plan_lines(target.name, found, len(wanted), copies, config.cache.dir)
    return lines


def _check_heads(graph: Graph) -> None:
    """Find a misspelt estimator now, and not after an hour of extraction."""
    from stages.heads.train import check_spec

    for head in graph.heads.values():
        if head.stale:
            check_spec(head.name, head.entry.spec)


def heads(config: Config, progress: Progress, names: Sequence[str] = (), on: str | None = None) -> int:
    """Stage two: train the heads that are stale. Returns how many were trained.

    All are trained in this process; with the address of a Dask scheduler in ``on``, what scikit-learn does in parallel goes there.

    A head that cannot be trained does not keep the others from it; HeadError is raised at the end.
    """
    if not config.heads:
        example = '[heads.linear] kind = "dense" units = []'
        raise HeadError(f"{config.path}: expected at least one [heads.NAME], found none; add one, such as {example}")
    graph = load_graph(config, progress=progress)
    for name in names:
        _known_head(graph, name)
    if not _stale(graph, names):
        progress.say("heads: up to date")
        return 0
    with lock(config.cache.dir / "heads", progress.say):
        # Another process may have trained some of them while this one waited.
        graph = load_graph(config)
        stale = _stale(graph, names)
        if not stale:
            progress.say("heads: up to date")
            return 0
        for base in dict.fromkeys(head.entry.base for head in stale):
            target = graph.bases[base]
            if target.stale and not target.key():
                raise CacheError(f"features: {'; '.join(target.reasons)}; run `make features`")
            if target.stale:
                why = "; ".join(target.reasons)
                raise CacheError(f"features of {target.spec.name} are not up to date: {why}; run `make features`")
        for line in first([f"data: {note}" for note in graph.manifest.notes], 5):
            progress.say(line)
        _check_heads(graph)
        if on is None:
            return _train(graph, stale, progress)
        from stages.extract.cluster import cluster

        with cluster(on):
            return _train(graph, stale, progress)


def _stale(graph: Graph, names: Sequence[str]) -> list[HeadTarget]:
    return [head for head in graph.heads.values() if head.stale and (not names or head.name in names)]


def _train(graph: Graph, stale: Sequence[HeadTarget], progress: Progress) -> int:
    from stages.bases.backend import LOADING
    from stages.heads.dataset import Dataset
    from stages.heads.train import HeadTask, train_heads

    start, before = perf_counter(), len(LOADING)
    failures: list[HeadError] = []
    for name in dict.fromkeys(head.entry.base for head in stale):
        base = graph.bases[name]
        tasks = []
        for head in stale:
            entry = head.entry
            if entry.base == name and (base_key := base.key(entry.layers)) is not None and head.key is not None:
                rows = graph.manifest.rows_digest
                home = graph.config.path.parent
                tasks.append(
                    HeadTask(head.name, entry.spec, head.key, name, entry.layers, base_key, rows, head.folder, home)
                )
        for task, outcome in train_heads(
            tasks, Dataset(graph.manifest, base.stores, graph.config.cache.memory), progress
        ):
            if isinstance(outcome, HeadError):
                progress.say(f"failed: {outcome}")
                failures.append(outcome)
                continue
            found = outcome["metrics"]["validation"]
            low, high = found["accuracy_interval"]
            score = f"validation accuracy {found['accuracy']:.3f} ({low:.3f} to {high:.3f})"
            progress.say(f"trained: {task.name} in {outcome['seconds']:.1f} s, {score}")
            for warning in outcome["warnings"]:
                progress.say(f"warning: {task.name}: {warning}")
    trained = len(stale) - len(failures)
    loading = f", of which loading TensorFlow took {LOADING[0]:.1f} s" if len(LOADING) > before else ""
    progress.say(f"heads: {trained} trained of {len(graph.heads)} in {perf_counter() - start:.1f} s{loading}")
    if failures:
        more = f" (and {len(failures) - 1} more)" if failures[1:] else ""
        raise HeadError(f"{failures[0]}{more}; mend or remove it in {graph.config.path.name}")
    return trained


def report(config: Config, progress: Progress) -> Graph:
    """Write the report where it is stale. Raises HeadError while a head is not trained."""
    graph = load_graph(config, progress=progress)
    stale = [head for head in graph.heads.values() if head.stale]
    if stale:
        raise HeadError(f"head {stale[0].name!r} is not up to date: {'; '.join(stale[0].reasons)}; run `make heads`")
    for name, sweep in graph.sweeps.items():
        if not sweep.done:
            progress.say(f"report: sweep {name} is not in it: {'; '.join(sweep.reasons)}; run `make sweep`")
    if graph.report_reasons:
        from pipeline.summary import report_data
        from stages.report.render import write_report

        write_report(graph.report_path, report_data(graph))
        progress.say(f"report: written → {graph.report_path}")
    else:
        progress.say("report: up to date")
    return graph


def predict(config: Config, paths: Sequence[Path], head: str | None, progress: Progress) -> list["Prediction"]:
    """Labels and probabilities for image files, by the head named or the best on validation."""
    from stages.heads.results import best_on_validation
    from stages.heads.train import load_head
    from stages.predict.predict import find_images, predict_images

    graph = load_graph(config, progress=progress)
    usable = {h.name: h.result for h in graph.heads.values() if h.result and _predicts(graph, h)}
    if head is None and not usable:
        raise HeadError("no head is trained for this configuration; run `make heads`")
    chosen = _known_head(graph, head or best_on_validation(list(usable.values()))["head"])
    result, target = chosen.result, graph.bases[chosen.entry.base]
    if result is None:
        raise HeadError(f"head {chosen.name!r} is not trained yet; run `make heads`")
    if not _predicts(graph, chosen):
        why = "; ".join(chosen.reasons)
        raise HeadError(f"head {chosen.name!r} was trained with another configuration: {why}; run `make heads`")
    if chosen.stale:
        progress.say(f"warning: head {chosen.name} is not up to date: {'; '.join(chosen.reasons)}")
    files = find_images(paths) if paths else [config.data.root / path for path in graph.manifest.unlabelled]
    if not files:
        raise DataError("expected image files or folders to predict, found none; name some: headstart predict PATH…")
    progress.say(f"head: {chosen.name} (validation accuracy {result['metrics']['validation']['accuracy']:.3f})")
    model = load_head(chosen.folder, chosen.entry.spec, tuple(result["classes"]))
    stores = {layer: target.stores[layer] for layer in chosen.entry.layers}
    temperature = result.get("temperature", 1.0)
    make_base = partial(base_as_stored, target, progress, list(stores))
    return predict_images(files, model, stores, make_base, progress, temperature)


def _predicts(graph: Graph, head: HeadTarget) -> bool:
    """Whether a trained head is of the base and the parameters that the configuration has now."""
    result, base = head.result, graph.bases[head.entry.base]
    key = base.key(head.entry.layers)
    return bool(result and result["base_key"] == key and result["spec"] == head.entry.spec.parameters())


def _known_head(graph: Graph, name: str) -> HeadTarget:
    if name in graph.sweeps and name not in graph.heads:
        raise HeadError(
            f"the winner of sweep {name!r} is not known: {'; '.join(graph.sweeps[name].reasons)}; run `make sweep`"
        )
    if name not in graph.heads:
        raise HeadError(
            f"no head {name!r} in the configuration{nearest(name, graph.heads)}; there are {', '.join(graph.heads) or 'none'}"
        )
    return graph.heads[name]
