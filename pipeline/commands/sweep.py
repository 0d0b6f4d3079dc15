"""``headstart sweep``: the sweeps that are stale, what came of them, and their winners as heads."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from cache.errors import CacheError, ConfigError, HeadError, HeadstartError
from cache.files import digest_json, lock
from pipeline.commands.heads import task_of, train_stale
from pipeline.common.checks import beginnings, check_sweep
from pipeline.common.words import scored_on
from pipeline.config.load import Config
from pipeline.config.order import in_order
from pipeline.config.tables import no_such
from pipeline.targets.graph import Graph, load_graph
from pipeline.targets.heads import HeadTarget, SweepTarget
from stages.heads.results import as_trained
from stages.heads.spec import head_key
from stages.progress import Progress, counted
from stages.sweeps.protocol import of_trial
from stages.training.spec import ONLY_WITH

if TYPE_CHECKING:
    from stages.heads.task import HeadTask
    from stages.sweeps.ledger import Chosen
    from stages.sweeps.optimism import Corrected
    from stages.sweeps.trials import Trial

PRINTED = 5  # leaders
HARDLY = 0.0005  # too good: less than is printed


def run_stale(config: Config, progress: Progress, names: Sequence[str] = ()) -> None:
    """Run the sweeps that are stale, and train their winners."""
    if not config.sweeps:
        raise ConfigError(f"{config.path}: expected at least one [sweeps.NAME], found none; add one")
    for name in names:
        if name not in config.sweeps:
            raise ConfigError(f"{config.path}: {no_such('sweep', name, config.sweeps)}")
    graph = load_graph(config, progress=progress)
    # A sweep whose trials need the winner of another comes after it.
    wanted = [n for n in in_order(config.heads, config.sweeps) if n in config.sweeps and (not names or n in names)]
    stale = [name for name in wanted if graph.sweeps[name].stale]
    problems: list[HeadstartError] = []
    for name in stale:
        try:
            for base in graph.sweeps[name].parts["bases"]:
                graph.bases[base].require()
            check_sweep(graph, graph.sweeps[name], beginnings(graph))
            if needs := config.sweeps[name].needs:
                train_stale(config, progress, needs)
            _run(config, name, progress)
        except CacheError:
            raise
        except HeadstartError as error:  # keeps no other sweep from running
            if stale[1:]:
                progress.say(f"failed: {error}")
            problems.append(error)
        finally:
            progress.show([])
    if not stale:
        progress.say("sweeps: up to date")
    sweeps = load_graph(config).sweeps
    if done := [name for name in wanted if sweeps[name].done]:
        train_stale(config, progress, done)
    if problems:
        raise HeadError(f"{len(problems)} of {len(stale)} sweeps failed" if stale[1:] else str(problems[0]))


def _run(config: Config, name: str, progress: Progress) -> None:
    from stages.heads.dataset import Dataset
    from stages.sweeps.halving import halve
    from stages.sweeps.ledger import Ledger
    from stages.sweeps.results import write_sweep
    from stages.sweeps.search import search
    from stages.sweeps.sweep import Sweep
    from stages.sweeps.trials import leader_lines, trials_of, winner

    with lock(config.cache.dir / "sweeps" / name, progress.say):
        # Another process may have run it while this one waited.
        graph = load_graph(config)
        target = graph.sweeps[name]
        if not target.stale:
            return
        spec = target.entry.spec
        bases = target.parts["bases"]
        for base in bases:
            graph.bases[base].require()
        memory = graph.config.cache.memory
        of = {base: graph.bases[base] for base in bases}
        data = {name: Dataset(graph.manifest, base.stores, memory, base.view_stores) for name, base in of.items()}
        metric = config.report.metric
        ledger = Ledger(target.folder / "trials.jsonl", metric, every_epoch=spec.strategy == "halving")
        work = Sweep(spec, data, ledger, progress, name, config.path.parent, partial(_task, graph, target))
        variant = partial(_trial, graph, target)
        if spec.strategy == "tpe":
            trials = search(work, variant)
        else:
            trials = trials_of(spec, variant)
            work.announce(trials)
            if spec.strategy == "halving":
                halve(work, trials)
            else:
                work.run(trials)
        ranked = work.ranked(trials)
        # A trial that was dropped may stand above it by what it had after fewer epochs, but was not chosen.
        best, record = winner(ranked, f"sweep {name!r}", config.path.name)
        ranked = [(best, record), *(pair for pair in ranked if pair[0].key != best.key)]
        corrected = work.corrected(ranked)
        needs = {need: as_trained(result) for need in target.entry.needs if (result := graph.heads[need].result)}
        write_sweep(target.folder, name, target.key, target.parts, spec, ranked, corrected, needs)
        work.checkpoints.close()
    for line in leader_lines([pair for pair in ranked if pair[1].complete][:PRINTED], metric):
        progress.say(f"  {line}")
    said = _said(record.scores[-1].by(metric), spec.repeats)
    progress.say(
        f"sweep {name}: {counted(len(ranked), 'trial')}, best {scored_on(spec.cv, metric)} {said} with {best} → {target.folder}"
    )
    for line in _corrected_lines(sum(each.scored for _, each in ranked), corrected):
        progress.say(f"sweep {name}: {line}")
    if failed := [(trial, record) for trial, record in ranked if record.failed]:
        first, problem = failed[0][0], failed[0][1].problem
        raise HeadError(
            f"sweep {name!r}: {len(failed)} of {counted(len(ranked), 'trial')} failed: {first}: {problem}; mend or "
            f"remove it in {config.path.name}"
        )


def _said(chosen: "Chosen | None", repeats: int) -> str:
    """The score by which trials are ranked, with what it varies by: ``0.934 (0.902 to 0.951, ±0.008 between seeds)``."""
    if chosen is None or chosen.value is None:
        return "not known"
    ends = ["{:.3f} to {:.3f}".format(*chosen.interval)] if chosen.interval else []
    around = [*ends, *([f"±{chosen.spread:.3f} between seeds"] if repeats > 1 and chosen.spread is not None else [])]
    return f"{chosen.value:.3f}" + (f" ({', '.join(around)})" if around else "")


def _corrected_lines(trials: int, corrected: "Corrected | None") -> list[str]:
    """By how much the score of a winner is too good, as it was chosen among so many ``trials``; nothing where it was not chosen."""
    if trials < 2:
        return []
    among = f"chosen among {trials} trials, its score is"
    if corrected is None:
        return [f"{among} too good; by how much is not known, as what was kept of its trials does not tell"]
    interval = " ({:.3f} to {:.3f})".format(*corrected.interval) if corrected.interval else ""
    by = "hardly" if corrected.optimism < HARDLY else f"about {corrected.optimism:.3f}"
    return [f"{among} {by} too good; corrected {corrected.value:.3f}{interval}"]


def _task(graph: Graph, target: SweepTarget, trial: "Trial") -> "HeadTask":
    entry = graph.config.variant(target.entry, {name: each for name, each in trial.params.items() if each is not None})
    return task_of(graph, HeadTarget(entry, target.folder, trial.key, None, ()))


def _trial(graph: Graph, target: SweepTarget, params: dict[str, Any]) -> "Trial":
    from stages.heads.train import check_spec
    from stages.sweeps.trials import Trial

    entry = graph.config.variant(target.entry, params)
    check_spec(target.entry.name, entry.spec, "sweeps")
    base_key = graph.bases[entry.base].key(entry.layers, entry.spec.views) or ""
    for field, (other, value) in ONLY_WITH.items():
        if field in params and getattr(entry.spec, other, None) != value:
            params = params | {field: None}  # it has none, whatever was drawn
    spec = target.entry.spec
    protocol = {"cv": spec.cv, "repeats": spec.repeats, "seed": spec.seed if spec.cv else None}
    protocol |= of_trial(spec, entry.spec, graph.manifest)
    needs = [graph.heads[need] for need in entry.needs]
    keys = [need.key for need in needs if need.key]
    key = digest_json([head_key(entry.spec, base_key, graph.manifest.rows_digest, keys), protocol])
    # Not in the key, so that trials of earlier versions are known: their heads were under the same keys.
    begun = digest_json([as_trained(need.result) for need in needs if need.result]) if needs else ""
    return Trial(params, entry.base, entry.layers, entry.spec, key, begun)
