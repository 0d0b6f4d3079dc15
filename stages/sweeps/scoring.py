"""Trials of baselines and of the user's own heads, on each fold and with each seed: their records, and what they say of each row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.errors import DivergedError, HeadError
from stages.heads.baselines import SklearnHead
from stages.heads.dataset import Dataset
from stages.heads.estimators import classifier
from stages.heads.fitting import fit_all, shared
from stages.heads.own import KerasHead
from stages.heads.spec import KerasSpec, SklearnSpec
from stages.heads.strengths import Shared, on_path
from stages.progress import Progress
from stages.sweeps.ledger import Record, Score
from stages.sweeps.measure import Measure
from stages.sweeps.trials import Trial
from stages.training.early_stopping import best_epoch
from stages.training.outcomes import Outcomes

# A trial's record, and its outcomes for each seed; none where it came to nothing.
Done = tuple[Record, list[Outcomes]]


def score_own(
    trial: Trial, data: Dataset, measure: Measure, repeats: int, home: Path, progress: Progress, name: str
) -> Done:
    """Train a head of the user's own on each fold with each seed, one after another."""
    spec, X = trial.spec, data.X(trial.spec.pool, trial.layers, trial.spec.views)
    assert isinstance(spec, KerasSpec)
    by_seed, seconds = [], 0.0
    for number in range(repeats):
        seeded = spec.model_copy(update={"seed": spec.seed + number})
        epochs: list[list[Outcomes]] = []  # of each fold
        histories: list[list[dict[str, float]]] = []
        for (train, held), scored in zip(measure.folds, measure.scored, strict=True):
            told: list[Outcomes] = []
            note = partial(_note, told, data.y[scored], X[scored], measure.whole)
            rows = data.to_train(X, train, spec.views)
            head = KerasHead(seeded, data.classes, home, each_epoch=note, views=rows.views)
            try:
                head.fit(rows.X, rows.y, X[held], data.y[held], progress, name)
            except HeadError as error:
                # One that diverged was trained, and would diverge again.
                return Record(trial.key, (), isinstance(error, DivergedError), seconds, str(error)), []
            seconds += head.seconds_
            epochs.append(told)
            histories.append(head.history_)
        best = best_epoch(histories, [len(held) for _, held in measure.folds], spec.monitor)
        if best is None:
            return Record(trial.key, (), True, seconds, str(DivergedError.at(spec.learning_rate))), []
        by_seed.append(measure.joined([told[best - 1] for told in epochs]))
    return Record(trial.key, (_score(measure, by_seed),), True, round(seconds, 3)), by_seed


def _score(measure: Measure, by_seed: list[Outcomes]) -> Score:
    return measure.with_interval(measure.score(by_seed), by_seed)


def _note(told: list[Outcomes], y: NDArray[np.int64], X: NDArray[np.float32], whole: bool, head: KerasHead) -> None:
    with np.errstate(all="ignore"):  # of a head that diverges
        told.append(Outcomes.of(y, head.predict_log_proba(X), whole))


def score_baselines(trials: Sequence[Trial], data: Dataset, measure: Measure, repeats: int) -> list[Done]:
    """Fit the baselines of trials on the same features, together, on each fold with each seed."""
    views = trials[0].spec.views
    X = data.X(trials[0].spec.pool, trials[0].layers, views)
    specs = [trial.spec for trial in trials if isinstance(trial.spec, SklearnSpec)]
    jobs = [spec.model_copy(update={"seed": spec.seed + number}) for spec in specs for number in range(repeats)]
    found = score_all(jobs, X, measure, data.classes, partial(shared, data, X, views=views))
    done = []
    for i, trial in enumerate(trials):
        mine = found[i * repeats : (i + 1) * repeats]
        folds = [fold for job in mine for fold in job]
        problem = next((fold.problem for fold in folds if fold.problem), "")
        by_seed = [] if problem else [measure.joined([fold.outcomes for fold in job]) for job in mine]
        told = () if problem else (_score(measure, by_seed),)
        seconds = round(sum(fold.seconds for fold in folds), 3)
        done.append((Record(trial.key, told, not problem, seconds, problem), by_seed))
    return done


@dataclass(frozen=True)
class Scored:
    """What a baseline says of the rows of a fold that count, and its seconds; or the problem, and outcomes of no row."""

    outcomes: Outcomes
    seconds: float
    problem: str = ""


def score_all(
    specs: Sequence[SklearnSpec],
    X: NDArray[np.float32],
    measure: Measure,
    classes: Sequence[str],
    to_fit: Callable[[NDArray[np.int64]], Shared],
) -> list[list[Scored]]:
    """Fit each baseline on the first rows of each fold, as ``to_fit`` gives them, and score it on the others: for each its folds.

    Those that differ in a seed that changes nothing are fitted once; the seconds are the first one's.
    """
    keys = [repr(_seedless(spec)) for spec in specs]
    once = {key: specs[keys.index(key)] for key in keys}
    scored: dict[str, list[Scored]] = {key: [] for key in once}
    for (train, _), rows in zip(measure.folds, measure.scored, strict=True):
        fits = fit_all(list(once.values()), to_fit(train))
        for (key, spec), fit in zip(once.items(), fits, strict=True):
            try:
                logs = SklearnHead(spec, classes).take(fit).tried(X[rows])
                scored[key].append(Scored(Outcomes.of(measure.y[rows], logs, measure.whole), fit.seconds))
            except HeadError as error:
                scored[key].append(Scored(Outcomes.empty(0), fit.seconds, str(error)))
    again = {key: [replace(fold, seconds=0.0) for fold in each] for key, each in scored.items()}
    return [(scored if keys.index(key) == i else again)[key] for i, key in enumerate(keys)]


def _seedless(spec: SklearnSpec) -> SklearnSpec:
    """The spec with seed 0 where the estimator draws nothing from it."""
    draws = "random_state" in classifier(spec).get_params(deep=False) and "random_state" not in spec.params
    return spec if draws and not on_path(spec) else spec.model_copy(update={"seed": 0})
