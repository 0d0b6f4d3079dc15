"""Many variants of one head, scored on validation: each is recorded when it is done, so that none is trained twice.

Dense variants of one shape are trained together. Successive halving (K. Jamieson, A. Talwalkar, AISTATS 2016) starts all of
them, and after each rung of epochs goes on with the best.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import DataError, HeadError
from cache.files import digest_json
from stages.checkpoints import Checkpoints
from stages.dataset import Dataset
from stages.group import Fold, Group, mean_score
from stages.ledger import Ledger, Record
from stages.paths import on_path
from stages.progress import Progress
from stages.specs import DenseSpec, KerasSpec, Pool, SklearnSpec, SweepSpec
from stages.stack import Shape
from stages.together import by_shape
from stages.trials import Trial, leader_lines, suggested

SECONDS_BETWEEN_LEADERS = 5.0
LEADERS = 5
# Variants that are trained to their end before the next begin: what a kill costs, and what is in memory.
WAVE_BYTES = 100_000_000
WAVE = 128
# Of those whose time nobody knows beforehand, as many as take about so long.
AT_FIRST = 8
SECONDS_A_WAVE = 20.0
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
        self._said = perf_counter()
        self._told = False

    def run(self, trials: Sequence[Trial]) -> None:
        """Train until every trial has its record; by halving, until all but the best are dropped."""
        known = sum(trial.key in self.ledger for trial in trials)
        if self.spec.strategy != "tpe" or not self._told:
            total = self.spec.trials if self.spec.strategy == "tpe" else len(trials)
            under_way = sum(self.checkpoints.epochs(trial.key) > 0 for trial in trials)
            self.progress.say(
                f"sweep {self.name}: {total} trials"
                + (f", {known} of them known before" if known else "")
                + (f", {under_way} under way" if under_way else "")
            )
        self._told = True
        if self.spec.strategy == "halving":
            self._halve(trials)
            return
        todo = [trial for trial in trials if not self.ledger.complete(trial.key)]
        with self.progress.task(f"Sweep {self.name}", len(todo), "trials") as advance:
            for group in _stackable(self, todo):
                for wave in self._waves(group):
                    self._train(wave)
                    advance(len(wave))
                    self._show(trials)

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
        for start in range(0, wanted, ASKED_AT_ONCE):
            asked = [study.ask() for _ in range(min(ASKED_AT_ONCE, wanted - start))]
            batch = [
                variant({name: suggested(each, name, self.spec.grid[name]) for name in self.spec.grid})
                for each in asked
            ]
            trials |= {trial.key: trial for trial in batch}
            self.run(list({trial.key: trial for trial in batch}.values()))
            for each, trial in zip(asked, batch, strict=True):
                record = self.ledger[trial.key]
                if record.scores and not record.problem:
                    study.tell(each, record.scores[-1].accuracy)
                else:
                    study.tell(each, state=optuna.trial.TrialState.FAIL)
            self._show(list(trials.values()))
        return list(trials.values())

    def _waves(self, group: list[Trial]) -> Iterator[list[Trial]]:
        if isinstance(group[0].spec, DenseSpec):
            inputs, classes = self._inputs(group[0]), len(self._dataset(group[0]).classes)
            members = self.spec.repeats * (self.spec.cv or 1)
            largest = max(Shape.of(t.spec, inputs, classes).bytes for t in group if isinstance(t.spec, DenseSpec))
            yield from _cut(group, min(WAVE, max(1, WAVE_BYTES // (largest * members))))
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

    def _train(self, wave: Sequence[Trial]) -> None:
        try:
            self._try(wave)
        except DataError as error:  # memory does not hold the features; it may, another time
            self.ledger.add([Record(trial.key, (), False, 0.0, str(error)) for trial in wave])

    def _try(self, wave: Sequence[Trial]) -> None:
        if isinstance(wave[0].spec, SklearnSpec):
            self.ledger.add(self._baselines(wave))
            return
        if isinstance(wave[0].spec, KerasSpec):
            for trial in wave:
                assert isinstance(trial.spec, KerasSpec)
                self.ledger.add([self._own(trial, trial.spec)])
            return
        group = self._begin(wave)
        group.advance(None)
        self._note([group])

    def _begin(self, trials: Sequence[Trial]) -> Group:
        data, spec = self._dataset(trials[0]), trials[0].spec
        source = data.source(spec.pool, trials[0].layers)
        folds, said = self.folds(data), self.progress.say
        return Group(trials, folds, self.spec.repeats, source, len(data.classes), self.checkpoints, said)

    def _note(self, groups: Sequence[Group]) -> None:
        records = [record for group in groups for record in group.records()]
        self.ledger.add(records)
        self.checkpoints.remove(record.key for record in records if record.complete)

    def _halve(self, trials: Sequence[Trial]) -> None:
        alive = list(trials)
        longest = max(trial.spec.epochs for trial in trials if isinstance(trial.spec, DenseSpec))
        groups: list[Group] = []
        for rung, epochs in enumerate(rungs(self.spec, longest)):
            lacking = [t for t in alive if not (t.key in self.ledger and self.ledger[t.key].covers(epochs))]
            under_way = {trial.key for group in groups for trial in group.trials}
            groups += [self._begin(each) for each in _stackable(self, [t for t in lacking if t.key not in under_way])]
            what = f"Sweep {self.name}: rung {rung + 1}, {len(alive)} trials, {epochs} epochs"
            # Two groups at once: one compiles, which takes one core, while the other trains.
            with self.progress.task(what, len(groups), "groups") as advance, ThreadPoolExecutor(2) as threads:
                for _ in threads.map(Group.advance, groups, repeat(epochs)):
                    advance(1)
                self._note(groups)
            if groups:
                self._show(trials, always=True)
            if epochs < longest:
                alive = sorted(alive, key=lambda trial: self.ledger[trial.key].after(epochs).ranking)
                alive = alive[: -(-len(alive) // self.spec.factor)]
                kept = {trial.key for trial in alive}
                self.checkpoints.remove(trial.key for trial in trials if trial.key not in kept)
                for group in groups:
                    group.keep(kept)
                groups = [group for group in groups if group.alive]

    def _show(self, trials: Sequence[Trial], always: bool = False) -> None:
        if not always and perf_counter() - self._said < SECONDS_BETWEEN_LEADERS:
            return
        self._said = perf_counter()
        for line in leader_lines(self.ranked(trials)[:LEADERS]):
            self.progress.say(f"  {line}")

    def ranked(self, trials: Sequence[Trial]) -> list[tuple[Trial, Record]]:
        """The trials that have a record, the best first, by the last score of each."""
        found = [(trial, self.ledger[trial.key]) for trial in trials if trial.key in self.ledger]
        return sorted(found, key=lambda pair: pair[1].ranking)

    def _dataset(self, trial: Trial) -> Dataset:
        return self.data[trial.base]

    def _inputs(self, trial: Trial) -> int:
        return self._dataset(trial).width(trial.spec.pool, trial.layers)

    def _features(self, trial: Trial) -> NDArray[np.float32]:
        return self._dataset(trial).X(trial.spec.pool, trial.layers)

    def folds(self, data: Dataset) -> list[Fold]:
        """Positions of the rows to train on and to score; folds are drawn by content from train and validation together."""
        if self.spec.cv is None:
            return [(data.rows("train"), data.rows("validation"))]
        return cross_validation(data, self.spec.cv, self.spec.seed)

    def _own(self, trial: Trial, spec: KerasSpec) -> Record:
        from stages.own import KerasHead

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
                except HeadError as error:
                    return Record(trial.key, (), True, seconds, str(error))
                best = head.history_[(head.best_epoch_ or 1) - 1]
                scores.append((best["val_accuracy"], best["val_loss"]))
                seconds += head.seconds_
            accuracy, loss = np.average(scores, axis=0, weights=[len(held) for _, held in folds])
            by_seed.append((float(accuracy), float(loss)))
        return Record(trial.key, (mean_score(by_seed, folds),), True, round(seconds, 3))

    def _baselines(self, wave: Sequence[Trial]) -> list[Record]:
        from stages.baselines import score_all

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
            records.append(Record(trial.key, scores, True, round(sum(each.seconds for each in mine), 3), problem))
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


def cross_validation(data: Dataset, folds: int, seed: int) -> list[Fold]:
    """Positions to train on and to score for each fold of train and validation; copies of an image stay together.

    Folds are drawn from each image's content digest and the seed, stratified by class. Raises DataError for fewer images than
    folds.
    """
    rows = np.sort(np.concatenate([data.rows("train"), data.rows("validation")]))
    label_of: dict[str, int] = {}
    for row in rows:
        label_of.setdefault(data.records[row].sha256, int(data.y[row]))
    if len(label_of) < folds:
        raise DataError(
            f"cv = {folds}: expected as many images in train and validation at least, found {len(label_of)}"
        )
    # Class after class, each in an order of chance, dealt out like cards.
    dealt = sorted(label_of, key=lambda digest: (label_of[digest], digest_json([seed, digest])))
    fold_of = {digest: place % folds for place, digest in enumerate(dealt)}
    which = np.array([fold_of[data.records[row].sha256] for row in rows])
    return [(rows[which != fold], rows[which == fold]) for fold in range(folds)]
