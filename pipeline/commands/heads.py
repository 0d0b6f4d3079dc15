"""``headstart heads``: stage two, the heads that are stale."""

from collections.abc import Collection, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from cache.errors import HeadError
from cache.files import lock
from pipeline.common.checks import check_heads
from pipeline.common.trained import known_head
from pipeline.common.words import first, score_words
from pipeline.config.load import Config
from pipeline.targets.graph import Graph, load_graph
from pipeline.targets.heads import HeadTarget
from pipeline.targets.origin import base_key_of, origin_of
from stages.data.leaks import notes_of
from stages.heads.tuned_spec import ON_IMAGES
from stages.progress import Progress, counted

if TYPE_CHECKING:
    from stages.heads.dataset import Dataset
    from stages.heads.task import HeadTask

    # What heads were trained on, by base, each with what it is made of: a process that stays reads it once.
    Datasets = dict[str, tuple[tuple[str, str], Dataset]]


class FailedHeadsError(HeadError):
    """Some heads could not be trained, each of which was said when it failed."""


def train_stale(
    config: Config,
    progress: Progress,
    names: Sequence[str] = (),
    on: str | None = None,
    datasets: "Datasets | None" = None,
) -> None:
    """Stage two: train the heads that are stale.

    All are trained in this process; with the address of a Dask scheduler in ``on``, what scikit-learn does in parallel goes there.
    What they are trained on is taken from ``datasets``, and kept there.

    A head that cannot be trained does not keep the others from it; FailedHeadsError is raised at the end.
    """
    datasets = {} if datasets is None else datasets
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
        every = [each.entry for head in stale for each in (head, *head.inside)]
        of_all = [each.base for each in every if not isinstance(each.spec, ON_IMAGES)]
        for base in dict.fromkeys(name for name in of_all if name):
            graph.bases[base].require()
        for line in first([f"data: {note}" for note in notes_of(graph.manifest)], 5):
            progress.say(line)
        check_heads(graph, extracts=False)
        if on is None:
            _train(graph, stale, progress, datasets)
            return
        from stages.extract.cluster import cluster

        with cluster(on):
            _train(graph, stale, progress, datasets)


def _wanted(graph: Graph, names: Sequence[str]) -> list[HeadTarget]:
    """The stale heads among those named, among all where none is, and the stale ones that these need."""
    wanted, ahead = set[str](), list(names or graph.heads)
    while ahead:
        if (name := ahead.pop()) in graph.heads and graph.heads[name].stale:
            wanted.add(name)
            ahead += [need for each in (graph.heads[name], *graph.heads[name].inside) for need in each.entry.needs]
    return [head for name, head in graph.heads.items() if name in wanted]


def _train(graph: Graph, stale: Sequence[HeadTarget], progress: Progress, datasets: "Datasets") -> None:
    from stages.bases.backend import LOADING
    from stages.heads.train import train_heads

    start, before = perf_counter(), len(LOADING)
    failures: dict[str, HeadError] = {}
    looks = 0
    for base, heads in _rounds(stale):
        tasks = []
        for head in heads:
            try:
                tasks.append(_ready(graph, head, failures, progress, datasets))
            except HeadError as error:
                progress.say(f"failed: {error}")
                failures[head.entry.name] = error
        for task, outcome in train_heads(tasks, _dataset(graph, base, datasets), progress):
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
        raise FailedHeadsError(f"{first_of_all}{more}; mend or remove it in {graph.config.path.name}")


def _rounds(stale: Sequence[HeadTarget]) -> Iterator[tuple[str, list[HeadTarget]]]:
    """Heads to train one after another: those on one base together, and each after those that it needs."""
    left = {head.entry.name: head for head in stale}
    while left:
        ready = [head for head in left.values() if not left.keys() & head.entry.needs]
        for base in dict.fromkeys(head.entry.base for head in ready):
            yield base, [head for head in ready if head.entry.base == base]
        left = {name: head for name, head in left.items() if head not in ready}


