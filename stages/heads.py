"""Dense heads: fully connected layers on pooled features, trained by Keras, with scikit-learn's face."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.backend import load_keras
from stages.dataset import pool_features
from stages.progress import SILENT, Progress
from stages.specs import DenseSpec

PREDICT_BATCH = 1024


class DenseHead:
    """A dense head: ``fit``, ``predict_proba``, ``predict``, ``classes_``.

    After ``fit``: ``history_`` (one dict an epoch), ``best_epoch_`` (from 1; the epoch with the lowest validation loss,
    whose weights are kept) and ``n_parameters_``. Features are (n, …) as the base gives them, or pooled (n, d).
    """

    def __init__(self, spec: DenseSpec, classes: Sequence[str]) -> None:
        self.spec = spec
        self.classes_ = np.array(classes)
        self.history_: list[dict[str, float]] = []
        self.best_epoch_: int | None = None
        self.n_parameters_: int | None = None
        self.probabilities_ = "sigmoid" if len(classes) == 2 else "softmax"
        self.warnings_: list[str] = []
        self._core: Any = None

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

        Initial weights, dropout and the order of batches follow from ``spec.seed``, as they do in a plain Keras script
        that calls ``keras.utils.set_random_seed`` and ``fit(shuffle=True)``.
        """
        keras = load_keras()
        spec = self.spec
        X, X_validation = pool_features(X, spec.pool), pool_features(X_validation, spec.pool)
        keras.utils.clear_session()
        keras.utils.set_random_seed(spec.seed)
        self._core = build_core(spec, X.shape[1], len(self.classes_))
        self._core.compile(optimizer=optimizer(spec), loss=loss(spec, len(self.classes_)), metrics=["accuracy"])
        with progress.task(f"Training {name}", spec.epochs, "epochs") as advance:
            stop = keras.callbacks.EarlyStopping(
                monitor="val_loss", patience=spec.patience or spec.epochs, restore_best_weights=True
            )
            tick = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: advance(1))
            history = self._core.fit(
                X,
                self._targets(y),
                validation_data=(X_validation, self._targets(y_validation)),
                epochs=spec.epochs,
                batch_size=spec.batch_size,
                validation_batch_size=PREDICT_BATCH,
                class_weight=self._class_weight(y),
                callbacks=[stop, tick],
                verbose=0,
            ).history
        self.history_ = [
            {name: float(values[i]) for name, values in history.items()} for i in range(len(history["loss"]))
        ]
        losses = history["val_loss"]
        if not np.isfinite(losses).any():
            raise HeadError(
                f"training diverged: the validation loss is never finite; lower learning_rate ({spec.learning_rate})"
            )
        self.best_epoch_ = int(np.nanargmin(losses)) + 1
        self.n_parameters_ = int(self._core.count_params())
        return self

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (n, number of classes), float32."""
        out = np.asarray(
            self._core.predict(pool_features(X, self.spec.pool), batch_size=PREDICT_BATCH, verbose=0), np.float32
        )
        return np.hstack([1 - out, out]) if len(self.classes_) == 2 else out

    def predict(self, X: NDArray[np.float32]) -> NDArray[Any]:
        """The name of the most probable class of each row."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

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

    def _targets(self, y: NDArray[np.int64]) -> NDArray[np.float32]:
        if len(self.classes_) == 2:
            return y.astype(np.float32)[:, None]
        return np.eye(len(self.classes_), dtype=np.float32)[y]

    def _class_weight(self, y: NDArray[np.int64]) -> dict[int, float] | None:
        """Weights inversely proportional to the classes' frequencies, as scikit-learn's "balanced"."""
        if self.spec.class_weight is None:
            return None
        counts = np.bincount(y, minlength=len(self.classes_))
        return {i: float(len(y) / (len(counts) * max(count, 1))) for i, count in enumerate(counts)}


def build_core(spec: DenseSpec, inputs: int, n_classes: int) -> Any:
    """The untrained layers on pooled features (n, ``inputs``), ending in one sigmoid for two classes, a softmax otherwise."""
    keras = load_keras()
    layers: list[Any] = [keras.layers.Input((inputs,))]
    for units in spec.units:
        layers.append(keras.layers.Dense(units, use_bias=not spec.batch_norm))
        if spec.batch_norm:
            layers.append(keras.layers.BatchNormalization())
        layers.append(keras.layers.Activation(spec.activation))
        if spec.dropout:
            layers.append(keras.layers.Dropout(spec.dropout))
    if not spec.units and spec.dropout:
        layers.append(keras.layers.Dropout(spec.dropout))
    outputs, activation = (1, "sigmoid") if n_classes == 2 else (n_classes, "softmax")
    layers.append(keras.layers.Dense(outputs, activation=activation, name="probabilities"))
    return keras.Sequential(layers)


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


def optimizer(spec: DenseSpec) -> Any:
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


def loss(spec: DenseSpec, n_classes: int) -> Any:
    """Cross-entropy, binary for two classes, with the spec's label smoothing."""
    losses = load_keras().losses
    kind = losses.BinaryCrossentropy if n_classes == 2 else losses.CategoricalCrossentropy
    return kind(label_smoothing=spec.label_smoothing)
