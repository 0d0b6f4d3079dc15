"""Heads that are whole Keras models: with the last layers of a base, with a base, or with convolutions of their own."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.bases.backend import load_keras
from stages.bases.model import preprocessing
from stages.bases.parts import Tail, part_between
from stages.bases.spec import BaseSpec
from stages.heads.batches import SCORED
from stages.heads.dense import DenseHead, last_layer
from stages.heads.head import KerasModelHead, Rows
from stages.heads.tuned_spec import CnnSpec, EndToEndSpec
from stages.progress import Progress
from stages.training.member import Fitted

IMAGES = "images"


class TunedHead(KerasModelHead):
    """A head that takes the activations of a layer of its base (n, …), or flattened (n, d); or RGB images (n, height, width, 3), 0…255."""

    def take(self, model: Any, fitted: Fitted, images_read: int) -> Self:
        """Become the head of a model that was trained."""
        # Without its optimizer, which would be saved with it.
        self._core = load_keras().Model(model.input, model.output, name=model.name)
        self.history_, self.best_epoch_, self.seconds_ = fitted.history, fitted.best_epoch, fitted.seconds
        self.n_parameters_ = int(model.count_params())
        self.told_ = {"images_read": images_read}
        return self

    def _fit(self, train: Rows, validation: Rows, progress: Progress, name: str) -> NoReturn:
        raise HeadError(f"a head of kind {self.spec.kind!r} is trained by `make heads` alone; run it")

    @property
    def input_shape_(self) -> tuple[int, ...]:
        """The shape of what it takes of one image."""
        return tuple(self._core.input_shape[1:])

    def _called(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        to_numpy = load_keras().ops.convert_to_numpy
        X = X.reshape(len(X), *self.input_shape_)
        found = [
            to_numpy(self._core(X[i : i + SCORED].astype(np.float32), training=False)) for i in range(0, len(X), SCORED)
        ]
        return np.concatenate([np.empty((0, self._core.output_shape[-1]), np.float32), *found])

    def save(self, path: Path, feature_shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Write the Keras model as it was trained."""
        self._core.save(path)

    @classmethod
    def load(cls, path: Path, spec: Any, classes: Sequence[str]) -> Self:
        head = cls(spec, classes)
        try:
            head._core = load_keras().saving.load_model(path, compile=False, safe_mode=True)
        except (OSError, TypeError, ValueError) as error:
            raise HeadError(f"{path}: expected a Keras model, found what cannot be read ({error})") from error
        head.n_parameters_ = int(head._core.count_params())
        return head


def finetuned(base: Any, tail: Tail, dense: DenseHead) -> Any:
    """The model from the activations before a tail of a ``base`` to the probabilities of a trained dense head, all of it trained.

    Batch normalisation is frozen, and the base's layers work as they do when it extracts: F. Chollet, "Transfer learning &
    fine-tuning", https://keras.io/guides/transfer_learning/.
    """
    keras = load_keras()
    part = part_between(base, tail.before, tail.end)
    thaw(part)
    inputs = keras.Input(tail.shape, name=f"features_{tail.before}")
    return keras.Model(inputs, _through(dense, part(inputs, training=False)), name="finetuned")


def on_base(base: Any, spec: BaseSpec, end: str, tail: Tail | None, head: EndToEndSpec, classes: Sequence[str]) -> Any:
    """The model from images to the probabilities of new dense layers on a ``base``, which is frozen but for a tail of it."""
    keras = load_keras()
    body = part_between(base, None, end)
    for layer in body._flatten_layers(include_self=False):
        layer.trainable = False
    if tail:
        thaw(part_between(base, tail.cut.before, end))
    inputs = images_of(spec.input_size)
    features = body(prepared(inputs, spec), training=False)
    shape = tuple(features.shape[1:])
    width = math.prod(shape) if head.pool.startswith("flatten") else shape[-1]
    dense = DenseHead(head.dense, classes).begin(width)
    return keras.Model(inputs, _through(dense, features), name="end_to_end")


def network(spec: CnnSpec, n_classes: int) -> Any:
    """An untrained network of convolutions, each with max pooling, and dense layers. Its weights follow from Keras's seed."""
    layers = load_keras().layers
    found = [layers.Rescaling(1 / 255, name="rescaling")]
    for i, filters in enumerate(spec.filters):
        found += [
            layers.Conv2D(filters, 3, activation="relu", name=f"conv_{i}"),
            layers.MaxPooling2D(2, name=f"pool_{i}"),
        ]
    found.append(layers.Flatten(name="flatten"))
    for i, units in enumerate(spec.units):
        found.append(layers.Dense(units, activation="relu", name=f"dense_{i}"))
    found.append(layers.Dropout(spec.dropout, name="dropout"))
    found.append(last_layer(n_classes))
    inputs = x = images_of(spec.input_size)
    for layer in found:
        x = layer(x)
    return load_keras().Model(inputs, x, name="cnn")


def images_of(size: tuple[int, int]) -> Any:
    """The input of a model of RGB images, float32 from 0 to 255."""
    return load_keras().Input((*size, 3), name=IMAGES)


def prepared(images: Any, spec: BaseSpec, name: str = "preprocess_input") -> Any:
    """Images as a base expects them. All preprocessing is affine in the colours of a pixel: a convolution of 1×1, which any Keras reads."""
    keras = load_keras()
    layer = keras.layers.Conv2D(3, 1, name=name, trainable=False)
    found = layer(images)
    colours = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).astype(np.float32)[None, :, None]
    black, *others = np.asarray(keras.ops.convert_to_numpy(preprocessing(spec)(colours)), np.float64)[0, :, 0]
    kernel = np.stack([(each - black) / 255 for each in others])
    layer.set_weights([kernel[None, None].astype(np.float32), black.astype(np.float32)])
    return found


def thaw(part: Any) -> None:
    """Have all layers of a part of a base trained but those of batch normalisation."""
    part.trainable = True
    # Each by itself: a model that shares layers with another does not tell them.
    for layer in part._flatten_layers(include_self=False):
        layer.trainable = not isinstance(layer, load_keras().layers.BatchNormalization)


def from_pixels(base: Any, spec: BaseSpec, layer: str, head: Any) -> Any:
    """One Keras model from RGB images (n, height, width, 3), float32 from 0 to 255, to what ``head``, a Keras model, says of the
    features of a layer of a ``base``.
    """
    images = images_of(spec.input_size)
    features = part_between(base, None, layer)(prepared(images, spec), training=False)
    return load_keras().Model(images, head(features, training=False), name="from_pixels")


def _through(dense: DenseHead, x: Any) -> Any:
    """What the layers of a dense head give for features."""
    for layer in dense.layers_on(tuple(x.shape[1:])):
        x = layer(x)
    return x
