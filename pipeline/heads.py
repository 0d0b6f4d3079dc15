"""``headstart heads``: stage two, the heads that are stale."""

from collections.abc import Collection, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from cache.errors import HeadError
from cache.files import lock
from pipeline.config import Config
from pipeline.config_tables import no_such
from pipeline.graph import Graph, load_graph
from pipeline.targets import HeadTarget
from pipeline.words import first, score_words
from stages.data.leaks import notes_of
from stages.heads.results import best_on_validation
from stages.heads.spec import trained_with
from stages.progress import Progress

if TYPE_CHECKING:
    from stages.heads.train import HeadTask


def train_stale(config: Config, progress: Progress, names: Sequence[str] = (), on: str | None = None) -> None:
    """Stage two: train the heads that are stale.

    All are trained in this process; with the address of a Dask scheduler in ``on``, what scikit-learn does in parallel goes there.

    A head that cannot be trained does not keep the others from it; HeadError is raised at the end.
    """
    if not config.heads:
        example = '[heads.linear] kind = "dense" units = []'
        raise HeadError(f"{config.path}: expected at least one [heads.NAME], found none; add one, such as {example}")
    graph = load_graph(config, progress=progress)
    for name in names:
        known_head(graph, name)
    if not _wanted(graph, names):
        progress.say("heads: up to date")
        return
    with lock(config.cache.dir / "heads", progress.say):
        # Another process may have trained some of them while this one waited.
        graph = load_graph(config)
        stale = _wanted(graph, names)
        if not stale:
            progress.say("heads: up to date")
            return
        if names and (before := [head.entry.name for head in stale if head.entry.name not in names]):
            progress.say(
                f"heads: {', '.join(before)} first, as what is named needs {'it' if not before[1:] else 'them'}"
            )
        for base in dict.fromkeys(head.entry.base for head in stale):
            graph.bases[base].require()
        for line in first([f"data: {note}" for note in notes_of(graph.manifest)], 5):
            progress.say(line)
        check_heads(graph)
        if on is None:
            _train(graph, stale, progress)
            return
        from stages.extract.cluster import cluster

        with cluster(on):
            _train(graph, stale, progress)


def _wanted(graph: Graph, names: Sequence[str]) -> list[HeadTarget]:
    """The stale heads among those named, among all where none is, and the stale ones that these need."""
    wanted, ahead = set[str](), list(names or graph.heads)
    while ahead:
        if (name := ahead.pop()) in graph.heads and graph.heads[name].stale:
            wanted.add(name)
            ahead += graph.heads[name].entry.needs
    return [head for name, head in graph.heads.items() if name in wanted]


def _train(graph: Graph, stale: Sequence[HeadTarget], progress: Progress) -> None:
    from stages.bases.backend import LOADING
    from stages.heads.dataset import Dataset
    from stages.heads.train import train_heads

    start, before = perf_counter(), len(LOADING)
    failures: dict[str, HeadError] = {}
    looks = 0
    for name, heads in _rounds(stale):
        base, tasks = graph.bases[name], []
        for head in heads:
            key = base.key(head.entry.layers, head.entry.spec.views)
            if key and head.key and not failures.keys() & head.entry.needs:
                tasks.append(_task(graph, head, head.key, key))
                continue
            failures[head.entry.name] = HeadError(_lacking(graph, head, failures))
            progress.say(f"failed: {failures[head.entry.name]}")
        data = Dataset(graph.manifest, base.stores, graph.config.cache.memory, base.view_stores)
        for task, outcome in train_heads(tasks, data, progress):
            if isinstance(outcome, HeadError):
                progress.say(f"failed: {outcome}")
                failures[task.name] = outcome
                continue
            score = score_words(outcome, graph.config.report.metric, interval=True)
            progress.say(f"trained: {task.name} in {outcome['seconds']:.1f} s, {score}")
            looks = outcome["test_looks"]
            for warning in outcome["warnings"]:
                progress.say(f"warning: {task.name}: {warning}")
    if looks > 1:
        progress.say(f"heads: {looks} heads have been scored on these test images by now; choose by validation alone")
    trained = len(stale) - len(failures)
    loading = f", of which loading TensorFlow took {LOADING[0]:.1f} s" if len(LOADING) > before else ""
    progress.say(f"heads: {trained} trained of {len(graph.heads)} in {perf_counter() - start:.1f} s{loading}")
    if failures:
        first_of_all, *others = failures.values()
        more = f" (and {len(others)} more)" if others else ""
        raise HeadError(f"{first_of_all}{more}; mend or remove it in {graph.config.path.name}")


