"""What is known of a sweep's trials: scores by epoch, in a file that is only ever added to."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from cache.files import digest_text
from stages.heads.intervals import wilson
from stages.heads.results import rank_of


class Chosen(NamedTuple):
    """The score that trials are ranked by, where that is not accuracy: its name, its value, None where there is none, its standard
    deviation between seeds, None where that is not known, and its 95% interval, where that was computed and there is one.
    """

    metric: str
    value: float | None
    spread: float | None = 0.0
    interval: tuple[float, float] | None = None


class Score(NamedTuple):
    """How a trial did on validation after some epochs; over ``rows`` images, and with several seeds their mean.

    ``spread`` is the standard deviation of the accuracy between seeds, ``chosen`` another score by which trials are ranked. ``effect``
    is by how much groups of like images, and folds, raise the variance of the accuracy; None where neither is there, or earlier versions
    did not compute it.
    """

    accuracy: float
    loss: float
    rows: int
    spread: float = 0.0
    chosen: Chosen | None = None
    effect: float | None = None

    @classmethod
    def read(cls, stored: Sequence[Any]) -> "Score":
        """As it was written; earlier versions had four numbers, as there are still where accuracy ranks images without groups."""
        chosen, effect = [*stored[4:], None, None][:2]
        if chosen:
            metric, value, spread, interval = chosen
            chosen = Chosen(metric, value, spread, interval and (interval[0], interval[1]))
        return cls(*stored[:4])._replace(chosen=chosen, effect=effect)

    @property
    def stored(self) -> list[Any]:
        """As it is written."""
        return list(self if self.effect is not None else self[:5] if self.chosen else self[:4])

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accuracy, of as many images as tell as much without groups and folds."""
        effect = self.effect or 1.0
        return wilson(round(self.accuracy * self.rows) / effect, self.rows / effect)

    def by(self, metric: str) -> Chosen | None:
        """The score by which trials are ranked; None where it is not known."""
        if metric == "accuracy":
            return Chosen(metric, self.accuracy, self.spread, self.interval)
        if self.chosen and self.chosen.metric == metric:
            return self.chosen
        return Chosen(metric, self.loss, None) if metric == "log_loss" else None

    def has(self, metric: str) -> bool:
        """Whether this score was computed: of log loss, that trials are ranked by is known of every score, but no interval."""
        return metric == "accuracy" or (self.chosen is not None and self.chosen.metric == metric)

    def ranking(self, metric: str = "accuracy") -> tuple[float, float]:
        """The best first: by the metric, then by log loss, as the leaderboard has it."""
        chosen = self.by(metric)
        return rank_of(metric, chosen and chosen.value), self.loss


@dataclass(frozen=True)
class Record:
    """What is known of a trial: its score after each epoch (one, for a baseline), and whether it was trained to its end.

    One with a ``problem`` came to nothing: it diverged, or, where it is not complete, could not be trained. ``begun`` is that of its
    trial; earlier versions did not note it.
    """

    key: str
    scores: tuple[Score, ...]
    complete: bool
    seconds: float
    problem: str = ""
    begun: str = ""

    @property
    def scored(self) -> bool:
        """Whether it came to something."""
        return bool(self.scores) and not self.problem

    @property
    def failed(self) -> bool:
        """Whether it could not be trained, and is to be tried again; one that diverged was trained."""
        return bool(self.problem) and not self.scores and not self.complete

    def after(self, epochs: int) -> Score:
        """The score after so many epochs, or after fewer where it stopped before."""
        return self.scores[min(epochs, len(self.scores)) - 1]

    def ranking(self, metric: str = "accuracy") -> tuple[float, float]:
        """That of the last score; a trial that came to nothing is last."""
        return self.scores[-1].ranking(metric) if self.scored else (float("inf"), float("inf"))


class Ledger(dict[str, Record]):
    """The records of a sweep by the keys of its trials; in the file a line each, of which the last of a trial counts.

    A line that a killed run left half-written, or that was changed, is passed over, and its trial trained again. So is a trial of
    which the score by this ``metric`` is not known: at its end, or where trials are compared on the way, after ``every_epoch``.
    """

    def __init__(self, path: Path, metric: str = "accuracy", every_epoch: bool = False) -> None:
        self.path, self.metric, self.every_epoch = path, metric, every_epoch
        super().__init__()
        self._writing = Lock()
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                digest, _, body = line.partition(" ")
                if digest_text(body)[:16] == digest:
                    raw = json.loads(body)
                    self[raw["key"]] = Record(**raw | {"scores": tuple(map(Score.read, raw["scores"]))})

    def covers(self, key: str, epochs: int) -> bool:
        """Whether the score of a trial after so many epochs is known."""
        return self.knows(key) and (self[key].complete or len(self[key].scores) >= epochs)

    def complete(self, key: str) -> bool:
        """Whether a trial needs no more training."""
        return self.knows(key) and self[key].complete

    def knows(self, key: str) -> bool:
        """Whether there is a record of a trial that says how it did by the metric, or that it came to nothing."""
        if key not in self or not self[key].scored:
            return key in self
        needed = self[key].scores if self.every_epoch else self[key].scores[-1:]
        return all(score.by(self.metric) for score in needed)

    def add(self, records: Sequence[Record]) -> None:
        """Keep records, on disk before this returns."""
        if not records:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for each in records:
            self[each.key] = each
            told = asdict(each) | {"scores": [score.stored for score in each.scores]}
            if not each.begun:  # as most trials are: their lines stay as they were
                del told["begun"]
            body = json.dumps(told)
            lines.append(f"{digest_text(body)[:16]} {body}\n")
        with self._writing:
            try:
                self._append("".join(lines))
            except OSError as error:  # which does not say of which file it is
                raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _append(self, text: str) -> None:
        with open(self.path, "a+b") as file:
            # After a line that was cut off, on a line of its own.
            torn = file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
            file.write(("\n" * bool(torn) + text).encode())
            file.flush()
            os.fsync(file.fileno())
