"""What a sweep leaves behind: ``trials.csv`` with a row for each trial, and ``result.json``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache.files import seal, write_csv, write_text
from stages.sweeps.ledger import Chosen, Record
from stages.sweeps.optimism import Corrected
from stages.sweeps.spec import SweepSpec
from stages.sweeps.trials import Trial, effects

LEADERS = 10
COLUMNS = ("accuracy", "low", "high", "loss", "spread", "trained_epochs", "complete", "seconds", "problem", "key")
# Where trials are ranked by another score than accuracy.
CHOSEN = ("score", "score_low", "score_high", "score_spread")


def write_sweep(
    folder: Path,
    name: str,
    key: str,
    parts: dict[str, Any],
    spec: SweepSpec,
    ranked: Sequence[tuple[Trial, Record]],
    corrected: Corrected | None,
    needs: dict[str, dict[str, str]],
) -> None:
    """Write the trials, ``ranked`` with the winner first, whose score ``corrected`` is free of optimism; ``parts`` are what the
    sweep's ``key`` is made of, and ``needs`` the heads that its trials are made of, as they were trained.
    """
    metric = parts.get("metric", "accuracy")
    rows = [[rank, *_cells(trial, record, spec.repeats, metric)] for rank, (trial, record) in enumerate(ranked, 1)]
    chosen = CHOSEN if metric != "accuracy" else ()
    write_csv(folder / "trials.csv", ["rank", *spec.grid, *COLUMNS[:5], *chosen, *COLUMNS[5:]], rows)
    first_rung = spec.min_epochs if spec.strategy == "halving" else None
    result = {
        "sweep": name,
        "key": key,
        "parts": parts,
        "strategy": spec.strategy,
        "trials": len(ranked),
        "complete": sum(record.complete and not record.problem for _, record in ranked),
        "winner": _described(*ranked[0], metric),
        "optimism": corrected and corrected.optimism,
        "corrected": corrected and corrected.value,
        "corrected_interval": list(corrected.interval) if corrected and corrected.interval else None,
        "leaders": [_described(*each, metric) for each in ranked[:LEADERS] if each[1].scored],
        "effects": effects(ranked, spec.grid, first_rung, metric),
        "effects_after": first_rung,
        "failed": sum(record.failed for _, record in ranked),
        "failures": [
            {"params": dict(trial.params), "problem": record.problem} for trial, record in ranked if record.problem
        ],
        "seconds": round(sum(record.seconds for _, record in ranked), 3),
    } | ({"needs": needs} if needs else {})
    write_text(folder / "result.json", seal(json.dumps(result, indent=1)) + "\n")


def _described(trial: Trial, record: Record, metric: str) -> dict[str, Any]:
    score = record.scores[-1]
    chosen = score.by(metric) if metric != "accuracy" else None
    other = {"score": chosen.value, "score_interval": chosen.interval, "score_spread": chosen.spread} if chosen else {}
    return other | {
        "params": dict(trial.params),
        "key": trial.key,
        "accuracy": score.accuracy,
        "accuracy_interval": list(score.interval),
        "log_loss": score.loss,
        "spread": score.spread,
        "epochs": len(record.scores),
        "complete": record.complete,
    }


def _cells(trial: Trial, record: Record, repeats: int, metric: str) -> list[Any]:
    numbers = [""] * (5 if metric == "accuracy" else 9)
    if record.scored:
        score = record.scores[-1]
        numbers = [f"{value:.6f}" for value in (score.accuracy, *score.interval, score.loss)]
        numbers.append(f"{score.spread:.6f}" if repeats > 1 else "")
        if metric != "accuracy":
            numbers += _chosen_cells(score.by(metric), repeats)
    end = [len(record.scores), record.complete, record.seconds, record.problem, trial.key]
    return [*map(_cell, trial.params.values()), *numbers, *end]


def _chosen_cells(chosen: Chosen | None, repeats: int) -> list[str]:
    if chosen is None or chosen.value is None:
        return [""] * 4
    ends = [f"{end:.6f}" for end in chosen.interval] if chosen.interval else ["", ""]
    return [f"{chosen.value:.6f}", *ends, f"{chosen.spread:.6f}" if repeats > 1 and chosen.spread is not None else ""]


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
