"""What is kept of one model's training after each epoch, so that a run which is killed loses no more than the epoch it was in."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.arrays import whole_arrays
from cache.errors import CacheError
from cache.files import atomic_path


@dataclass
class Kept:
    """A model after some epochs: a line of ``history`` for each, ``seconds`` and ``images_read`` of all of them together.

    ``state`` is what training goes on with, weights and then those of the optimizer; ``best`` are the weights of the ``best_epoch``.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    seconds: float = 0.0
    images_read: int = 0
    state: list[NDArray[Any]] = field(default_factory=list)
    best: list[NDArray[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """The file of one training, which is that of the ``key``; what another left there is not read."""

    path: Path
    key: str

    def read(self, shapes: Sequence[tuple[int, ...]], weights: int) -> Kept | None:
        """What was kept, where that is whole, and of variables with these shapes, of which the first are so many ``weights``."""
        try:
            with whole_arrays(self.path) as file:
                told = json.loads(str(file["told"]))
                if told.pop("key") != self.key:
                    return None
                state = [file[f"state{i}"] for i in range(len(shapes))]
                best = [file[f"best{i}"] for i in range(weights if told["best_epoch"] else 0)]
        except CacheError:
            return None
        fits = [each.shape for each in (*state, *best)] == [*shapes, *shapes[: len(best)]]
        return Kept(**told, state=state, best=best) if fits else None

    def write(self, kept: Kept) -> None:
        """Keep a training as it is now, in the place of what was kept before. Raises OSError."""
        told = {name: getattr(kept, name) for name in ("history", "best_epoch", "seconds", "images_read")}
        arrays: dict[str, Any] = {f"state{i}": each for i, each in enumerate(kept.state)}
        arrays |= {f"best{i}": each for i, each in enumerate(kept.best)}
        with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, told=json.dumps(told | {"key": self.key}), **arrays)
