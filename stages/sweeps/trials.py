"""The variants that a sweep tries: which there are, and what their scores say of each parameter."""

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cache.errors import HeadError
from stages.fields import Range
from stages.heads.scored import METRICS
from stages.heads.spec import AnyHead
from stages.sweeps.ledger import Record
from stages.sweeps.spec import SweepSpec

# Effects are told of so many parts of a range, and of a list that has more numbers than this.
PARTS, LISTED = 4, 12
# Combinations of lists that are shuffled whole to draw from.
MOST_SHUFFLED = 1_000_000


@dataclass(frozen=True)
class Trial:
    """One variant: the parameters that it differs by, the base and layers that it is trained on, its spec and its key.

    A parameter that it does not take, such as the momentum of another optimizer, is None. ``begun`` is the digest of the heads that it is
    made of, as they were trained; empty where it is made of none.
    """

    params: Mapping[str, Any]
    base: str
    layers: tuple[str, ...]
    spec: AnyHead
    key: str
    begun: str = ""

    def __str__(self) -> str:
        said = [f"{name} = {json.dumps(value)}" for name, value in self.params.items() if value is not None]
        return ", ".join(said) or "the head as it is"


def trials_of(spec: SweepSpec, variant: Callable[[dict[str, Any]], Trial]) -> list[Trial]:
    """The trials of a sweep whose strategy knows them beforehand, each key once."""
    found = [variant({name: params[name] for name in spec.grid}) for params in _chosen(spec)]
    return list({trial.key: trial for trial in found}.values())


def _chosen(spec: SweepSpec) -> list[dict[str, Any]]:
    """The parameters of each trial. More trials of the same draw begin with those of fewer."""
    from sklearn.model_selection import ParameterGrid, ParameterSampler

    ranges = {name: values for name, values in spec.grid.items() if isinstance(values, Range)}
    if ranges:
        space = spec.grid | {name: _distribution(values) for name, values in ranges.items()}
        drawn = list(ParameterSampler(space, spec.trials or 0, random_state=spec.seed))
        # As TOML would have it; what was drawn from a range of whole numbers, rounded down to one.
        kinds = {name: int if values.whole else float for name, values in ranges.items()}
        return [params | {name: kind(params[name]) for name, kind in kinds.items()} for params in drawn]
    every = ParameterGrid(dict(spec.grid))
    if spec.trials is None:
        return list(every)
    # The sampler would draw from lists by another method when more are asked for, and begin with others.
    rng = np.random.default_rng(spec.seed)
    if len(every) <= MOST_SHUFFLED:
        return [every[int(i)] for i in rng.permutation(len(every))[: spec.trials]]
    places: dict[int, None] = {}
    while len(places) < min(spec.trials, len(every)):
        places[int(rng.integers(len(every)))] = None
    return [every[i] for i in places]


def _distribution(values: Range) -> Any:
    from scipy import stats

    end = values.high + 1 if values.whole else values.high  # what is drawn stays below it
    if values.log:
        return stats.loguniform(values.low, end)
    return stats.randint(values.low, end) if values.whole else stats.uniform(values.low, end - values.low)


def leader_lines(ranked: Sequence[tuple[Trial, Record]], metric: str = "accuracy") -> list[str]:
    """Trials with their score by the metric, how it differs between seeds, and its 95% interval, a line each."""
    lines = []
    for trial, record in ranked:
        chosen = record.scores[-1].by(metric) if record.scored else None
        if chosen is None or chosen.value is None:
            continue
        words = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items() if value is not None)
        epochs = len(record.scores)
        after = "" if record.complete else f" after {epochs} epoch{'s' * (epochs > 1)}"
        spread = f" ±{chosen.spread:.3f}" if chosen.spread else ""
        between = " [{:.3f}, {:.3f}]".format(*chosen.interval) if chosen.interval else ""
        lines.append(f"{chosen.value:.3f}{spread}{between}{after}  {words}".rstrip())
    return lines


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)


def effects(
    ranked: Sequence[tuple[Trial, Record]],
    grid: Mapping[str, list[Any] | Range],
    epochs: int | None = None,
    metric: str = "accuracy",
) -> dict[str, list[dict[str, Any]]]:
    """For each parameter and each of its values: how many trials had it, and their mean and best score on validation.

    Where trials were dropped on the way, all are compared after as many ``epochs`` as all of them had. A value that no trial with
    a result had has 0 trials and None. Numbers stand in ascending order, other values in that of the grid. A range is told in
    four parts, each an equal share of it on its own scale; a long list of numbers in four of equal length.
    """
    done: list[tuple[Mapping[str, Any], float]] = []
    for trial, record in ranked:
        if (epochs or record.complete) and record.scored:
            chosen = (record.after(epochs) if epochs else record.scores[-1]).by(metric)
            if chosen and chosen.value is not None:
                done.append((trial.params, chosen.value))
    best = min if METRICS[metric] == "low" else max
    found = {}
    for name, values in grid.items():
        labels, place = _labels(values)
        groups: list[list[float]] = [[] for _ in labels]
        for params, value in done:
            if params[name] is not None:
                groups[place(params[name])].append(value)
        found[name] = [
            {
                "value": label,
                "trials": len(group),
                "mean": float(np.mean(group)) if group else None,
                "best": best(group, default=None),
            }
            for label, group in zip(labels, groups, strict=True)
        ]
    return found


def _labels(values: list[Any] | Range) -> tuple[list[str], Callable[[Any], int]]:
    """What the rows of a parameter are called, and which of them a value belongs to."""
    if isinstance(values, Range):
        edges = _edges(values)
        pairs = [(low, high - 1 if values.whole else high) for low, high in pairwise(edges)]
        return [_span(*pair) for pair in pairs], lambda value: bisect_right(edges, value, 1, len(edges) - 1) - 1
    ordered = list({json.dumps(value): value for value in values}.values())
    parts = [[value] for value in ordered]
    if all(type(value) in (int, float) for value in ordered):
        ordered.sort()
        n, rows = len(ordered), len(ordered) if len(ordered) <= LISTED else PARTS
        parts = [ordered[n * i // rows : n * (i + 1) // rows] for i in range(rows)]
    part_of = {json.dumps(value): i for i, part in enumerate(parts) for value in part}
    return [_span(part[0], part[-1]) for part in parts], lambda value: part_of[json.dumps(value)]


def _edges(values: Range) -> list[Any]:
    """The ends of a range's parts; of whole numbers, the first of each part and the one after the last."""
    space = np.geomspace if values.log else np.linspace
    if not values.whole:
        return list(map(float, space(values.low, values.high, PARTS + 1)))
    # Rounded first: a power may fall just short of the whole number that it is.
    return sorted({math.floor(edge) for edge in np.round(space(values.low, values.high + 1, PARTS + 1), 6)})


def _span(first: Any, last: Any) -> str:
    return _short(first) if first == last else f"{_short(first)} to {_short(last)}"


def winner(ranked: Sequence[tuple[Trial, Record]], name: str, file: str) -> tuple[Trial, Record]:
    """The best trial that was trained to its end. Raises HeadError where none came to anything."""
    for trial, record in ranked:
        if record.complete and record.scored:
            return trial, record
    problem = next((record.problem for _, record in ranked if record.problem), "no trial was trained")
    raise HeadError(f"{name}: expected a trial with a result, found none ({problem}); mend it in {file}")