def _dataset(graph: Graph, base: str, datasets: "Datasets") -> "Dataset":
    """What heads on a base are trained on; for an ensemble, which has no base, the labels alone."""
    from stages.heads.dataset import Dataset

    memory, target = graph.config.cache.memory, graph.bases.get(base)
    made_of = (graph.manifest.digest, str(target.key(views=True)) if target else "")
    if base not in datasets or datasets[base][0] != made_of:
        parts = (target.stores, memory, target.view_stores) if target else ({}, memory)
        datasets[base] = (made_of, Dataset(graph.manifest, *parts))
    return datasets[base][1]


def _ready(
    graph: Graph, head: HeadTarget, failures: Collection[str], progress: Progress, datasets: "Datasets"
) -> "HeadTask":
    """The task of a head whose needs are there. Raises HeadError where they are not, and cannot be had."""
    name = head.entry.name
    for need in head.entry.needs:
        if need in failures:
            raise HeadError(f"head {name!r}: needs the head {need!r}, which could not be trained")
    of_sweeps = [graph.sweeps[each] for each in (*head.entry.needs, *head.entry.sweeps) if each in graph.sweeps]
    if missing := [sweep for sweep in of_sweeps if not sweep.done]:
        raise HeadError(f"head {name!r}: {missing[0].unknown}; run `make sweep`")
    if head.key is None and isinstance(head.entry.spec, ON_IMAGES):
        raise HeadError(f"head {name!r}: {'; '.join(graph.bases[head.entry.base].reasons)}; run `make features`")
    if head.key is None:
        raise HeadError(f"head {name!r}: {head.reasons[-1]}")
    if stale := [each for each in head.inside if each.stale]:
        _train_inside(graph, head, stale, progress, datasets)
    return task_of(graph, head)


def _train_inside(
    graph: Graph, head: HeadTarget, stale: Sequence[HeadTarget], progress: Progress, datasets: "Datasets"
) -> None:
    """Train the heads of an ensemble that have their place in its folder; those that a killed run left are kept. Raises HeadError."""
    from stages.heads.train import train_heads

    start = perf_counter()
    for base, heads in _rounds(stale):
        tasks = [task_of(graph, each) for each in heads]
        for task, outcome in train_heads(tasks, _dataset(graph, base, datasets), progress):
            if isinstance(outcome, HeadError):
                raise HeadError(f"head {head.entry.name!r}: {task.name}: {outcome}")
    of, seconds = head.entry.sweeps[0], perf_counter() - start
    progress.say(
        f"heads: {counted(len(stale), 'trial')} of sweep {of} trained for {head.entry.name} in {seconds:.1f} s"
    )


def task_of(graph: Graph, head: HeadTarget) -> "HeadTask":
    """What stage two needs to know to train a head; the stages know nothing of the graph."""
    from stages.heads.task import HeadTask

    entry = head.entry
    needs = {name: graph.heads[name] for name in entry.needs} | {each.entry.name: each for each in head.inside}
    return HeadTask(
        name=entry.name,
        spec=entry.spec,
        key=head.key or "",
        base=entry.base or " + ".join(dict.fromkeys(each.entry.base for each in needs.values())),
        layers=entry.layers,
        base_key=base_key_of(graph.config, entry, graph.bases) or "",
        rows_digest=graph.manifest.rows_digest,
        folder=head.folder,
        home=graph.config.path.parent,
        needs={name: each.folder for name, each in needs.items()},
        board=graph.config.cache.dir / "heads",
        origin=origin_of(graph.config, entry, graph.bases, graph.images_here),
    )


def warm_up(graph: Graph, datasets: "Datasets") -> None:
    """Read, import and compile what heads will need that are edited next. Trains nothing that is kept."""
    from stages.heads.warm import warm_up_head

    for head in graph.heads.values():
        if not head.stale:
            warm_up_head(task_of(graph, head), _dataset(graph, head.entry.base, datasets))
