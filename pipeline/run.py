"""What each command does: bring features, heads and the report up to date, in words that can be printed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import CacheError, DataError, HeadError
from cache.files import digest_json
from cache.store import FeatureStore
from pipeline.config import Config
from pipeline.graph import BaseTarget, Graph, HeadTarget, load_graph
from stages.progress import Progress
from stages.table import nearest

if TYPE_CHECKING:
    from stages.bases import FrozenBase
    from stages.features import Stage
    from stages.predict import Prediction


def features(config: Config, progress: Progress, rehash: bool = False, allow_drift: bool = False) -> int:
    """Stage one: extract what the cache lacks, bring labels in the shards up to date. Returns the images extracted."""
    graph = load_graph(config, rehash, progress)
    for line in data_lines(graph):
        progress.say(line)
    stale = [base for base in graph.bases.values() if base.stale]
    if any(base.missing for base in stale):
        _check_heads(graph)
    extracted = sum(_bring_up_to_date(graph, base, progress, allow_drift) for base in stale)
    if not stale:
        progress.say("features: up to date")
    else:
        # The manifest without what cannot be decoded; raises where the rest is too little to train on.
        load_graph(config)
    return extracted


def _bring_up_to_date(graph: Graph, target: BaseTarget, progress: Progress, allow_drift: bool) -> int:
    if target.missing and not graph.images_here:
        raise DataError(
            f"{graph.config.data.root}: {len(target.missing)} images are to be extracted ({'; '.join(target.reasons)}), "
            "but the folder is not here; extract where the images are, and copy the cache"
        )
    base = _frozen_base(target, progress) if target.missing else None
    if target.store is None:
        target = _with_key(graph, target)
    from stages.features import Stage

    store = target.store
    assert store is not None
    with store.writing(progress.say):
        store.discard_damaged()
        graph.skipped.refresh()
        # Another process may have worked on the store since the graph was made, so look again under the lock.
        wanted = [sha for sha in store.missing(graph.manifest.by_digest) if sha not in graph.skipped.reasons]
        if rewritten := store.relabel(graph.manifest):
            progress.say(f"features: labels and names brought up to date in {rewritten} shards, nothing extracted")
        stage = Stage(
            graph.config.data, graph.manifest, store, graph.skipped, graph.config.cache, progress, allow_drift
        )
        return _extract(stage, target, base, wanted) if base and wanted else 0


def _extract(stage: "Stage", target: BaseTarget, base: "FrozenBase", wanted: list[str]) -> int:
    from stages.features import extract

    assert target.key is not None
    store, progress = stage.store, stage.progress
    before = len(store)
    try:
        done = extract(stage, base, target.key, target.identity, wanted)
    except KeyboardInterrupt:
        kept = len(store) - before
        progress.say(f"features: interrupted; {kept} of {len(wanted)} images are kept, the next run goes on from there")
        raise
    for sha, reason in done.skipped.items():
        progress.say(f"skipped: {stage.manifest.by_digest[sha].path}: {reason}")
    rate = done.extracted / done.seconds if done.seconds else 0.0
    progress.say(
        f"features: {done.extracted} images extracted in {done.seconds:.1f} s ({rate:.0f} images/s), "
        f"{len(done.skipped)} skipped → {store.folder}"
    )
    if done.changed:
        raise DataError(
            f"{done.changed[0]}: {len(done.changed)} images changed or went away while they were read; run again"
        )
    return done.extracted


def _frozen_base(target: BaseTarget, progress: Progress) -> "FrozenBase":
    from stages.bases import FrozenBase
    from stages.weights import PACKAGED_NOTE

    if target.spec.weights == "packaged":
        progress.say(PACKAGED_NOTE)
    base = FrozenBase(target.spec, target.weights)
    height, width = target.spec.input_size
    progress.say(
        f"base: {target.spec.name} at {height}×{width}, cut at {target.spec.cut} → {base.feature_shape}, "
        f"weights {Path(target.spec.weights).name}; on {base.device} in {base.precision}"
    )
    return base


def _with_key(graph: Graph, target: BaseTarget) -> BaseTarget:
    """A target whose weights have just been fetched, with the key that they give it."""
    digest = target.weights.digest()
    assert digest is not None
    identity = target.spec.identity(digest, graph.config.cache.dtype)
    key = digest_json(identity)
    store = FeatureStore(graph.config.cache.dir / "features" / target.spec.folder_name(key))
    return replace(target, key=key, identity=identity, store=store)


def _check_heads(graph: Graph) -> None:
    """Find a misspelt estimator now, and not after an hour of extraction."""
    from stages.train import check_spec

    for head in graph.heads.values():
        if head.stale:
            check_spec(head.name, head.entry.spec)


def heads(config: Config, progress: Progress, names: Sequence[str] = ()) -> int:
    """Stage two: train the heads that are stale, all in this process. Returns how many were trained."""
    graph = load_graph(config, progress=progress)
    for name in names:
        _known_head(graph, name)
    stale = [head for head in graph.heads.values() if head.stale and (not names or head.name in names)]
    if not graph.heads:
        raise HeadError(
            f'{config.path}: expected at least one [heads.NAME], found none; add one, such as [heads.linear] kind = "dense" units = []'
        )
    for base in dict.fromkeys(head.entry.base for head in stale):
        if graph.bases[base].stale:
            raise CacheError(
                f"features of {graph.bases[base].spec.name} are not up to date: {'; '.join(graph.bases[base].reasons)}; run `make features`"
            )
    if stale:
        for note in graph.manifest.notes:
            progress.say(f"data: {note}")
        _check_heads(graph)
        _train(graph, stale, progress)
    else:
        progress.say("heads: up to date")
    return len(stale)


def _train(graph: Graph, stale: Sequence[HeadTarget], progress: Progress) -> None:
    from stages.dataset import Dataset
    from stages.train import HeadTask, train_head

    data: dict[str, Dataset] = {}
    for head in stale:
        base = graph.bases[head.entry.base]
        assert base.store is not None and base.key is not None and head.key is not None
        if base.name not in data:
            data[base.name] = Dataset(graph.manifest, base.store)
        task = HeadTask(
            head.name, head.entry.spec, head.key, base.name, base.key, graph.manifest.rows_digest, head.folder
        )
        result = train_head(task, data[base.name], progress)
        found = result["metrics"]["validation"]
        low, high = found["accuracy_interval"]
        progress.say(
            f"trained: {head.name} in {result['seconds']:.1f} s, validation accuracy {found['accuracy']:.3f} ({low:.3f} to {high:.3f})"
        )
        for warning in result["warnings"]:
            progress.say(f"warning: {head.name}: {warning}")
    progress.say(f"heads: {len(stale)} trained, {len(graph.heads) - len(stale)} up to date")


def report(config: Config, progress: Progress) -> Graph:
    """Write the report where it is stale. Raises HeadError while a head is not trained."""
    graph = load_graph(config, progress=progress)
    stale = [head for head in graph.heads.values() if head.stale]
    if stale:
        raise HeadError(f"head {stale[0].name!r} is not up to date: {'; '.join(stale[0].reasons)}; run `make heads`")
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
    from stages.predict import find_images, predict_images
    from stages.results import best_on_validation
    from stages.train import load_head

    graph = load_graph(config, progress=progress)
    chosen = _known_head(graph, head) if head else None
    if chosen is None:
        ready = {h.name: h.result for h in graph.heads.values() if h.result and not h.stale}
        if not ready:
            raise HeadError("no head is up to date; run `make heads`")
        chosen = graph.heads[best_on_validation(list(ready.values()))["head"]]
    elif chosen.result is None:
        raise HeadError(f"head {chosen.name!r} is not trained yet; run `make heads`")
    elif chosen.stale:
        progress.say(f"warning: head {chosen.name} is not up to date: {'; '.join(chosen.reasons)}")
    result, target = chosen.result, graph.bases[chosen.entry.base]
    assert result is not None
    if result["base_key"] != target.key or result["spec"] != chosen.entry.spec.slice():
        raise HeadError(
            f"head {chosen.name!r} was trained with another configuration: {'; '.join(chosen.reasons)}; run `make heads`"
        )
    files = find_images(paths) if paths else [config.data.root / path for path in graph.manifest.unlabelled]
    if not files:
        raise DataError("expected image files or folders to predict, found none; name some: headstart predict PATH…")
    progress.say(f"head: {chosen.name} (validation accuracy {result['metrics']['validation']['accuracy']:.3f})")
    model = load_head(chosen.folder, chosen.entry.spec, tuple(result["classes"]))
    assert target.store is not None
    return predict_images(files, model, target.store, lambda: _frozen_base(target, progress), progress)


def _known_head(graph: Graph, name: str) -> HeadTarget:
    if name not in graph.heads:
        raise HeadError(
            f"no head {name!r} in the configuration{nearest(name, graph.heads)}; there are {', '.join(graph.heads) or 'none'}"
        )
    return graph.heads[name]


def data_lines(graph: Graph) -> list[str]:
    """What was scanned, in words: images, classes, layout, splits, what was left out and why."""
    manifest = graph.manifest
    counts = manifest.counts()
    splits = ", ".join(f"{split} {sum(counter.values()):,}" for split, counter in counts.items() if counter)
    lines = [
        f"data: {len(manifest.records):,} images in {len(manifest.classes)} classes, layout {manifest.layout!r} ({splits})"
    ]
    if not graph.images_here:
        lines.append(f"data: {graph.config.data.root} is not here; the manifest of the last scan stands in")
    if manifest.unlabelled:
        lines.append(
            f"data: {len(manifest.unlabelled):,} images without a label, such as {manifest.unlabelled[0]} (for predict)"
        )
    if copies := len(manifest.records) - len(manifest.by_digest):
        lines.append(f"data: {copies:,} files are copies of others; each content is extracted once")
    if manifest.ignored:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in manifest.ignored.items())
        lines.append(f"data: ignored files that are not images: {kinds}")
    lines += [f"data: {note}" for note in manifest.notes]
    return lines + [f"skipped: {path}: {reason}" for path, reason in manifest.skipped.items()]
