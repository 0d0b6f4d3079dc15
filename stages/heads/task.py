"""What is asked for when a head is to be trained, and what comes of it before it is scored."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.data.views import View
from stages.heads.dataset import Dataset
from stages.heads.head import Head
from stages.heads.spec import AnyHead


@dataclass(frozen=True)
class Origin:
    """Where a head comes from that is trained beyond frozen features: the ``spec`` and weights of its base, None where it has none, and
    the folder of the images, None where it is not here. ``view`` is what an epoch (from 0) sees of each training image; None for it as it
    is.
    """

    spec: BaseSpec | None
    weights: Weights | None
    root: Path | None
    view: Callable[[int], View] | None = None


@dataclass(frozen=True)
class HeadTask:
    """One head to train: its name and spec, its key, its base's name, layers and key, and the folder it goes to.

    ``home`` is where the configuration lies, to which a user's own code is relative; ``needs`` are the folders of the trained heads that
    it is made of, by name. ``board`` is the folder of the heads among which looks at the test images are counted, where it is not in that.
    ``origin`` is for heads that are trained beyond frozen features.
    """

    name: str
    spec: AnyHead
    key: str
    base: str
    layers: tuple[str, ...]
    base_key: str
    rows_digest: str
    folder: Path
    home: Path = Path()
    needs: Mapping[str, Path] = field(default_factory=dict)
    board: Path | None = None
    origin: Origin | None = None


@dataclass(frozen=True)
class Trained:
    """A head and the seconds it took. Where it was refitted on validation too, ``selected`` is the one that was not."""

    head: Head
    seconds: float
    selected: Head | None = None

    @classmethod
    def of(cls, head: Head, refitted: Head | None = None) -> "Trained":
        """A head, and the one that was refitted: it shows the history of the first, which says why it is as it is."""
        if refitted is None:
            return cls(head, head.seconds_)
        refitted.history_, refitted.best_epoch_ = head.history_, head.best_epoch_
        return cls(refitted, head.seconds_ + refitted.seconds_, selected=head)

    def log_probabilities(self, data: Dataset, layers: Sequence[str]) -> NDArray[np.float64]:
        """For all rows (n, classes); a head that has seen the validation rows does not speak for them."""
        out = np.empty((len(data.records), len(data.classes)))
        held = np.zeros(len(data.records), bool)
        held[data.rows("validation")] = True
        for positions, X in data.parts(self.head.spec.pool, layers):
            out[positions] = self.head.predict_log_proba(X)
            if self.selected is not None and held[positions].any():
                out[positions[held[positions]]] = self.selected.predict_log_proba(X[held[positions]])
        return out


class Spoken(NamedTuple):
    """A head, the seconds it took, and what it says of all rows: log-probabilities (n, classes)."""

    head: Head
    seconds: float
    logs: NDArray[np.float64]

    def log_probabilities(self, data: Dataset, layers: Sequence[str]) -> NDArray[np.float64]:
        """As that of ``Trained``."""
        return self.logs


# Each task with what trains it, or hands over what was trained together; called in this order.
Trainings = Iterator[tuple[HeadTask, Callable[[], Trained | Spoken]]]
