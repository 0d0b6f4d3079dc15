"""Many variants of one head, scored on validation: each is recorded when it is done, so that none is trained twice.

Dense variants of one shape are trained together. Successive halving (K. Jamieson, A. Talwalkar, AISTATS 2016) starts all of
them, and after each rung of epochs goes on with the best.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import DataError, DivergedError, HeadError
from stages.bases.backend import load_keras
from stages.heads.dataset import Dataset
from stages.heads.spec import KerasSpec, SklearnSpec
from stages.heads.strengths import on_path
from stages.progress import Progress
from stages.sweeps.checkpoints import Checkpoints
from stages.sweeps.folds import Fold, cross_validation
from stages.sweeps.group import Group, mean_score
from stages.sweeps.ledger import Ledger, Record
from stages.sweeps.spec import SweepSpec
from stages.sweeps.trials import Trial, counted, leader_lines, suggested
from stages.training.spec import DenseSpec, Pool
from stages.training.stack import Shape
from stages.training.together import Source, by_shape

LEADERS = 5
# Variants that are trained to their end before the next begin: what is in memory at once.
WAVE_BYTES = 100_000_000
WAVE = 128
# Of those whose time nobody knows beforehand, as many as take about so long: what a kill costs.
AT_FIRST = 8
SECONDS_A_WAVE = 20.0
# Weights and slots that stay in memory from rung to rung; those beyond wait on the disk.
HELD_BYTES = 2_000_000_000
# Trials that are asked for before any of them is told: enough to train together.
ASKED_AT_ONCE = 8


class Sweep:
    """A sweep at work: trains what the ledger lacks, and shows who leads."""

    def __init__(
        self,
        spec: SweepSpec,
        data: Mapping[str, Dataset],
        ledger: Ledger,
        progress: Progress,
        name: str,
        home: Path = Path(),
    ) -> None:
        self.spec, self.data, self.ledger, self.progress = spec, data, ledger, progress
        self.name, self.home = name, home
        self.checkpoints = Checkpoints(ledger.path.parent / "under_way")
        self._sources: dict[tuple[str, tuple[str, ...], Pool], Source] = {}
        self._making = Lock()

    def run(self, trials: Sequence[Trial]) -> None:
        """Train until every trial has its record; by halving, until all but the best are dropped."""
        begun = {trial.key for trial in trials if self.checkpoints.epochs(trial.key)}
        known = sum(self.ledger.knows(trial.key) and trial.key not in begun for trial in trials)
        asked = self.spec.trials or prod(len(values) for values in self.spec.grid.values() if isinstance(values, list))
        self.progress.say(
            f"sweep {self.name}: {counted(len(trials), 'trial')}"
            + (f" of the {asked} asked for, as the others are the same" if asked > len(trials) else "")
            + (f", {known} of them known before" if known else "")
            + (f", {len(begun)} under way" if begun else "")
        )
        if self.spec.strategy == "halving":
            self._halve(trials)
        else:
            todo = [trial for trial in trials if not self.ledger.complete(trial.key)]
            with self.progress.task(f"Sweep {self.name}", len(todo), "trials") as advance:
                self._train_all(todo, trials, advance)

    def _train_all(self, todo: Sequence[Trial], shown: Sequence[Trial], advance: Callable[[int], None]) -> None:
        for group in _stackable(self, todo):
            self._sources.clear()
            for wave in self._waves(group):
                self._train(wave)
                advance(len(wave))
                self._show(shown)

    def search(self, variant: Callable[[dict[str, Any]], Trial]) -> list[Trial]:
        """Ask Optuna's tree-structured Parzen estimator for a batch of trials, train them, tell it; until there are enough.

        J. Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NIPS 2011. It asks for the same trials in a run that goes
        on where another was killed, as it is told the same. Raises HeadError where Optuna is not installed.
        """
        try:
            import optuna
        except ImportError as error:
            raise HeadError(
                f'strategy "tpe": expected the package optuna, found none ({error}); install headstart[tpe]'
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=self.spec.seed, constant_liar=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        trials: dict[str, Trial] = {}
        wanted = self.spec.trials or 0
        self.progress.say(f"sweep {self.name}: {counted(wanted, 'trial')}, asked for {ASKED_AT_ONCE} at a time")
        with self.progress.task(f"Sweep {self.name}", wanted, "trials") as advance:
            for start in range(0, wanted, ASKED_AT_ONCE):
                asked = [study.ask() for _ in range(min(ASKED_AT_ONCE, wanted - start))]
                batch = [
                    variant({name: suggested(each, name, self.spec.grid[name]) for name in self.spec.grid})
                    for each in asked
                ]
                trials |= {trial.key: trial for trial in batch}
                todo = {trial.key: trial for trial in batch if not self.ledger.complete(trial.key)}
                advance(len(batch) - len(todo))
                self._train_all(list(todo.values()), list(trials.values()), advance)
                for each, trial in zip(asked, batch, strict=True):
                    record = self.ledger[trial.key]
                    if record.scores and not record.problem:
                        study.tell(each, record.scores[-1].accuracy)
                    else:
                        study.tell(each, state=optuna.trial.TrialState.FAIL)
        return list(trials.values())

    def _waves(self, group: list[Trial]) -> Iterator[list[Trial]]:
        if isinstance(group[0].spec, DenseSpec):
            yield from _cut(group, min(WAVE, max(1, WAVE_BYTES // max(self._bytes(trial) for trial in group))))
            return
        if isinstance(group[0].spec, KerasSpec):
            yield from _cut(group, 1)
            return
        on_paths = [isinstance(trial.spec, SklearnSpec) and on_path(trial.spec) for trial in group]
        yield from _cut([trial for trial, quick in zip(group, on_paths, strict=True) if quick], WAVE)
        rest = [trial for trial, quick in zip(group, on_paths, strict=True) if not quick]
        size = AT_FIRST
        while rest:
            start = perf_counter()
            yield rest[:size]
            rest = rest[size:]
            seconds = perf_counter() - start
            size = min(WAVE, 2 * size) if seconds < SECONDS_A_WAVE / 2 else max(1, int(size * SECONDS_A_WAVE / seconds))

    def _bytes(self, trial: Trial) -> int:
        """Weights and slots of all members of a dense trial."""
        assert isinstance(trial.spec, DenseSpec)
        shape = Shape.of(trial.spec, self._inputs(trial), len(self._dataset(trial).classes))
        return shape.bytes * self.spec.repeats * (self.spec.cv or 1)

    def _train(self, wave: Sequence[Trial]) -> None:
        try:
            if isinstance(wave[0].spec, SklearnSpec):
                self.ledger.add(self._baselines(wave))
            elif isinstance(wave[0].spec, KerasSpec):
                self.ledger.add([self._own(trial, trial.spec) for trial in wave if isinstance(trial.spec, KerasSpec)])
            else:
                group = self._begin(wave)
                group.advance(None, self._note_complete)
                self._note(group)
        except DataError as error:  # memory does not hold the features
            self.ledger.add([Record(trial.key, (), False, 0.0, str(error)) for trial in wave])

    def _begin(self, trials: Sequence[Trial]) -> Group:
        data, source = self._dataset(trials[0]), self._source(trials[0])
        folds, said = self.folds(data), self.progress.say
        return Group(trials, folds, self.spec.repeats, source, len(data.classes), self.checkpoints, said)

    def _note_complete(self, group: Group) -> None:
        self._note(group, complete=True)

    def _note(self, group: Group, complete: bool = False) -> None:
        """Record what is new of a group; or of the trials alone that are complete."""
        new = [record for record in group.records() if not self.ledger.complete(record.key)]
        records = [record for record in new if record.complete or not complete]
        self.ledger.add(records)
        self.checkpoints.remove(record.key for record in records if record.complete)

    def _halve(self, trials: Sequence[Trial]) -> None:
        alive = list(trials)
        longest = max(trial.spec.epochs for trial in trials if isinstance(trial.spec, DenseSpec))
        held: list[Group] = []
        # Two groups at once: one compiles, which takes one core, while the other trains. Each stream takes all the memory there is.
        whole = all(self._dataset(trial).fits(trial.spec.pool, trial.layers) for trial in trials)
        ends = rungs(self.spec, longest)
        for rung, epochs in enumerate(ends, 1):
            under_way = {trial.key for group in held for trial in group.trials}
            lacking = [t for t in alive if not self.ledger.covers(t.key, epochs) and t.key not in under_way]
            where = f"rung {rung} of {len(ends)}, {counted(len(alive), 'trial')}, {counted(epochs, 'epoch')}"
            held = self._climb(held, lacking, epochs, f"Sweep {self.name}: {where}", 2 if whole else 1)
            if epochs == longest:
                return
            alive = sorted(alive, key=lambda trial: self.ledger[trial.key].after(epochs).ranking)
            alive = alive[: -(-len(alive) // self.spec.factor)]
            kept = {trial.key for trial in alive}
            self.checkpoints.remove(trial.key for trial in trials if trial.key not in kept)
            for group in held:
                group.keep(kept)
            held = [group for group in held if group.alive]
            self._show(alive, f", {len(alive)} of {len(trials)} trials after rung {rung} of {len(ends)}")

    def _climb(
        self, held: Sequence[Group], trials: Sequence[Trial], epochs: int, what: str, threads: int
    ) -> list[Group]:
        """Train the groups that are held, and the trials in groups of their own, to a rung; those that stay in memory."""
        room = HELD_BYTES - sum(group.bytes for group in held)
        jobs: list[tuple[Group | list[Trial], bool]] = [(group, True) for group in held]
        for wave in [wave for group in _stackable(self, trials) for wave in self._waves(group)]:
            room -= sum(map(self._bytes, wave))
            jobs.append((wave, room >= 0))

        def climb(each: Group | list[Trial], hold: bool) -> Group | None:
            group = each if isinstance(each, Group) else self._begin(each)
            group.advance(epochs, self._note_complete)
            self._note(group)
            return group if hold or not group.write() else None

        load_keras()  # not by two threads at once
        found = []
        with self.progress.task(what, len(jobs), "groups") as advance, ThreadPoolExecutor(threads) as executor:
            for group in executor.map(lambda job: climb(*job), jobs):
                found.append(group)
                advance(1)
        return [group for group in found if group is not None]

    def _show(self, trials: Sequence[Trial], title: str = "") -> None:
        lines = leader_lines(self.ranked(trials)[:LEADERS])
        self.progress.show([f"leaders of sweep {self.name}{title}:", *(f"  {line}" for line in lines)])

    def ranked(self, trials: Sequence[Trial]) -> list[tuple[Trial, Record]]:
        """The trials that have a record, the best first, by the last score of each."""
        found = [(trial, self.ledger[trial.key]) for trial in trials if trial.key in self.ledger]
        return sorted(found, key=lambda pair: pair[1].ranking)

    def _dataset(self, trial: Trial) -> Dataset:
        return self.data[trial.base]

    def _inputs(self, trial: Trial) -> int:
        return self._dataset(trial).width(trial.spec.pool, trial.layers)

    def _source(self, trial: Trial) -> Source:
        """Rows of the features of a trial, which all trials on them share."""
        features = (trial.base, trial.layers, trial.spec.pool)
        with self._making:
            if features not in self._sources:
                self._sources[features] = self._dataset(trial).source(trial.spec.pool, trial.layers)
            return self._sources[features]

    def _features(self, trial: Trial) -> NDArray[np.float32]:
        return self._dataset(trial).X(trial.spec.pool, trial.layers)

    def folds(self, data: Dataset) -> list[Fold]:
        """Positions of the rows to train on and to score; folds are drawn by content from train and validation together."""
        if self.spec.cv is None:
            return [(data.rows("train"), data.rows("validation"))]
        return cross_validation(data, self.spec.cv, self.spec.seed)

    def _own(self, trial: Trial, spec: KerasSpec) -> Record:
        from stages.heads.own import KerasHead

        data, X = self._dataset(trial), self._features(trial)
        folds = self.folds(data)
        by_seed, seconds = [], 0.0
        for number in range(self.spec.repeats):
            seeded = spec.model_copy(update={"seed": spec.seed + number})
            scores = []
            for train, held in folds:
                head = KerasHead(seeded, data.classes, self.home)
                try:
                    head.fit(X[train], data.y[train], X[held], data.y[held], self.progress, self.name)
                except DivergedError as error:
                    return Record(trial.key, (), True, seconds, str(error))
                except HeadError as error:
                    return Record(trial.key, (), False, seconds, str(error))
                best = head.history_[(head.best_epoch_ or 1) - 1]
                scores.append((best["val_accuracy"], best["val_loss"]))
                seconds += head.seconds_
            accuracy, loss = np.average(scores, axis=0, weights=[len(held) for _, held in folds])
            by_seed.append((float(accuracy), float(loss)))
        return Record(trial.key, (mean_score(by_seed, folds),), True, round(seconds, 3))

    def _baselines(self, wave: Sequence[Trial]) -> list[Record]:
        from stages.heads.baselines import score_all

        data, X = self._dataset(wave[0]), self._features(wave[0])
        specs = [trial.spec for trial in wave if isinstance(trial.spec, SklearnSpec)]
        folds, repeats = self.folds(data), self.spec.repeats
        jobs = [spec.model_copy(update={"seed": spec.seed + r}) for spec in specs for r in range(repeats)]
        found = score_all(jobs, X, data.y, folds, data.classes)
        records = []
        for i, trial in enumerate(wave):
            mine = found[i * repeats : (i + 1) * repeats]
            problem = next((each.problem for each in mine if each.problem), "")
            scores = () if problem else (mean_score([(each.accuracy, each.loss) for each in mine], folds),)
            seconds = round(sum(each.seconds for each in mine), 3)
            records.append(Record(trial.key, scores, not problem, seconds, problem))
        return records


def _cut(trials: list[Trial], size: int) -> list[list[Trial]]:
    return [trials[start : start + size] for start in range(0, len(trials), size)]


def rungs(spec: SweepSpec, longest: int) -> list[int]:
    """Epochs at which the worst are dropped, and those of the end."""
    found = []
    epochs = spec.min_epochs
    while epochs < longest:
        found.append(epochs)
        epochs *= spec.factor
    return [*found, longest]


def _groups(trials: Sequence[Trial], checkpoints: Checkpoints) -> list[list[Trial]]:
    """Trials by what they are trained on, by kind, and by how far they had come."""
    groups: dict[tuple[str, tuple[str, ...], Pool, str, int], list[Trial]] = {}
    for trial in trials:
        features = (trial.base, trial.layers, trial.spec.pool)
        groups.setdefault((*features, trial.spec.kind, checkpoints.epochs(trial.key)), []).append(trial)
    return list(groups.values())


def _stackable(sweep: Sweep, trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials that are trained together: dense ones of one shape, baselines on the same features."""
    found = []
    for group in _groups(trials, sweep.checkpoints):
        if not isinstance(group[0].spec, DenseSpec):
            found.append(group)
            continue
        specs = [trial.spec for trial in group if isinstance(trial.spec, DenseSpec)]
        inputs, classes = sweep._inputs(group[0]), len(sweep._dataset(group[0]).classes)
        found += [[group[i] for i in places] for places in by_shape(specs, inputs, classes)]
    return found
