"""What the trials of a sweep say of each row that is scored: a file each beside the ledger, as how much too good the winner is can be
told from all of them together.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache.arrays import whole_arrays
from cache.errors import CacheError
from cache.files import atomic_path, remove_temporaries
from stages.training.outcomes import Outcomes


class OutcomeFiles:
    """The files of one sweep. Each holds the epochs that its trial was trained for, and the fields of its outcomes, (seeds, n, …) each.

    Every trial of a sweep has the same n rows in the same order. A file is written before the line of the ledger that it belongs to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        remove_temporaries(folder)

    def write(self, key: str, epochs: int, by_seed: Sequence[Outcomes]) -> None:
        """Keep the outcomes of a trial after so many epochs, in the place of those after fewer. Raises OSError."""
        arrays: dict[str, Any] = {"epochs": np.int64(epochs)}
        columns = zip(Outcomes._fields, zip(*by_seed, strict=True), strict=True)
        # All log-probabilities of some seeds alone, where the score that ranks was another before a kill, tell nothing.
        there = {name: [each for each in column if each is not None] for name, column in columns}
        arrays |= {name: np.stack(column) for name, column in there.items() if len(column) == len(by_seed)}
        with atomic_path(self._path(key)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    def read(self, key: str, epochs: int) -> list[Outcomes] | None:
        """The outcomes of a trial after so many epochs, for each seed; None where they were not kept, or are damaged."""
        try:
            with whole_arrays(self._path(key)) as file:
                if int(file["epochs"]) != epochs:
                    return None
                columns = {name: file[name] for name in Outcomes._fields if name in file.files}
                seeds = range(len(columns["predicted"]))
                return [Outcomes(**{name: each[i] for name, each in columns.items()}) for i in seeds]
        except CacheError:
            return None

    def read_all(self, keys_and_epochs: Iterable[tuple[str, int]]) -> list[list[Outcomes]] | None:
        """Those of several trials, in their order; None where those of one are not kept, or are of other rows."""
        found = [self.read(*each) for each in keys_and_epochs]
        there = [each for each in found if each]
        sizes = {len(seed.predicted) for each in there for seed in each}
        return there if len(there) == len(found) and len(sizes) == 1 else None

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"
