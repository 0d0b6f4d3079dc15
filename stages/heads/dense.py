"""Dense heads: fully connected layers on pooled features, as ordinary Keras models with scikit-learn's face."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import DivergedError
from stages.bases.backend import load_keras
from stages.heads.metrics import log_softmax
from stages.heads.pooling import pool_features
from stages.heads.spec import KerasSpec
from stages.progress import SILENT, Progress
from stages.training.spec import DenseSpec
from stages.training.together import Fitted, InMemory, Member, train_all

PREDICT_BATCH = 1024


class Predicts:
    """What heads of Keras layers have in common: classes, history and probabilities.

    After ``fit``: ``history_`` (one dict an epoch), ``best_epoch_`` (from 1; the epoch with the lowest validation loss,
    whose weights are kept) and ``n_parameters_``.
    """

    def __init__(self, spec: DenseSpec | KerasSpec, classes: Sequence[str]) -> None:
        self.spec = spec
        self.classes_ = np.array(classes)
        self.history_: list[dict[str, float]] = []
        self.best_epoch_: int | None = None
        self.n_parameters_: int | None = None
        self.probabilities_ = "sigmoid" if len(classes) == 2 else "softmax"
        self.warnings_: list[str] = []
        self._core: Any = None

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (n, number of classes), float32."""
        out = self._called(X)
        return np.hstack([1 - out, out]) if out.shape[1] == 1 else out

    def _called(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        pooled = pool_features(X, self.spec.pool)
        to_numpy = load_keras().ops.convert_to_numpy
        # Called as it is, and not through ``predict``, which compiles a function for each head.
        blocks = [pooled[i : i + PREDICT_BATCH] for i in range(0, len(pooled), PREDICT_BATCH)]
        found = [to_numpy(self._core(block, training=False)) for block in blocks]
        return np.concatenate([np.empty((0, self._core.output_shape[-1]), np.float32), *found])

    def predict(self, X: NDArray[np.float32]) -> NDArray[Any]:
        """The name of the most probable class of each row."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


class DenseHead(Predicts):
    """A dense head: ``fit``, ``predict_proba``, ``predict``, ``classes_``. Features are (n, …) as the base gives them, or
    pooled (n, d).
    """

    spec: DenseSpec

    def fit(
        self,
        X: NDArray[np.float32],
        y: NDArray[np.int64],
        X_validation: NDArray[np.float32],
        y_validation: NDArray[np.int64],
        progress: Progress = SILENT,
        name: str = "head",
    ) -> "DenseHead":
        """Train on (n, …) features; the epoch with the lowest validation loss is kept.

        Initial weights, dropout and the order of batches follow from ``spec.seed``. Many heads are trained quicker by
        ``stages.training.together.train_all``, and come out the same. Raises HeadError where training diverges.
        """
        features = np.concatenate([pool_features(X, self.spec.pool), pool_features(X_validation, self.spec.pool)])
        source = InMemory(features, np.concatenate([y, y_validation]))
        member = Member(self.spec, np.arange(len(y)), np.arange(len(y), len(features)))
        with progress.task(f"Training {name}", self.spec.epochs, "epochs") as advance:
            (fitted,) = train_all([member], source, len(self.classes_), advance)
        return self.take(fitted, features.shape[1])

    def predict_log_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-probabilities (n, number of classes), float64: of the logits, as a head that is sure of itself has probabilities
        that float32 rounds to 0 and 1.
        """
        last = self._core.layers[-1]
        activation, last.activation = last.activation, load_keras().activations.linear
        try:
            return log_softmax(self._called(X))
        finally:
            last.activation = activation

    def take(self, fitted: Fitted, inputs: int) -> "DenseHead":
        """Become the head on (n, ``inputs``) pooled features that was trained. Raises HeadError where training diverged."""
        if fitted.best_epoch is None:
            rate = self.spec.learning_rate
            raise DivergedError(f"training diverged: the validation loss is never finite; lower learning_rate ({rate})")
        self._core = build_core(self.spec, inputs, len(self.classes_))
        self._core.set_weights(fitted.weights)
        self.history_, self.best_epoch_ = fitted.history, fitted.best_epoch
        self.n_parameters_ = int(self._core.count_params())
        return self

    def save(self, path: Path, feature_shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Write an ordinary Keras model that takes the base's features, pooling included: one input for each layer."""
        keras = load_keras()
        if len(feature_shapes) == 1:
            (shape,) = feature_shapes.values()
            layers = [keras.layers.Input(shape, name="features"), *pooling(self.spec, shape), *self._core.layers]
            keras.Sequential(layers, name="head").save(path)
            return
        inputs = [keras.layers.Input(shape, name=f"features_{layer}") for layer, shape in feature_shapes.items()]
        pooled = []
        for given, (layer, shape) in zip(inputs, feature_shapes.items(), strict=True):
            found = given
            for pool in pooling(self.spec, shape, f"pool_{layer}"):
                found = pool(found)
            pooled.append(found)
        out = keras.layers.Concatenate(name="pool")(pooled)
        for layer in self._core.layers:
            out = layer(out)
        keras.Model(inputs, out, name="head").save(path)

    @classmethod
    def load(cls, path: Path, spec: DenseSpec, classes: Sequence[str]) -> "DenseHead":
        """Read a saved head back, without running code from the file. It takes pooled features (n, d)."""
        keras = load_keras()
        head = cls(spec, classes)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        own = [layer for layer in model.layers if not layer.name.startswith(("pool", "features"))]
        head._core = keras.Sequential([keras.layers.Input(own[0].input.shape[1:]), *own])
        head.n_parameters_ = int(model.count_params())
        return head


def build_core(spec: DenseSpec, inputs: int, n_classes: int) -> Any:
    """The untrained layers on pooled features (n, ``inputs``), ending in one sigmoid for two classes, a softmax otherwise."""
    layers = load_keras().layers
    found: list[Any] = [layers.Input((inputs,))]
    # Named here, as Keras would number them on from head to head.
    for i, units in enumerate(spec.units):
        found.append(layers.Dense(units, use_bias=not spec.batch_norm, name=f"dense_{i}"))
        if spec.batch_norm:
            found.append(layers.BatchNormalization(name=f"batch_norm_{i}"))
        found.append(layers.Activation(spec.activation, name=f"activation_{i}"))
        if spec.dropout:
            found.append(layers.Dropout(spec.dropout, name=f"dropout_{i}"))
    if not spec.units and spec.dropout:
        found.append(layers.Dropout(spec.dropout, name="dropout"))
    outputs, activation = (1, "sigmoid") if n_classes == 2 else (n_classes, "softmax")
    found.append(layers.Dense(outputs, activation=activation, name="probabilities"))
    return load_keras().Sequential(found, name="head")


def pooling(spec: DenseSpec, feature_shape: tuple[int, ...], name: str = "pool") -> list[Any]:
    """The layer that does to feature maps what ``pool_features`` does to arrays."""
    keras = load_keras()
    if len(feature_shape) == 1:
        return []
    kinds = {
        "flatten": keras.layers.Flatten,
        "avg": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
    }
    return [kinds[spec.pool](name=name)]


def optimizer(spec: DenseSpec | KerasSpec) -> Any:
    """The Keras optimizer that the spec names; weight decay is decoupled from the gradient, as in AdamW."""
    keras = load_keras()
    kinds = {
        "rmsprop": keras.optimizers.RMSprop,
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "sgd": keras.optimizers.SGD,
    }
    extra: dict[str, Any] = {"momentum": spec.momentum} if spec.optimizer == "sgd" else {}
    if spec.weight_decay or spec.optimizer == "adamw":
        extra["weight_decay"] = spec.weight_decay
    return kinds[spec.optimizer](learning_rate=spec.learning_rate, **extra)


def loss(spec: DenseSpec | KerasSpec, n_classes: int) -> Any:
    """Cross-entropy, binary for two classes, with the spec's label smoothing."""
    losses = load_keras().losses
    kind = losses.BinaryCrossentropy if n_classes == 2 else losses.CategoricalCrossentropy
    return kind(label_smoothing=spec.label_smoothing)
