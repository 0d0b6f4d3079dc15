"""Heads of the user's own: built by a function of theirs, trained by ``keras.Model.fit``, one at a time."""

import re
import runpy
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cache.errors import DivergedError, HeadError
from stages.bases.backend import fresh_session, load_keras
from stages.heads.calibration import log_probabilities, log_softmax
from stages.heads.dense import last_layer
from stages.heads.head import PREDICT_BATCH, KerasModelHead, Rows
from stages.heads.keras_fit import best_kept, drawn, loss, metrics, optimizer, told
from stages.heads.logits import without_activation
from stages.heads.spec import KerasSpec
from stages.progress import Progress
from stages.training.early_stopping import best_epoch
from stages.training.member import class_weights

# What TensorFlow colours its messages with.
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
REASON = 300  # characters
SHOWN = 4  # probabilities


class KerasHead(KerasModelHead):
    """A head that somebody else's function builds. ``home`` is the folder that ``build`` is relative to.

    ``views`` (m, v) int32 are the places of m images, the first rows that it is fitted on, and of their views, which are among these rows
    too. The weights of the best epoch are kept, or those of the ``last``. ``each_epoch`` is given the head as it is after each epoch.
    """

    spec: KerasSpec

    def __init__(
        self,
        spec: KerasSpec,
        classes: Sequence[str],
        home: Path = Path(),
        last: bool = False,
        each_epoch: Callable[["KerasHead"], None] = lambda head: None,
        views: NDArray[np.int32] | None = None,
    ) -> None:
        super().__init__(spec, classes)
        self._views = views
        self.home, self.last, self._each_epoch = home, last, each_epoch

    def _fit(self, train: Rows, validation: Rows, progress: Progress, name: str) -> Self:
        keras, spec, start = load_keras(), self.spec, perf_counter()
        fresh_session()
        keras.utils.set_random_seed(spec.seed)
        self._core = build_model(spec, self.home, train.X.shape[1:], len(self.classes_))
        kept = best_kept(spec)
        try:
            self._core.compile(optimizer(spec), loss(spec, self._single), metrics=metrics(spec, self._single))
            with progress.task(f"Training {name}", spec.epochs, "epochs") as advance:
                tick = keras.callbacks.LambdaCallback(
                    on_epoch_end=lambda epoch, logs: (advance(1), self._each_epoch(self))
                )
                history = self._core.fit(
                    **self._trained_on(train), validation_data=self._targets(validation), epochs=spec.epochs,
                    validation_batch_size=PREDICT_BATCH,
                    callbacks=[tick] if self.last else [tick, kept], verbose=0,
                ).history  # fmt: skip
        except Exception as error:  # whatever the user's model makes Keras or its backend raise
            raise HeadError(
                f"{spec.build}: cannot be trained on features {train.X.shape[1:]} ({in_one_line(error)})"
            ) from error
        self.history_ = [
            told(spec, dict(zip(history, map(float, row), strict=True))) for row in zip(*history.values(), strict=True)
        ]
        self.best_epoch_ = best_epoch([self.history_], [1], spec.monitor)
        if self.best_epoch_ is None:
            raise DivergedError.at(spec.learning_rate)
        self.n_parameters_ = int(self._core.count_params())
        self.seconds_ = perf_counter() - start
        return self

    @property
    def _single(self) -> bool:
        """Whether the model ends in one probability, that of the second of two classes."""
        return bool(self._core.output_shape[-1] == 1)

    def _targets(self, rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        hot = np.eye(len(self.classes_), dtype=np.float32)[rows.y]
        return rows.X, hot[:, 1:] if self._single else hot

    def _trained_on(self, rows: Rows) -> dict[str, Any]:
        """What ``keras.Model.fit`` is given of the rows to train on."""
        spec, images = self.spec, rows.y if self._views is None else rows.y[: len(self._views)]
        weights = class_weights(spec, images, len(self.classes_))
        if spec.mixup or self._views is not None:
            steps = -(-len(images) // spec.batch_size)
            batches = drawn(rows, self._views, weights, spec, self._single)
            return {"x": batches, "steps_per_epoch": steps, "shuffle": False}
        X, y = self._targets(rows)
        return {"x": X, "y": y, "batch_size": spec.batch_size, "class_weight": dict(enumerate(map(float, weights)))}

    def predict_log_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-probabilities (n, number of classes), float64: of the logits, wherever the model has its last softmax or sigmoid,
        in a layer of its own or in a nested model; else of the probabilities.
        """
        expected = self.predict_proba(X[:1])
        with without_activation(self._core) as found:
            # A layer that the model has in two places is not its end alone.
            if found and np.allclose(np.exp(log_softmax(self._called(X[:1]))), expected, atol=1e-4):
                return log_softmax(self._called(X))
        return log_probabilities(self.predict_proba(X))

    def save(self, path: Path, feature_shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Write the Keras model as it was built, without optimizer and metrics, which may hold what no other process can read."""
        self._core.compiled = False
        self._core.save(path)

    @classmethod
    def load(cls, path: Path, spec: KerasSpec, classes: Sequence[str]) -> Self:
        head = cls(spec, classes)
        try:
            head._core = load_keras().saving.load_model(path, compile=False, safe_mode=True)
        except (TypeError, ValueError) as error:
            raise HeadError(f"{path}: expected a model of built-in layers, found {in_one_line(error)}") from error
        return head


def build_model(spec: KerasSpec, home: Path, shape: tuple[int, ...], n_classes: int) -> Any:
    """The untrained model for features (n, *shape). Raises HeadError where the function cannot be run, or gives no head."""
    keras = load_keras()
    name, _, function = spec.build.rpartition(":")
    path = home / name
    # As Python does for a script: what lies beside the file can be imported.
    home = path.absolute().parent
    sys.path.insert(0, str(home))
    before = set(sys.modules)
    try:
        # The file is the user's own, named in the configuration that they run.
        there = runpy.run_path(str(path))
        if function not in there:
            raise HeadError(f"{spec.build}: expected a function {function!r} in {name}, found none")
        made = there[function](shape, n_classes)
        if isinstance(made, list | tuple):
            made = keras.Sequential([keras.layers.Input(shape), *made, last_layer(n_classes)])
        if not isinstance(made, keras.Model):
            raise HeadError(f"{spec.build}: expected a Keras model or a list of layers, found {type(made).__name__}")
        found = keras.ops.convert_to_numpy(made(np.zeros((1, *shape), np.float32), training=False))
    except (HeadError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever the user's code raises, SystemExit too
        raise HeadError(f"{spec.build}: cannot be built for features {shape} ({in_one_line(error)})") from error
    finally:
        sys.path.remove(str(home))
        _forget(set(sys.modules) - before, home)
    _check_probabilities(spec, found, n_classes)
    _check_that_it_can_be_loaded(spec, made)
    return made


def _forget(modules: set[str], home: Path) -> None:
    """Import what lies beside the user's file anew the next time: a process that stays would not see that it was edited."""
    for name in modules:
        if home in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
            del sys.modules[name]


def _check_probabilities(spec: KerasSpec, found: np.ndarray, n_classes: int) -> None:
    if found.shape != (1, n_classes) and (n_classes != 2 or found.shape != (1, 1)):
        raise HeadError(f"{spec.build}: expected {n_classes} probabilities for an image, found {found.shape[1:]}")
    total, several = float(found.sum()), found.shape[1] > 1
    if not (found.min() >= 0 and found.max() <= 1) or (several and abs(total - 1) > 1e-3):
        ends = "softmax, or in one sigmoid" if n_classes == 2 else "softmax"
        values = ", ".join(f"{value:.3g}" for value in found[0, :SHOWN])
        values += ", …" if found.shape[1] > SHOWN else ""
        sums = f" that sum to 1, found {values}, which sum to {total:.3g}" if several else f", found {values}"
        raise HeadError(f"{spec.build}: expected probabilities{sums}; end in {ends}")


def _check_that_it_can_be_loaded(spec: KerasSpec, model: Any) -> None:
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
            f"{spec.build}: expected layers and functions of Keras's own, found {found}, which could not be read "
            "back without running code from the saved file"
        ) from error
    finally:
        registered.update(kept)


def _can_be_loaded(layer: Any) -> bool:
    saving = load_keras().saving
    try:
        with warnings.catch_warnings(action="ignore"):
            saving.deserialize_keras_object(saving.serialize_keras_object(layer), safe_mode=True)
    except Exception:
        return False
    return True


def in_one_line(error: BaseException) -> str:
    """The error's type and message, for a line in a terminal."""
    return f"{type(error).__name__}: {' '.join(ESCAPES.sub('', str(error)).split())[:REASON]}"
