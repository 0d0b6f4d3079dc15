"""One head among those that are trained together: what it is trained on, and how far it has come."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.training.outcomes import Outcomes
from stages.training.spec import DenseSpec, TrainedSpec


@dataclass(frozen=True)
class Member:
    """One head to train: its spec, and the positions of the rows that it is trained and validated on.

    The weights of its best epoch are kept, or those of its ``last``. Of the rows ``scored``, some of those of validation in
    ascending order, the outcomes at that epoch are kept, too.

    Members with one ``choice``, such as the folds of a trial, take their best epoch together, and stop together.
    """

    spec: DenseSpec
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    last: bool = False
    scored: NDArray[np.int64] | None = None
    choice: int | None = None


@dataclass
class Fitted:
    """How far a head has come. ``weights`` are those of ``best_epoch`` (from 1), the epoch of the lowest validation loss
    or the highest accuracy (of its own, or the mean over those that it chooses with) or, where that was asked for, the last; so are the
    ``outcomes`` of the rows that are scored.

    ``history`` has one row an epoch; ``seconds`` is the head's share of the time that its stacks took. A head has ``stopped``
    when its epochs are done, when its patience is at an end, or when it was ``dropped``.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    weights: list[NDArray[np.float32]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False
    dropped: bool = False
    outcomes: Outcomes | None = None


def choices(members: Sequence[Member]) -> list[list[int]]:
    """Places of the members that choose their epoch together; most do so alone."""
    groups: dict[tuple[bool, int], list[int]] = {}
    for i, member in enumerate(members):
        name = (True, i) if member.choice is None else (False, member.choice)
        groups.setdefault(name, []).append(i)
    return list(groups.values())


class Begun(NamedTuple):
    """A head that was trained in part: how far it has come, and what it goes on with; nothing where it has stopped."""

    fitted: Fitted
    state: list[NDArray[np.float32]]


def class_weights(spec: TrainedSpec, y: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    """What a training row of each class counts (classes,): 1, or inversely to its frequency, as scikit-learn's "balanced"."""
    if spec.class_weight is None:
        return np.ones(n_classes, np.float32)
    counts = np.bincount(y, minlength=n_classes)
    return (len(y) / (n_classes * np.maximum(counts, 1))).astype(np.float32)
