"""Run sweeps: try the variants of a head, write what came out, and train the winner as a head."""

import csv
import json
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Any

from cache.errors import CacheError, ConfigError
from cache.files import atomic_path, digest_json, lock, seal, write_text
from pipeline import run
from pipeline.config import Config
from pipeline.graph import Graph, SweepTarget, load_graph
from stages.ledger import Ledger, Record
from stages.progress import Progress
from stages.specs import head_key
from stages.sweep import Sweep
from stages.table import nearest
from stages.train import check_spec
from stages.trials import Trial, effects, trials_of, winner

LEADERS = 10
COLUMNS = ("rank", "accuracy", "low", "high", "loss", "spread", "epochs", "complete", "seconds", "problem")


def sweep(config: Config, progress: Progress, names: Sequence[str] = ()) -> int:
    """Run the sweeps that are stale, and train their winners. Returns how many were run."""
    if not config.sweeps:
        raise ConfigError(f"{config.path}: expected at least one [sweeps.NAME], found none; add one")
    for name in names:
        if name not in config.sweeps:
            known = ", ".join(config.sweeps)
            raise ConfigError(
                f"no sweep {name!r} in {config.path.name}{nearest(name, config.sweeps)}; there are {known}"
            )
    graph = load_graph(config, progress=progress)
    stale = [each for name, each in graph.sweeps.items() if each.stale and (not names or name in names)]
    for each in stale:
        _run(graph, each, progress)
    if not stale:
        progress.say("sweeps: up to date")
    winners = [each.entry.name for each in graph.sweeps.values() if not names or each.entry.name in names]
    run.heads(config, progress, winners)
    return len(stale)


def _run(graph: Graph, target: SweepTarget, progress: Progress) -> None:
    from stages.dataset import Dataset

    name, spec = target.entry.name, target.entry.spec
    with lock(target.folder, progress.say):
        bases = target.parts["bases"]
        for base in bases:
            features = graph.bases[base]
            if features.stale:
                why = "; ".join(features.reasons)
                raise CacheError(f"features of {features.spec.name} are not up to date: {why}; run `make features`")
        memory = graph.config.cache.memory
        data = {base: Dataset(graph.manifest, graph.bases[base].stores, memory) for base in bases}
        work = Sweep(spec, data, Ledger(target.folder / "trials.jsonl"), progress, name, graph.config.path.parent)
        start = perf_counter()
        variant = partial(_trial, graph, target)
        if spec.strategy == "tpe":
            trials = work.search(variant)
        else:
            trials = trials_of(spec, variant)
            work.run(trials)
        ranked = work.ranked(trials)
        # A trial that was dropped may stand above it by what it had after fewer epochs, but was not chosen.
        best, record = winner(ranked, name)
        ranked = [(best, record), *(pair for pair in ranked if pair[0].key != best.key)]
        _write(target, ranked, perf_counter() - start)
        work.checkpoints.close()
    score = record.scores[-1]
    low, high = score.interval
    spread = f", ±{score.spread:.3f} between seeds" if target.entry.spec.repeats > 1 else ""
    params = ", ".join(f"{key} = {json.dumps(value)}" for key, value in best.params.items()) or "the head as it is"
    progress.say(
        f"sweep {name}: {len(ranked)} trials, best validation accuracy {score.accuracy:.3f} "
        f"({low:.3f} to {high:.3f}{spread}) with {params} → {target.folder}"
    )


def _trial(graph: Graph, target: SweepTarget, params: dict[str, Any]) -> Trial:
    entry = graph.config.variant(target.entry, params)
    check_spec(target.entry.name, entry.spec, "sweeps")
    base_key = graph.bases[entry.base].key(entry.layers) or ""
    spec = target.entry.spec
    protocol = {"cv": spec.cv, "repeats": spec.repeats, "seed": spec.seed if spec.cv else None}
    key = digest_json([head_key(entry.spec, base_key, graph.manifest.rows_digest), protocol])
    return Trial(params, entry.base, entry.layers, entry.spec, key)


def _write(target: SweepTarget, ranked: Sequence[tuple[Trial, Record]], seconds: float) -> None:
    names = list(target.entry.spec.grid)
    with (
        atomic_path(target.folder / "trials.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*COLUMNS[:1], *names, *COLUMNS[1:], "key"])
        for rank, (trial, record) in enumerate(ranked, 1):
            writer.writerow([rank, *map(_cell, trial.params.values()), *_cells(record), trial.key])
    leaders = [_described(*each) for each in ranked[:LEADERS] if each[1].scores and not each[1].problem]
    result = {
        "sweep": target.entry.name,
        "key": target.key,
        "parts": target.parts,
        "strategy": target.entry.spec.strategy,
        "trials": len(ranked),
        "complete": sum(record.complete for _, record in ranked),
        "winner": _described(*ranked[0]),
        "leaders": leaders,
        "effects": effects(ranked, target.entry.spec.grid),
        "seconds": round(seconds, 3),
    }
    write_text(target.folder / "result.json", seal(json.dumps(result, indent=1)) + "\n")


def _described(trial: Trial, record: Record) -> dict[str, Any]:
    score = record.scores[-1]
    return {
        "params": dict(trial.params),
        "key": trial.key,
        "accuracy": score.accuracy,
        "accuracy_interval": list(score.interval),
        "log_loss": score.loss,
        "spread": score.spread,
        "epochs": len(record.scores),
        "complete": record.complete,
    }


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cells(record: Record) -> list[Any]:
    if not record.scores or record.problem:
        return ["", "", "", "", "", len(record.scores), record.complete, record.seconds, record.problem]
    score = record.scores[-1]
    low, high = score.interval
    return [
        *(f"{value:.6f}" for value in (score.accuracy, low, high, score.loss, score.spread)),
        len(record.scores), record.complete, record.seconds, record.problem,
    ]  # fmt: skip
