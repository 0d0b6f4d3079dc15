"""Trials of a sweep that are trained together: for each of them as many members as seeds and folds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from stages.sweeps.checkpoints import Checkpoints
from stages.sweeps.folds import Fold
from stages.sweeps.ledger import Record
from stages.sweeps.scoring import mean_score
from stages.sweeps.trials import Trial
from stages.training.member import Member
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
    folds: Sequence[Fold]
    repeats: int
    source: Source
    n_classes: int
    checkpoints: Checkpoints
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        members = []
        for trial in self.trials:
            assert isinstance(trial.spec, DenseSpec)
            for number in range(self.repeats):
                spec = trial.spec.model_copy(update={"seed": trial.spec.seed + number})
                members += [Member(spec, train, validation) for train, validation in self.folds]
        kept = [trial.key for trial in self.trials if self.checkpoints.epochs(trial.key)]
        begun = [member for key in kept for member in self.checkpoints.read(key)]
        self._training = Training(members, self.source, self.n_classes, keep_weights=False, begun=begun)
        self._written, self._took, self._told = perf_counter(), 0.0, False

    def advance(self, epochs: int | None, written: Callable[[], None] = lambda: None) -> None:
        """Train for so many epochs in all, or to the end. ``written`` is called after each checkpoint."""
        end = epochs or max(member.spec.epochs for member in self._training.members)
        while self.alive and self._training.epoch < end:
            self._training.advance(self._training.epoch + 1)
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
            epochs = max(len(one.history) for one in fitted)
            scores = [mean_score([one.after(epoch) for one in fitted], self.folds) for epoch in range(1, epochs + 1)]
            complete = all(one.stopped for one in fitted)
            problem = "" if all(one.best_epoch for one in fitted) else "training diverged"
            seconds = round(sum(one.seconds for one in fitted), 3)
            found.append(Record(trial.key, tuple(scores), complete, seconds, problem))
        return found

    def _places(self, i: int) -> range:
        each = self.repeats * len(self.folds)
        return range(i * each, (i + 1) * each)

    def write(self) -> bool:
        """Keep the trials as they are now, to begin with again; says whether that could be done."""
        start = perf_counter()
        members = self._training.snapshot()
        try:
            for i, trial in enumerate(self.trials):
                mine = [members[place] for place in self._places(i)]
                if any(not each.fitted.stopped for each in mine):
                    self.checkpoints.write(trial.key, mine)
        except OSError as error:  # the sweep itself needs none of it
            if not self._told:
                self.say(f"{self.checkpoints.folder}: cannot be written ({error.strerror}); a kill now costs more")
            self._told = True
            return False
        finally:
            self._written = perf_counter()
            self._took = self._written - start
        return True
