"""What every head has, whatever it is made of: scikit-learn's face, its history, and a file that it is saved to."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from stages.bases.backend import load_keras
from stages.heads.calibration import log_softmax
from stages.heads.logits import without_activation
from stages.heads.pooling import pool_layers
from stages.progress import SILENT, Progress

PREDICT_BATCH = 1024


class Rows(NamedTuple):
    """Features (n, …) float32 of some images, and their labels (n,) int64."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]


class Head(ABC):
    """A classifier of features (n, …) as the base gives them, or pooled (n, d); ``classes_`` are the names of the classes.

    After ``fit``: ``history_`` (a dict for each epoch; one for a baseline), ``best_epoch_`` (from 1; the epoch whose weights are
    kept, by its validation loss or accuracy; None for a baseline), ``n_parameters_``, ``warnings_`` and ``seconds_``;
    ``told_`` is what its result says beside what every head's says, and ``files_`` are files in its folder that others do not have.
    ``probabilities_`` says where probabilities come from.
    """

    spec: Any  # that of its kind

    def __init__(self, spec: Any, classes: Sequence[str]) -> None:
        self.spec = spec
        self.classes_ = np.array(classes)
        self.history_: list[dict[str, float]] = []
        self.best_epoch_: int | None = None
        self.n_parameters_: int | None = None
        self.warnings_: list[str] = []
        self.seconds_ = 0.0
        self.told_: dict[str, Any] = {}
        self.files_: list[str] = []

    @property
    @abstractmethod
    def probabilities_(self) -> str: ...

    def fit(
        self,
        X: NDArray[np.float32],
        y: NDArray[np.int64],
        X_validation: NDArray[np.float32],
        y_validation: NDArray[np.int64],
        progress: Progress = SILENT,
        name: str = "head",
    ) -> Self:
        """Train on features (n, …) and labels (n,), which index ``classes_``; validation chooses the epoch, or is scored.

        ``progress`` is told of the epochs, under the head's ``name``. Raises HeadError where the head cannot be trained, or comes
        to nothing.
        """
        return self._fit(Rows(X, y), Rows(X_validation, y_validation), progress, name)

    @abstractmethod
    def _fit(self, train: Rows, validation: Rows, progress: Progress, name: str) -> Self: ...

    @abstractmethod
    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (n, number of classes), float32; the columns follow ``classes_``."""

    @abstractmethod
    def predict_log_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-probabilities (n, number of classes), float64; from logits where there are any, as a head that is sure of itself
        has probabilities that float32 rounds to 0 and 1.
        """

    def predict(self, X: NDArray[np.float32]) -> NDArray[Any]:
        """The name of the most probable class of each row."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    @abstractmethod
    def save(self, path: Path, feature_shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Write the trained head; ``feature_shapes`` are those of one image's features, by layer."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path, spec: Any, classes: Sequence[str]) -> Self:
        """Read a saved head back, without running code from the file. Raises HeadError where that cannot be done."""


class KerasModelHead(Head):
    """A head whose probabilities a Keras model computes."""

    _core: Any = None

    @property
    def probabilities_(self) -> str:
        return "sigmoid" if len(self.classes_) == 2 else "softmax"

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        out = self._called(X)
        return np.hstack([1 - out, out]) if out.shape[1] == 1 else out

    def predict_log_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        with without_activation(self._core):
            return log_softmax(self._called(X))

    def _called(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        pooled = pool_layers([X], self.spec.pool)
        to_numpy = load_keras().ops.convert_to_numpy
        # Called as it is, and not through ``predict``, which compiles a function for each head.
        blocks = [pooled[i : i + PREDICT_BATCH] for i in range(0, len(pooled), PREDICT_BATCH)]
        found = [to_numpy(self._core(block, training=False)) for block in blocks]
        return np.concatenate([np.empty((0, self._core.output_shape[-1]), np.float32), *found])
