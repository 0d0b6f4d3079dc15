"""Trials that are under way, a file each, so that a sweep that is killed goes on where it was."""

import json
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cache.files import atomic_path, remove_temporaries
from stages.training.member import Begun, Fitted


class Checkpoints:
    """The files of one sweep, in a folder of their own; damaged ones are removed, and their trials trained anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        remove_temporaries(folder)
        self._epochs: dict[str, int] = {}
        for path in folder.glob("*.npz"):
            try:
                with zipfile.ZipFile(path) as file:
                    if damaged := file.testzip():
                        raise zipfile.BadZipFile(damaged)
                with np.load(path, allow_pickle=False) as file:
                    self._epochs[path.stem] = max(len(each.history) for each in _fitted(file))
            except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
                path.unlink()

    def epochs(self, key: str) -> int:
        """How far a trial had come when it was written: epochs, 0 where nothing is kept of it."""
        return self._epochs.get(key, 0)

    def read(self, key: str) -> list[Begun]:
        """The members of a trial as they were kept."""
        with np.load(self._path(key), allow_pickle=False) as file:
            fitted = _fitted(file)
            sizes = [sum(name.startswith(f"{i}/") for name in file.files) for i in range(len(fitted))]
            return [Begun(each, [file[f"{i}/{k}"] for k in range(sizes[i])]) for i, each in enumerate(fitted)]

    def write(self, key: str, members: Sequence[Begun]) -> None:
        """Keep a trial as it is now. Raises OSError."""
        arrays: dict[str, Any] = {
            f"{i}/{k}": each for i, member in enumerate(members) for k, each in enumerate(member.state)
        }
        with atomic_path(self._path(key)) as temporary, open(temporary, "wb") as file:
            np.savez(file, fitted=json.dumps([asdict(each.fitted) for each in members]), **arrays)
        self._epochs[key] = max(len(each.fitted.history) for each in members)

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


def _fitted(file: Any) -> list[Fitted]:
    return [Fitted(**each) for each in json.loads(str(file["fitted"]))]
