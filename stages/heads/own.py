"""Heads of the user's own: built by a function of theirs, trained by ``keras.Model.fit``, one at a time."""

import re
import runpy
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import DivergedError, HeadError
from stages.bases.backend import load_keras
from stages.heads.dense import PREDICT_BATCH, Predicts, loss, optimizer
from stages.heads.metrics import log_probabilities, log_softmax
from stages.heads.spec import KerasSpec
from stages.progress import SILENT, Progress
from stages.training.together import class_weights

# What TensorFlow colours its messages with.
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
REASON = 300  # characters
SHOWN = 4  # probabilities


def in_one_line(error: BaseException) -> str:
    """The error's type and message, for a line in a terminal."""
    return f"{type(error).__name__}: {' '.join(ESCAPES.sub('', str(error)).split())[:REASON]}"


def _can_be_loaded(layer: Any) -> bool:
    saving = load_keras().saving
    try:
        with warnings.catch_warnings(action="ignore"):
            saving.deserialize_keras_object(saving.serialize_keras_object(layer), safe_mode=True)
    except Exception:
        return False
    return True


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

        Raises HeadError where the function cannot be run, or gives what is no head, or what cannot be trained.
        """
        keras = load_keras()
        spec = self.spec
        start = perf_counter()
        keras.utils.clear_session()
        keras.utils.set_random_seed(spec.seed)
        self._core = self._build(X.shape[1:])
        try:
            history = self._trained(X, y, X_validation, y_validation, progress, name, last)
        except Exception as error:  # whatever the user's model makes Keras or its backend raise
            raise HeadError(
                f"{spec.build}: cannot be trained on features {X.shape[1:]} ({in_one_line(error)})"
            ) from error
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

    def _trained(
        self,
        X: NDArray[np.float32],
        y: NDArray[np.int64],
        X_validation: NDArray[np.float32],
        y_validation: NDArray[np.int64],
        progress: Progress,
        name: str,
        last: bool,
    ) -> dict[str, list[float]]:
        keras, spec = load_keras(), self.spec
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
            fitted = self._core.fit(
                X, self._targets(y, single), validation_data=(X_validation, self._targets(y_validation, single)),
                epochs=spec.epochs, batch_size=spec.batch_size, validation_batch_size=PREDICT_BATCH,
                class_weight=dict(enumerate(map(float, weights))), callbacks=callbacks, verbose=0,
            )  # fmt: skip
        history: dict[str, list[float]] = fitted.history
        return history

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
            if not isinstance(made, keras.Model):
                raise HeadError(
                    f"{self.spec.build}: expected a Keras model or a list of layers, found {type(made).__name__}"
                )
            found = keras.ops.convert_to_numpy(made(np.zeros((1, *shape), np.float32), training=False))
        except (HeadError, KeyboardInterrupt):
            raise
        except BaseException as error:  # whatever the user's code raises, SystemExit too
            raise HeadError(
                f"{self.spec.build}: cannot be built for features {shape} ({in_one_line(error)})"
            ) from error
        finally:
            sys.path.remove(str(path.absolute().parent))
        classes = len(self.classes_)
        if found.shape not in ((1, classes), (1, 1) if classes == 2 else (1, classes)):
            raise HeadError(
                f"{self.spec.build}: expected {classes} probabilities for an image, found {found.shape[1:]}"
            )
        total = float(found.sum())
        if not (found.min() >= 0 and found.max() <= 1) or (found.shape[1] > 1 and abs(total - 1) > 1e-3):
            ends = "softmax, or in one sigmoid" if classes == 2 else "softmax"
            values = ", ".join(f"{value:.3g}" for value in found[0, :SHOWN]) + (
                "" if found.shape[1] <= SHOWN else ", …"
            )
            sums = (
                f" that sum to 1, found {values}, which sum to {total:.3g}"
                if found.shape[1] > 1
                else f", found {values}"
            )
            raise HeadError(f"{self.spec.build}: expected probabilities{sums}; end in {ends}")
        self._check_that_it_can_be_loaded(made)
        return made

    def _check_that_it_can_be_loaded(self, model: Any) -> None:
        """Save and load, as one who predicts will: without running the user's code."""
        keras = load_keras()
        # Nor does that process know what the user's file registers with Keras.
        registered = keras.saving.get_custom_objects()
        kept = dict(registered)
        registered.clear()
        try:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
                model.save(Path(folder) / "model.keras")
                keras.saving.load_model(Path(folder) / "model.keras", compile=False, safe_mode=True)
        except OSError:
            raise
        except Exception as error:
            layers = [layer for layer in model._flatten_layers() if layer is not model and not _can_be_loaded(layer)]
            found = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in layers) or in_one_line(error)
            raise HeadError(
                f"{self.spec.build}: expected layers and functions of Keras's own, found {found}, which could not be read "
                "back without running code from the saved file"
            ) from error
        finally:
            registered.update(kept)

    def _targets(self, y: NDArray[np.int64], single: bool) -> NDArray[np.float32]:
        return y.astype(np.float32)[:, None] if single else np.eye(len(self.classes_), dtype=np.float32)[y]

    def predict_log_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-probabilities (n, number of classes), float64: of the logits, wherever the model has its last softmax or sigmoid,
        in a layer of its own or in a nested model; else of the probabilities.
        """
        keras = load_keras()
        last = self._core
        while isinstance(last, keras.Model):
            # Of operations that are no layers, a functional model alone can have the last.
            last = (last.layers if isinstance(last, keras.Sequential) else last.operations)[-1]
        activation = getattr(last, "activation", None)
        if isinstance(last, keras.layers.Softmax) and last.axis == -1:
            name, before, after = "call", None, lambda inputs, mask=None: inputs
        elif activation in (keras.activations.softmax, keras.activations.sigmoid):
            name, before, after = "activation", activation, keras.activations.linear
        else:
            return log_probabilities(self.predict_proba(X))
        expected = self.predict_proba(X[:1])
        setattr(last, name, after)
        try:
            # A layer that the model has in two places is not its end alone.
            if np.allclose(np.exp(log_softmax(self._called(X[:1]))), expected, atol=1e-4):
                return log_softmax(self._called(X))
        finally:
            setattr(last, name, before) if before else delattr(last, name)
        return log_probabilities(self.predict_proba(X))

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
            raise HeadError(f"{path}: expected a model of built-in layers, found {in_one_line(error)}") from error
        return head