def _rounds(stale: Sequence[HeadTarget]) -> Iterator[tuple[str, list[HeadTarget]]]:
    """Heads to train one after another: those on one base together, and each after those that it needs."""
    left = {head.entry.name: head for head in stale}
    while left:
        ready = [head for head in left.values() if not left.keys() & head.entry.needs]
        for base in dict.fromkeys(head.entry.base for head in ready):
            yield base, [head for head in ready if head.entry.base == base]
        left = {name: head for name, head in left.items() if head not in ready}


def _task(graph: Graph, head: HeadTarget, key: str, base_key: str) -> "HeadTask":
    from stages.heads.train import HeadTask

    entry, rows, home = head.entry, graph.manifest.rows_digest, graph.config.path.parent
    needs = {name: graph.heads[name].folder for name in entry.needs}
    return HeadTask(entry.name, entry.spec, key, entry.base, entry.layers, base_key, rows, head.folder, home, needs)


def _lacking(graph: Graph, head: HeadTarget, failures: Collection[str]) -> str:
    """Why a head cannot be trained, of whose needs one failed or is not known."""
    for name in head.entry.needs:
        if name in failures:
            return f"head {head.entry.name!r}: needs the head {name!r}, which could not be trained"
        if name not in graph.heads:
            return f"head {head.entry.name!r}: {graph.sweeps[name].unknown}; run `make sweep`"
    return f"head {head.entry.name!r}: {'; '.join(head.reasons)}"


def check_heads(graph: Graph) -> None:
    """Find a misspelt estimator now, and not after an hour of extraction."""
    from stages.heads.train import check_spec

    for name, head in graph.heads.items():
        if head.stale:
            check_spec(name, head.entry.spec)


def known_head(graph: Graph, name: str) -> HeadTarget:
    """The head of this name. Raises HeadError, with the nearest name, where there is none."""
    if name in graph.sweeps and name not in graph.heads:
        raise HeadError(
            f"the winner of sweep {name!r} is not known: {'; '.join(graph.sweeps[name].reasons)}; run `make sweep`"
        )
    if name not in graph.heads:
        raise HeadError(no_such("head", name, graph.heads))
    return graph.heads[name]


def trained_head(graph: Graph, name: str | None) -> HeadTarget:
    """The head of this name, or the best on validation. Raises HeadError unless it was trained on the base, and with the
    parameters, that the configuration has now.
    """
    usable = [head.result for head in graph.heads.values() if head.result and _as_configured(graph, head)]
    if name is None and not usable:
        raise HeadError("no head is trained for this configuration; run `make heads`")
    chosen = known_head(graph, name or best_on_validation(usable, graph.config.report.metric)["head"])
    if chosen.result is None:
        raise HeadError(f"head {chosen.entry.name!r} is not trained yet; run `make heads`")
    if not _as_configured(graph, chosen):
        why = "; ".join(chosen.reasons)
        raise HeadError(f"head {chosen.entry.name!r} was trained with another configuration: {why}; run `make heads`")
    return chosen


def _as_configured(graph: Graph, head: HeadTarget) -> bool:
    """Whether a trained head is of the base and the parameters that the configuration has now."""
    result, base = head.result, graph.bases[head.entry.base]
    spec = head.entry.spec
    key = base.key(head.entry.layers, spec.views)
    if result is None or result["base_key"] != key or trained_with(spec, result["spec"]) != spec.parameters():
        return False
    return all(name in graph.heads and _as_configured(graph, graph.heads[name]) for name in head.entry.needs)
