"""Trials that are under way, a file each, so that a sweep that is killed goes on where it was."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cache.arrays import whole_arrays
from cache.errors import CacheError
from cache.files import atomic_path, remove_temporaries
from stages.sweeps.ledger import Score
from stages.training.member import Begun, Fitted
from stages.training.outcomes import Outcomes


class Kept(NamedTuple):
    """A trial under way: its members, and its scores after each epoch so far."""

    members: list[Begun]
    scores: tuple[Score, ...]


class Checkpoints:
    """The files of one sweep, in a folder of their own; damaged ones, and those whose scores by the ``metric`` are not known, are
    removed, and their trials trained anew.
    """

    def __init__(self, folder: Path, metric: str = "accuracy") -> None:
        self.folder = folder
        remove_temporaries(folder)
        self._epochs: dict[str, int] = {}
        for path in folder.glob("*.npz"):
            try:
                with whole_arrays(path) as file:
                    scores, _ = _scores(file), _fitted(file)
                    if not all(score.by(metric) for score in scores):
                        raise ValueError(metric)
                    self._epochs[path.stem] = len(scores)
            except CacheError:
                path.unlink()

    def epochs(self, key: str) -> int:
        """How far a trial had come when it was written: epochs, 0 where nothing is kept of it."""
        return self._epochs.get(key, 0)

    def read(self, key: str) -> Kept:
        """A trial as it was kept."""
        with np.load(self._path(key), allow_pickle=False) as file:
            fitted = _fitted(file)
            sizes = [sum(name.startswith(f"{i}/") for name in file.files) for i in range(len(fitted))]
            states = [[file[f"{i}/{k}"] for k in range(size)] for i, size in enumerate(sizes)]
            members = [Begun(*pair) for pair in zip(fitted, states, strict=True)]
            return Kept(members, _scores(file))

    def write(self, key: str, kept: Kept) -> None:
        """Keep a trial as it is now. Raises OSError."""
        arrays: dict[str, Any] = {}
        for i, member in enumerate(kept.members):
            arrays |= {f"{i}/{k}": each for k, each in enumerate(member.state)}
            told = member.fitted.outcomes
            arrays |= {f"{i}.{name}": each for name, each in told._asdict().items() if each is not None} if told else {}
        fitted = [asdict(replace(each.fitted, outcomes=None)) for each in kept.members]
        arrays |= {"fitted": json.dumps(fitted), "scores": json.dumps([score.stored for score in kept.scores])}
        with atomic_path(self._path(key)) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
        self._epochs[key] = len(kept.scores)

    def remove(self, keys: Iterable[str]) -> None:
        """Forget trials that are trained no further."""
        for key in keys:
            self._path(key).unlink(missing_ok=True)
            self._epochs.pop(key, None)

    def close(self) -> None:
        """Forget all: the sweep is at its end."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"


def _scores(file: Any) -> tuple[Score, ...]:
    return tuple(map(Score.read, json.loads(str(file["scores"]))))


def _fitted(file: Any) -> list[Fitted]:
    found = [Fitted(**each) for each in json.loads(str(file["fitted"]))]
    for i, each in enumerate(found):
        columns = {name: file[f"{i}.{name}"] for name in Outcomes._fields if f"{i}.{name}" in file.files}
        each.outcomes = Outcomes(**columns) if columns else None
    return found
