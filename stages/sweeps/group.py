"""Trials of a sweep that are trained together: for each of them as many members as seeds and folds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from stages.sweeps.checkpoints import Checkpoints, Kept
from stages.sweeps.ledger import Record, Score
from stages.sweeps.measure import Measure
from stages.sweeps.trials import Trial
from stages.training.member import Member
from stages.training.outcomes import Outcomes
from stages.training.source import Source
from stages.training.spec import DenseSpec
from stages.training.together import Training

# What a kill costs; and where writing takes long, it takes this share of the time at most.
SECONDS_BETWEEN_CHECKPOINTS = 20.0
SHARE_FOR_CHECKPOINTS = 0.05


@dataclass
class Group:
    """Dense trials of one shape on the same features, from where their checkpoints have them."""

    trials: Sequence[Trial]
    measure: Measure
    repeats: int
    source: Source
    checkpoints: Checkpoints
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        members: list[Member] = []
        for trial in self.trials:
            assert isinstance(trial.spec, DenseSpec)
            for number in range(self.repeats):
                spec = trial.spec.model_copy(update={"seed": trial.spec.seed + number})
                pairs = zip(self.measure.folds, self.measure.scored, strict=True)
                # The folds of a trial take one epoch together: each its best would be chosen by the very rows that it is scored on.
                choice = len(members)
                members += [Member(spec, *fold, scored=scored, choice=choice) for fold, scored in pairs]
        kept = [self.checkpoints.read(trial.key) for trial in self.trials if self.checkpoints.epochs(trial.key)]
        begun = [member for each in kept for member in each.members]
        self._training = Training(
            members, self.source, self.measure.n_classes, keep_weights=False, begun=begun, whole=self.measure.whole
        )
        # After each epoch, of each trial.
        self._scores: list[list[Score]] = [list(each.scores) for each in kept] or [[] for _ in self.trials]
        self._written, self._took, self._told = perf_counter(), 0.0, False

    def advance(self, epochs: int | None, written: Callable[[], None] = lambda: None) -> None:
        """Train for so many epochs in all, or to the end. ``written`` is called after each checkpoint."""
        end = epochs or max(member.spec.epochs for member in self._training.members)
        while self.alive and self._training.epoch < end:
            self._training.advance(self._training.epoch + 1)
            self._score()
            between = max(SECONDS_BETWEEN_CHECKPOINTS, self._took / SHARE_FOR_CHECKPOINTS)
            if perf_counter() - self._written >= between:
                self.write()
                written()

    @property
    def alive(self) -> bool:
        return bool(self._training.active)

    @property
    def bytes(self) -> int:
        """Weights and slots of the members that are still trained."""
        return self._training.shape.bytes * len(self._training.active)

    def keep(self, keys: set[str]) -> None:
        """Train only these trials further."""
        gone = [i for i, trial in enumerate(self.trials) if trial.key not in keys]
        self._training.drop([place for i in gone for place in self._places(i)])

    def records(self) -> list[Record]:
        """What is known now of each trial that was not dropped."""
        found = []
        for i, trial in enumerate(self.trials):
            fitted = [self._training.fitted[place] for place in self._places(i)]
            if any(one.dropped for one in fitted):
                continue
            complete = all(one.stopped for one in fitted)
            problem = "" if all(one.best_epoch for one in fitted) else "training diverged"
            seconds = round(sum(one.seconds for one in fitted), 3)
            scores = self._scores[i]
            told = [*scores[:-1], self.measure.with_interval(scores[-1], self.outcomes(trial.key))] if scores else []
            found.append(Record(trial.key, tuple(told), complete, seconds, problem))
        return found

    def outcomes(self, key: str) -> list[Outcomes]:
        """What a trial says of each row that counts, for each seed, at the epoch that is scored; none where none was finite."""
        (i,) = (i for i, trial in enumerate(self.trials) if trial.key == key)
        kept = [self._training.fitted[place].outcomes for place in self._places(i)]
        there = [each for each in kept if each is not None]
        if len(there) < len(kept):
            return []
        folds = len(self.measure.folds)
        return [self.measure.joined(there[k : k + folds]) for k in range(0, len(there), folds)]

    def _score(self) -> None:
        """Score the trials that were trained in this epoch: anew those of which a member got better."""
        epoch = self._training.epoch
        for i, trial in enumerate(self.trials):
            members = [self._training.fitted[place] for place in self._places(i)]
            if max(len(each.history) for each in members) < epoch:
                continue
            better = not self._scores[i] or any(each.best_epoch == epoch for each in members)
            self._scores[i].append(self.measure.score(self.outcomes(trial.key)) if better else self._scores[i][-1])

    def _places(self, i: int) -> range:
        each = self.repeats * len(self.measure.folds)
        return range(i * each, (i + 1) * each)

    def write(self) -> bool:
        """Keep the trials as they are now, to begin with again; says whether that could be done."""
        start = perf_counter()
        members = self._training.snapshot()
        try:
            for i, trial in enumerate(self.trials):
                mine = [members[place] for place in self._places(i)]
                if any(not each.fitted.stopped for each in mine):
                    self.checkpoints.write(trial.key, Kept(mine, tuple(self._scores[i])))
        except OSError as error:  # the sweep itself needs none of it
            if not self._told:
                self.say(f"{self.checkpoints.folder}: cannot be written ({error.strerror}); a kill now costs more")
            self._told = True
            return False
        finally:
            self._written = perf_counter()
            self._took = self._written - start
        return True
