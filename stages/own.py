"""Heads of the user's own: built by a function of theirs, trained by ``keras.Model.fit``, one at a time."""

import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import DivergedError, HeadError
from stages.backend import load_keras
from stages.heads import PREDICT_BATCH, Predicts, loss, optimizer
from stages.progress import SILENT, Progress
from stages.specs import KerasSpec
from stages.together import class_weights


class KerasHead(Predicts):
    """A head that somebody else's function builds. ``home`` is the folder that ``build`` is relative to.

    After ``fit``: ``history_``, ``best_epoch_`` and ``n_parameters_`` as in ``DenseHead``. Features are (n, …) as the
    base gives them.
    """

    spec: KerasSpec

    def __init__(self, spec: KerasSpec, classes: Sequence[str], home: Path = Path()) -> None:
        super().__init__(spec, classes)
        self.home = home
        self.seconds_ = 0.0

    def fit(
        self,
        X: NDArray[np.float32],
        y: NDArray[np.int64],
        X_validation: NDArray[np.float32],
        y_validation: NDArray[np.int64],
        progress: Progress = SILENT,
        name: str = "head",
        last: bool = False,
    ) -> "KerasHead":
        """Train on (n, …) features; the weights of the epoch with the lowest validation loss are kept, or the ``last``.

        Raises HeadError where the function cannot be run, or gives what is no head.
        """
        keras = load_keras()
        spec = self.spec
        start = perf_counter()
        keras.utils.clear_session()
        keras.utils.set_random_seed(spec.seed)
        self._core = self._build(X.shape[1:])
        single = self._core.output_shape[-1] == 1
        self._core.compile(optimizer=optimizer(spec), loss=loss(spec, 2 if single else 3), metrics=["accuracy"])
        weights = class_weights(spec, y, len(self.classes_))
        with progress.task(f"Training {name}", spec.epochs, "epochs") as advance:
            callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: advance(1))]
            if not last:
                patience = spec.patience or spec.epochs
                callbacks.append(
                    keras.callbacks.EarlyStopping(monitor="val_loss", patience=patience, restore_best_weights=True)
                )
            history = self._core.fit(
                X, self._targets(y, single), validation_data=(X_validation, self._targets(y_validation, single)),
                epochs=spec.epochs, batch_size=spec.batch_size, validation_batch_size=PREDICT_BATCH,
                class_weight=dict(enumerate(map(float, weights))), callbacks=callbacks, verbose=0,
            ).history  # fmt: skip
        self.history_ = [
            dict(zip(history, map(float, row), strict=True)) for row in zip(*history.values(), strict=True)
        ]
        losses = history["val_loss"]
        if not np.isfinite(losses).any():
            rate = spec.learning_rate
            raise DivergedError(f"training diverged: the validation loss is never finite; lower learning_rate ({rate})")
        self.best_epoch_ = int(np.nanargmin(losses)) + 1
        self.n_parameters_ = int(self._core.count_params())
        self.seconds_ = perf_counter() - start
        return self

    def _build(self, shape: tuple[int, ...]) -> Any:
        keras = load_keras()
        name, _, function = self.spec.build.rpartition(":")
        path = self.home / name
        # As Python does for a script: what lies beside the file can be imported.
        sys.path.insert(0, str(path.absolute().parent))
        try:
            # The file is the user's own, named in the configuration that they run.
            there = runpy.run_path(str(path))
            if function not in there:
                raise HeadError(f"{self.spec.build}: expected a function {function!r} in {name}, found none")
            made = there[function](shape, len(self.classes_))
            if isinstance(made, list | tuple):
                outputs, activation = (1, "sigmoid") if len(self.classes_) == 2 else (len(self.classes_), "softmax")
                last = keras.layers.Dense(outputs, activation=activation, name="probabilities")
                made = keras.Sequential([keras.layers.Input(shape), *made, last])
            found = keras.ops.convert_to_numpy(made(np.zeros((1, *shape), np.float32), training=False))
        except (HeadError, KeyboardInterrupt):
            raise
        except BaseException as error:  # whatever the user's code raises, SystemExit too
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise HeadError(f"{self.spec.build}: cannot be built for features {shape} ({reason})") from error
        finally:
            sys.path.remove(str(path.absolute().parent))
        for layer in made._flatten_layers():
            if isinstance(layer, keras.layers.Lambda) or not type(layer).__module__.startswith("keras."):
                raise HeadError(
                    f"{self.spec.build}: expected layers of Keras's own, found {type(layer).__name__}, which could not be read "
                    "back without running code from the saved file"
                )
        classes = len(self.classes_)
        if found.shape not in ((1, classes), (1, 1) if classes == 2 else (1, classes)):
            raise HeadError(
                f"{self.spec.build}: expected {classes} probabilities for an image, found {found.shape[1:]}"
            )
        total = float(found.sum())
        if found.min() < 0 or found.max() > 1 or (found.shape[1] > 1 and abs(total - 1) > 1e-3):
            raise HeadError(f"{self.spec.build}: expected probabilities, found {found[0]}; end in softmax or sigmoid")
        return made

    def _targets(self, y: NDArray[np.int64], single: bool) -> NDArray[np.float32]:
        return y.astype(np.float32)[:, None] if single else np.eye(len(self.classes_), dtype=np.float32)[y]

    def save(self, path: Path, feature_shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Write the Keras model as it was built."""
        self._core.save(path)

    @classmethod
    def load(cls, path: Path, spec: KerasSpec, classes: Sequence[str]) -> "KerasHead":
        """Read a saved head back, without running code from the file. Raises HeadError where it has layers of its own."""
        head = cls(spec, classes)
        try:
            head._core = load_keras().saving.load_model(path, compile=False, safe_mode=True)
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise HeadError(f"{path}: expected a model of built-in layers, found {reason}") from error
        return head
