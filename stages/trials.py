"""The variants that a sweep tries: which there are, and what their scores say of each parameter."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.errors import HeadError
from stages.fields import Range
from stages.ledger import Record
from stages.specs import AnyHead, SweepSpec


@dataclass(frozen=True)
class Trial:
    """One variant: the parameters that it differs by, the base and layers that it is trained on, its spec and its key."""

    params: Mapping[str, Any]
    base: str
    layers: tuple[str, ...]
    spec: AnyHead
    key: str


def trials_of(spec: SweepSpec, variant: Callable[[dict[str, Any]], Trial]) -> list[Trial]:
    """The trials of a sweep whose strategy knows them beforehand, each key once."""
    from sklearn.model_selection import ParameterGrid, ParameterSampler

    if spec.trials is None:
        chosen = list(ParameterGrid(dict(spec.grid)))
    else:
        space = {name: _distribution(values) for name, values in spec.grid.items()}
        chosen = list(ParameterSampler(space, _at_most(spec), random_state=spec.seed))
    found = [variant({name: _plain(params[name], spec.grid[name]) for name in spec.grid}) for params in chosen]
    return list({trial.key: trial for trial in found}.values())


def suggested(asked: Any, name: str, values: list[Any] | Range) -> Any:
    if not isinstance(values, Range):
        # By its place: Optuna takes no lists for choices.
        return values[asked.suggest_categorical(name, list(range(len(values))))]
    suggest = asked.suggest_int if values.whole else asked.suggest_float
    return suggest(name, values.low, values.high, log=values.log)


def _at_most(spec: SweepSpec) -> int:
    sizes = [0 if isinstance(values, Range) else len(values) for values in spec.grid.values()]
    assert spec.trials is not None
    return spec.trials if 0 in sizes else min(spec.trials, int(np.prod(sizes)))


def _distribution(values: list[Any] | Range) -> Any:
    from scipy import stats

    if not isinstance(values, Range):
        return values
    if values.whole and values.log:
        return stats.loguniform(values.low, values.high + 1)
    if values.whole:
        return stats.randint(int(values.low), int(values.high) + 1)
    kind = stats.loguniform if values.log else stats.uniform
    return kind(values.low, values.high) if values.log else kind(values.low, values.high - values.low)


def _plain(value: Any, values: list[Any] | Range) -> Any:
    """As TOML would have it; what was drawn from a range of whole numbers, rounded down to one."""
    if isinstance(values, Range):
        return int(value) if values.whole else float(value)
    return value


def leader_lines(ranked: Sequence[tuple[Trial, Record]]) -> list[str]:
    """Trials with their accuracy, how it differs between seeds, and its 95% interval, a line each."""
    lines = []
    for trial, record in ranked:
        if not record.scores or record.problem:
            continue
        score = record.scores[-1]
        low, high = score.interval
        words = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
        epochs = len(record.scores)
        after = "" if record.complete else f" after {epochs} epoch{'s' * (epochs > 1)}"
        spread = f" ±{score.spread:.3f}" if score.spread else ""
        lines.append(f"{score.accuracy:.3f}{spread} [{low:.3f}, {high:.3f}]{after}  {words}".rstrip())
    return lines


def counted(n: int, what: str) -> str:
    """``n`` things, in words: 1 trial, 2 trials."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)


def effects(ranked: Sequence[tuple[Trial, Record]], names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """For each parameter and each of its values: how many trials had it, and their mean and best validation accuracy.

    Where trials were dropped on the way, only those that were trained to their end count. Values that were drawn from a range
    are taken together, in four parts of equal size.
    """
    done = [
        (trial, record.scores[-1].accuracy)
        for trial, record in ranked
        if record.complete and record.scores and not record.problem
    ]
    found = {}
    for name in names:
        values = [trial.params[name] for trial, _ in done]
        groups: dict[str, list[float]] = {}
        for label, (_, accuracy) in zip(_labels(values), done, strict=True):
            groups.setdefault(label, []).append(accuracy)
        found[name] = [
            {"value": label, "trials": len(group), "mean": float(np.mean(group)), "best": max(group)}
            for label, group in groups.items()
        ]
    return found


def _labels(values: Sequence[Any]) -> list[str]:
    distinct = {json.dumps(value) for value in values}
    if len(distinct) <= 12 or not all(isinstance(value, int | float) for value in values):
        return [_short(value) for value in values]
    edges = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, 3)
    return [f"{_short(float(edges[p]))} to {_short(float(edges[p + 1]))}" for p in places]


def winner(ranked: Sequence[tuple[Trial, Record]], name: str, file: str) -> tuple[Trial, Record]:
    """The best trial that was trained to its end. Raises HeadError where none came to anything."""
    for trial, record in ranked:
        if record.complete and record.scores and not record.problem:
            return trial, record
    problem = next((record.problem for _, record in ranked if record.problem), "no trial was trained")
    raise HeadError(f"{name}: expected a trial with a result, found none ({problem}); mend it in {file}")
