"""Dense heads: fully connected layers on pooled features, as ordinary Keras models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from cache.errors import DivergedError
from stages.bases.backend import load_keras
from stages.heads.head import KerasModelHead, Rows
from stages.heads.pooling import L2, pool_layers
from stages.progress import Progress
from stages.training import stack
from stages.training.member import Fitted, Member
from stages.training.source import InMemory
from stages.training.spec import DenseSpec, Pool
from stages.training.together import train_all


class DenseHead(KerasModelHead):
    """A dense head. Initial weights, dropout and the order of batches follow from ``spec.seed``.

    Many heads are trained quicker by ``stages.training.together.train_all``, and come out the same.
    """

    spec: DenseSpec

    def _fit(self, train: Rows, validation: Rows, progress: Progress, name: str) -> Self:
        features = np.concatenate([pool_layers([each.X], self.spec.pool) for each in (train, validation)])
        source = InMemory(features, np.concatenate([train.y, validation.y]))
        member = Member(self.spec, np.arange(len(train.y)), np.arange(len(train.y), len(features)))
        with progress.task(f"Training {name}", self.spec.epochs, "epochs") as advance:
            (fitted,) = train_all([member], source, len(self.classes_), advance)
        return self.take(fitted, features.shape[1])

    def take(self, fitted: Fitted, inputs: int) -> Self:
        """Become the head on (n, ``inputs``) pooled features that was trained. Raises DivergedError where it came to nothing."""
        if fitted.best_epoch is None:
            raise DivergedError.at(self.spec.learning_rate)
        self._core = build_core(self.spec, inputs, len(self.classes_))
        self._core.set_weights(fitted.weights)
        self.history_, self.best_epoch_, self.seconds_ = fitted.history, fitted.best_epoch, fitted.seconds
        self.n_parameters_ = int(self._core.count_params())
        return self

    def begin(self, inputs: int) -> Self:
        """Become the untrained head on (n, ``inputs``) pooled features, with the weights that it begins with by its seed."""
        self._core = build_core(self.spec, inputs, len(self.classes_))
        shape = stack.Shape.of(self.spec, inputs, len(self.classes_))
        (weights,) = stack.initial_state([self.spec], shape).heads([0], shape)
        self._core.set_weights(weights)
        return self

    def save(self, path: Path, feature_shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Write an ordinary Keras model that takes the base's features, pooling included: one input for each layer."""
        keras = load_keras()
        if len(feature_shapes) == 1:
            (shape,) = feature_shapes.values()
            keras.Sequential([keras.layers.Input(shape, name="features"), *self.layers_on(shape)], name="head").save(
                path
            )
            return
        inputs = [keras.layers.Input(shape, name=f"features_{layer}") for layer, shape in feature_shapes.items()]
        pooled = list(inputs)
        for i, (name, shape) in enumerate(feature_shapes.items()):
            for layer in pooling_layers(self.spec.pool, f"pool_{name}", shape):
                pooled[i] = layer(pooled[i])
        out = keras.layers.Concatenate(name="pool")(pooled)
        for layer in (*scaling_layers(self.spec.pool), *self._core.layers):
            out = layer(out)
        keras.Model(inputs, out, name="head").save(path)

    def layers_on(self, shape: tuple[int, ...]) -> list[Any]:
        """The layers of the trained head on features of one layer with this shape, pooling included."""
        return [*pooling_layers(self.spec.pool, "pool", shape), *scaling_layers(self.spec.pool), *self._core.layers]

    @classmethod
    def load(cls, path: Path, spec: DenseSpec, classes: Sequence[str]) -> Self:
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
    return load_keras().Sequential([*found, last_layer(n_classes)], name="head")


def last_layer(n_classes: int) -> Any:
    """What a head ends in: one sigmoid, the probability of the second of two classes, or a softmax over more."""
    outputs, activation = (1, "sigmoid") if n_classes == 2 else (n_classes, "softmax")
    return load_keras().layers.Dense(outputs, activation=activation, name="probabilities")


def scaling_layers(pool: Pool, name: str = "pool_l2") -> list[Any]:
    """The layers that do to pooled features what ``joined`` does to arrays."""
    return [load_keras().layers.UnitNormalization(name=name)] if pool.endswith(L2) else []


def pooling_layers(pool: Pool, name: str, shape: tuple[int, ...]) -> list[Any]:
    """The layers that do to features of a shape what ``pool_features`` does to arrays."""
    layers = load_keras().layers
    kind = pool.removesuffix(L2)
    if len(shape) == 1:
        return []
    if kind == "flatten":
        return [layers.Flatten(name=name)]
    maps = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
    tokens = {"avg": layers.GlobalAveragePooling1D, "max": layers.GlobalMaxPooling1D}
    return [(tokens if len(shape) == 2 else maps)[kind](name=name)]
