"""Trials of baselines and of the user's own heads, scored on each fold and with each seed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.errors import DivergedError, HeadError
from stages.heads.baselines import SklearnHead
from stages.heads.dataset import Dataset
from stages.heads.estimators import classifier
from stages.heads.fitting import fit_all
from stages.heads.metrics import scores
from stages.heads.own import KerasHead
from stages.heads.spec import KerasSpec, SklearnSpec
from stages.heads.strengths import Shared, on_path
from stages.progress import Progress
from stages.sweeps.folds import Fold
from stages.sweeps.ledger import Record, Score
from stages.sweeps.trials import Trial


def mean_score(members: Sequence[tuple[float, float]], folds: Sequence[Fold]) -> Score:
    """The score of a trial from (accuracy, loss) of its members, fold by fold for each seed: over folds by their sizes, then
    over seeds, with the spread of the accuracy between these.
    """
    sizes = np.array([len(held) for _, held in folds], np.float64)
    by_seed = np.average(np.reshape(members, (-1, len(sizes), 2)), axis=1, weights=sizes)
    accuracy, loss = by_seed.mean(axis=0)
    spread = float(np.std(by_seed[:, 0], ddof=1)) if len(by_seed) > 1 else 0.0
    return Score(float(accuracy), float(loss), int(sizes.sum()), spread)


def score_own(
    trial: Trial, data: Dataset, folds: Sequence[Fold], repeats: int, home: Path, progress: Progress, name: str
) -> Record:
    """Train a head of the user's own on each fold with each seed, one after another."""
    spec, X = trial.spec, data.X(trial.spec.pool, trial.layers)
    assert isinstance(spec, KerasSpec)
    found, seconds = [], 0.0
    for number in range(repeats):
        seeded = spec.model_copy(update={"seed": spec.seed + number})
        for train, held in folds:
            head = KerasHead(seeded, data.classes, home)
            try:
                head.fit(X[train], data.y[train], X[held], data.y[held], progress, name)
            except HeadError as error:
                # One that diverged was trained, and would diverge again.
                return Record(trial.key, (), isinstance(error, DivergedError), seconds, str(error))
            best = head.history_[(head.best_epoch_ or 1) - 1]
            found.append((best["val_accuracy"], best["val_loss"]))
            seconds += head.seconds_
    return Record(trial.key, (mean_score(found, folds),), True, round(seconds, 3))


def score_baselines(trials: Sequence[Trial], data: Dataset, folds: Sequence[Fold], repeats: int) -> list[Record]:
    """Fit the baselines of trials on the same features, together, on each fold with each seed."""
    X = data.X(trials[0].spec.pool, trials[0].layers)
    specs = [trial.spec for trial in trials if isinstance(trial.spec, SklearnSpec)]
    jobs = [spec.model_copy(update={"seed": spec.seed + number}) for spec in specs for number in range(repeats)]
    found = score_all(jobs, X, data.y, folds, data.classes)
    records = []
    for i, trial in enumerate(trials):
        mine = [fold for job in found[i * repeats : (i + 1) * repeats] for fold in job]
        problem = next((fold.problem for fold in mine if fold.problem), "")
        told = () if problem else (mean_score([(fold.accuracy, fold.loss) for fold in mine], folds),)
        records.append(Record(trial.key, told, not problem, round(sum(fold.seconds for fold in mine), 3), problem))
    return records


@dataclass(frozen=True)
class Scored:
    """How a baseline did on the held-out rows of a fold: accuracy, log loss (nats), seconds; or the problem."""

    accuracy: float
    loss: float
    seconds: float
    problem: str = ""


def score_all(
    specs: Sequence[SklearnSpec],
    X: NDArray[np.float32],
    y: NDArray[np.int64],
    folds: Sequence[Fold],
    classes: Sequence[str],
) -> list[list[Scored]]:
    """Fit each baseline on the first rows of each fold and score it on the others: for each baseline its folds.

    Those that differ in a seed that changes nothing are fitted once; the seconds are the first one's.
    """
    keys = [repr(_seedless(spec)) for spec in specs]
    once = {key: specs[keys.index(key)] for key in keys}
    scored: dict[str, list[Scored]] = {key: [] for key in once}
    for train, held in folds:
        fits = fit_all(list(once.values()), Shared(X[train], y[train]))
        for (key, spec), fit in zip(once.items(), fits, strict=True):
            try:
                found = scores(y[held], SklearnHead(spec, classes).take(fit).tried(X[held]), classes)
                scored[key].append(Scored(found["accuracy"], found["log_loss"], fit.seconds))
            except HeadError as error:
                scored[key].append(Scored(0.0, float("inf"), fit.seconds, str(error)))
    again = {key: [replace(fold, seconds=0.0) for fold in each] for key, each in scored.items()}
    return [(scored if keys.index(key) == i else again)[key] for i, key in enumerate(keys)]


def _seedless(spec: SklearnSpec) -> SklearnSpec:
    """The spec with seed 0 where the estimator draws nothing from it."""
    draws = "random_state" in classifier(spec).get_params(deep=False) and "random_state" not in spec.params
    return spec if draws and not on_path(spec) else spec.model_copy(update={"seed": 0})
