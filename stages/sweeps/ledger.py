"""What is known of a sweep's trials: scores by epoch, in a file that is only ever added to."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from cache.files import digest_text
from stages.heads.intervals import wilson


class Score(NamedTuple):
    """How a trial did on validation after some epochs; over ``rows`` images, and with several seeds their mean.

    ``spread`` is the standard deviation of the accuracy between seeds.
    """

    accuracy: float
    loss: float
    rows: int
    spread: float = 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval."""
        return wilson(round(self.accuracy * self.rows), self.rows)

    @property
    def ranking(self) -> tuple[float, float]:
        """The best first: by accuracy, then by loss, as the leaderboard has it."""
        return -self.accuracy, self.loss


@dataclass(frozen=True)
class Record:
    """What is known of a trial: its score after each epoch (one, for a baseline), and whether it was trained to its end.

    One with a ``problem`` came to nothing: it diverged, or, where it is not complete, could not be trained.
    """

    key: str
    scores: tuple[Score, ...]
    complete: bool
    seconds: float
    problem: str = ""

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

    @property
    def ranking(self) -> tuple[float, float]:
        """That of the last score; a trial that came to nothing is last."""
        return self.scores[-1].ranking if self.scored else (1.0, float("inf"))


class Ledger(dict[str, Record]):
    """The records of a sweep by the keys of its trials; in the file a line each, of which the last of a trial counts.

    A line that a killed run left half-written, or that was changed, is passed over, and its trial trained again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__()
        self._writing = Lock()
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                digest, _, body = line.partition(" ")
                if digest_text(body)[:16] == digest:
                    raw = json.loads(body)
                    self[raw["key"]] = Record(**raw | {"scores": tuple(Score(*each) for each in raw["scores"])})

    def covers(self, key: str, epochs: int) -> bool:
        """Whether the score of a trial after so many epochs is known."""
        return key in self and (self[key].complete or len(self[key].scores) >= epochs)

    def complete(self, key: str) -> bool:
        """Whether a trial needs no more training."""
        return key in self and self[key].complete

    def add(self, records: Sequence[Record]) -> None:
        """Keep records, on disk before this returns."""
        if not records:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for each in records:
            self[each.key] = each
            body = json.dumps(asdict(each))
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
