"""Many variants of one head, scored on validation: each is recorded when it is done, so that none is trained twice."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from threading import Lock
from time import perf_counter

from cache.errors import DataError
from stages.heads.dataset import Dataset
from stages.heads.spec import KerasSpec, SklearnSpec
from stages.heads.strengths import on_path
from stages.heads.task import HeadTask
from stages.heads.tuned_spec import FinetuneSpec
from stages.progress import Progress, counted
from stages.sweeps.checkpoints import Checkpoints
from stages.sweeps.group import Group
from stages.sweeps.ledger import Ledger, Record
from stages.sweeps.measure import Measure
from stages.sweeps.optimism import Corrected, corrected
from stages.sweeps.outcomes import OutcomeFiles
from stages.sweeps.scoring import Done, score_baselines, score_own
from stages.sweeps.spec import SweepSpec
from stages.sweeps.trials import Trial, leader_lines
from stages.sweeps.tuned import score_tuned
from stages.training.source import Source
from stages.training.spec import DenseSpec, Pool
from stages.training.stack import Shape
from stages.training.together import by_shape

LEADERS = 5
# Variants that are trained to their end before the next begin: what is in memory at once.
WAVE_BYTES = 100_000_000
WAVE = 128
# Of those whose time nobody knows beforehand, as many as take about so long: what a kill costs.
AT_FIRST = 8
SECONDS_A_WAVE = 20.0


@dataclass
class Sweep:
    """A sweep at work: trains what the ledger lacks, and shows who leads."""

    spec: SweepSpec
    data: Mapping[str, Dataset]  # of each base
    ledger: Ledger
    progress: Progress
    name: str
    home: Path = Path()
    task: Callable[[Trial], HeadTask] | None = None  # of a trial that is fine-tuned

    def __post_init__(self) -> None:
        self.metric = self.ledger.metric  # that ranks
        self.checkpoints = Checkpoints(self.ledger.path.parent / "under_way", self.metric)
        self.outcomes = OutcomeFiles(self.ledger.path.parent / "outcomes")
        self._measures: dict[Dataset, Measure] = {}
        self._sources: dict[tuple[str, tuple[str, ...], Pool, bool], Source] = {}
        self._making = Lock()

    def announce(self, trials: Sequence[Trial]) -> None:
        """Say how many trials there are, and how many of them are known."""
        begun = {trial.key for trial in trials if self.checkpoints.epochs(trial.key)}
        self.remeasure(trials)
        trained = {key for key, record in self.ledger.items() if not record.failed and self.ledger.knows(key)} - begun
        known = sum(trial.key in trained for trial in trials)
        asked = self.spec.trials or prod(len(values) for values in self.spec.grid.values() if isinstance(values, list))
        self.progress.say(
            f"sweep {self.name}: {counted(len(trials), 'trial')}"
            + (f" of the {asked} asked for, as the others are the same" if asked > len(trials) else "")
            + (f", {known} of them known before" if known else "")
            + (f", {len(begun)} under way" if begun else "")
        )

    def remeasure(self, trials: Sequence[Trial]) -> None:
        """Score trials that were ranked by another metric before, or without groups or folds, from what was kept of them: after their last
        epoch alone. What is known of trials that began with other heads is forgotten.
        """
        self._forget_others(trials)
        for trial in trials:
            record = self.ledger.get(trial.key)
            if record is None or not record.scored:
                continue
            measure, last = self.measure(self.data[trial.base]), record.scores[-1]
            if last.has(self.metric) and measure.is_of(last):
                continue
            found = self.outcomes.read(trial.key, len(record.scores))
            if found and measure.told(found):
                last = measure.with_interval(measure.score(found), found)
            self.ledger[trial.key] = replace(record, scores=(*record.scores[:-1], measure.by_groups(last)))

    def _forget_others(self, trials: Sequence[Trial]) -> None:
        """A head that was trained again may be another under the same key. Trials of an earlier version, which did not note with which
        one they began, are taken to have begun with the one that is there, and held to it from now on.
        """
        noted = []
        for trial in trials:
            record = self.ledger.get(trial.key)
            if record and trial.begun and not record.begun:
                noted.append(replace(record, begun=trial.begun))
            elif record and record.begun != trial.begun:
                del self.ledger[trial.key]
        self.ledger.add(noted)

    def run(self, trials: Sequence[Trial]) -> None:
        """Train until every trial has its record."""
        todo = [trial for trial in trials if not self.ledger.complete(trial.key)]
        with self.progress.task(f"Sweep {self.name}", len(todo), "trials") as advance:
            self.train(todo, trials, advance)

    def train(self, todo: Sequence[Trial], shown: Sequence[Trial], advance: Callable[[int], None]) -> None:
        """Train the trials ``todo`` to their end, and show who leads of those ``shown``."""
        for group in self.groups(todo):
            self._sources.clear()
            for wave in self.waves(group):
                try:
                    self._train(wave)
                except DataError as error:  # memory does not hold the features
                    self.ledger.add([Record(trial.key, (), False, 0.0, str(error)) for trial in wave])
                advance(len(wave))
                self.show(shown)

    def _train(self, wave: Sequence[Trial]) -> None:
        if isinstance(wave[0].spec, DenseSpec):
            self.advance(self.begin(wave))
            return
        data, repeats = self.data[wave[0].base], self.spec.repeats
        measure = self.measure(data)
        if isinstance(wave[0].spec, SklearnSpec):
            done = score_baselines(wave, data, measure, repeats)
        elif isinstance(wave[0].spec, FinetuneSpec):
            done = [score_tuned(trial, self._task(trial), data, measure, repeats, self.progress) for trial in wave]
        else:
            run = (data, measure, repeats, self.home, self.progress, self.name)
            done = [score_own(trial, *run) for trial in wave]
        self._keep(done)

    def groups(self, trials: Sequence[Trial]) -> list[list[Trial]]:
        """Trials that are trained together: dense ones of one shape that have come as far, baselines on the same features."""
        by_features: dict[tuple[str, tuple[str, ...], Pool, bool, str, int], list[Trial]] = {}
        for trial in trials:
            features = (trial.base, trial.layers, trial.spec.pool, trial.spec.views)
            by_features.setdefault((*features, trial.spec.kind, self.checkpoints.epochs(trial.key)), []).append(trial)
        found = []
        for group in by_features.values():
            specs = [trial.spec for trial in group if isinstance(trial.spec, DenseSpec)]
            classes = len(self.data[group[0].base].classes)
            places = by_shape(specs, self._inputs(group[0]), classes) if specs else [list(range(len(group)))]
            found += [[group[i] for i in each] for each in places]
        return found

    def waves(self, group: list[Trial]) -> Iterator[list[Trial]]:
        """The trials of a group in the portions in which they are recorded: what a kill costs at most."""
        if isinstance(group[0].spec, DenseSpec):
            yield from _cut(group, min(WAVE, max(1, WAVE_BYTES // max(self.bytes(trial) for trial in group))))
            return
        if isinstance(group[0].spec, KerasSpec | FinetuneSpec):
            yield from ([trial] for trial in group)
            return
        quick = {trial.key for trial in group if isinstance(trial.spec, SklearnSpec) and on_path(trial.spec)}
        yield from _cut([trial for trial in group if trial.key in quick], WAVE)
        rest = [trial for trial in group if trial.key not in quick]
        size = AT_FIRST
        while rest:
            start = perf_counter()
            yield rest[:size]
            rest = rest[size:]
            seconds = perf_counter() - start
            size = min(WAVE, 2 * size) if seconds < SECONDS_A_WAVE / 2 else max(1, int(size * SECONDS_A_WAVE / seconds))

    def bytes(self, trial: Trial) -> int:
        """Weights and slots of all members of a dense trial."""
        assert isinstance(trial.spec, DenseSpec)
        shape = Shape.of(trial.spec, self._inputs(trial), len(self.data[trial.base].classes))
        return shape.bytes * self.spec.repeats * (self.spec.cv or 1)

    def begin(self, trials: Sequence[Trial]) -> Group:
        """Dense trials of one shape, from where they had come to."""
        data, source = self.data[trials[0].base], self._source(trials[0])
        return Group(trials, self.measure(data), self.spec.repeats, source, self.checkpoints, self.progress.say)

    def advance(self, group: Group, epochs: int | None = None) -> None:
        """Train a group for so many epochs in all, or to the end, and record what is new; trials that are complete before."""
        group.advance(epochs, lambda: self._note(group, complete=True))
        self._note(group)

    def _task(self, trial: Trial) -> HeadTask:
        """The task of a trial that is fine-tuned, which keeps beside the checkpoints how far it has come."""
        assert self.task is not None
        return replace(self.task(trial), folder=self.checkpoints.folder)

    def _note(self, group: Group, complete: bool = False) -> None:
        new = [record for record in group.records() if not self.ledger.complete(record.key)]
        records = [record for record in new if record.complete or not complete]
        self._keep([(record, group.outcomes(record.key)) for record in records])
        self.checkpoints.remove(record.key for record in records if record.complete)

    def _keep(self, done: Sequence[Done]) -> None:
        """Outcomes first: a line of the ledger without them would stand for a trial of an earlier version."""
        for record, by_seed in done:
            if record.scored and by_seed:
                self.outcomes.write(record.key, len(record.scores), by_seed)
        self.ledger.add([record for record, _ in done])

    def corrected(self, ranked: Sequence[tuple[Trial, Record]]) -> Corrected | None:
        """The score of the winner, the first of all that are ``ranked``, without the optimism of having been chosen; None where nothing
        was chosen, or where the outcomes of a trial were not kept.

        Trials that were dropped on the way have a part in it with what they had by then.
        """
        scored = [(trial, record) for trial, record in ranked if record.scored]
        plain = scored[0][1].scores[-1].by(self.metric)
        found = self.outcomes.read_all((trial.key, len(record.scores)) for trial, record in scored)
        measure = self.measure(self.data[scored[0][0].base])
        if found is None or plain is None or plain.value is None or not all(map(measure.told, found)):
            return None
        of = (measure.labels, measure.n_classes, self.spec.seed, measure.groups, measure.shared)
        best = corrected(self.metric, found, plain.value, *of)
        return best if best is None or measure.has_interval else best._replace(interval=None)

    def show(self, trials: Sequence[Trial], title: str = "") -> None:
        """Show who leads, in the place of who led before."""
        lines = leader_lines(self.ranked(trials)[:LEADERS], self.metric)
        self.progress.show([f"leaders of sweep {self.name}{title}:", *(f"  {line}" for line in lines)])

    def ranked(self, trials: Sequence[Trial]) -> list[tuple[Trial, Record]]:
        """The trials that have a record, the best first, by the last score of each."""
        found = [(trial, self.ledger[trial.key]) for trial in trials if trial.key in self.ledger]
        return sorted(found, key=lambda pair: pair[1].ranking(self.metric))

    def measure(self, data: Dataset) -> Measure:
        """How trials on a base are measured."""
        if data not in self._measures:
            self._measures[data] = Measure.of(self.spec, data, self.metric)
        return self._measures[data]

    def _inputs(self, trial: Trial) -> int:
        return self.data[trial.base].width(trial.spec.pool, trial.layers)

    def _source(self, trial: Trial) -> Source:
        """Rows of the features of a trial, which all trials on them share."""
        features = (trial.base, trial.layers, trial.spec.pool, trial.spec.views)
        with self._making:
            if features not in self._sources:
                self._sources[features] = self.data[trial.base].source(trial.spec.pool, trial.layers, trial.spec.views)
            return self._sources[features]


def _cut(trials: list[Trial], size: int) -> list[list[Trial]]:
    return [trials[start : start + size] for start in range(0, len(trials), size)]
