"""One Keras model from images to probabilities: resizing, preprocessing, bases, pooling, heads and temperature.

It is made of Keras's own layers and operations, so that Keras alone reads it, with ``safe_mode``.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cache.errors import BaseError, HeadError
from stages.bases.backend import load_keras
from stages.bases.model import build, output_at
from stages.bases.parts import check_base
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.data.policy import Resize
from stages.export.linear import linear
from stages.export.resizing import RESIZED, resized
from stages.heads.baselines import SklearnHead
from stages.heads.calibration import EPSILON, log_softmax
from stages.heads.dense import pooling_layers, scaling_layers
from stages.heads.ensemble import EnsembleHead
from stages.heads.head import Head
from stages.heads.logits import activated_end
from stages.heads.results import HEADS, whole_result
from stages.heads.train import load_head
from stages.heads.tuned import from_pixels, prepared
from stages.heads.tuned_spec import ON_IMAGES, CnnSpec

IMAGES, PROBABILITIES = "images", "probabilities"
# Of a softmax in float32.
LEAST = 1e-37


class Built(NamedTuple):
    """A base: its spec, and where its weights are."""

    spec: BaseSpec
    weights: Weights


class Features:
    """Symbolic features of images, by base and layer, of those that the result of a head ``needs``.

    Each base is there once, with all its layers as outputs: of layers that two models share, a file would keep the weights of one.
    """

    def __init__(self, bases: Mapping[str, Built], needs: Sequence[Mapping[str, Any]]) -> None:
        keras = load_keras()
        self._bases = bases
        self._sized: dict[tuple[tuple[int, int], Resize], Any] = {}
        self._found: dict[tuple[str, str], Any] = {}
        self._names: set[str] = set()
        # Before anything else is made, as a base begins to number layers anew.
        of_base: dict[str, list[str]] = {}
        for told in needs:
            if told["layers"]:
                of_base.setdefault(told["base"], []).extend(told["layers"])
        built = {base: self._built(base) for base in of_base}
        self.images = keras.Input((None, None, 3), dtype="uint8", name=IMAGES)
        for i, (base, whole) in enumerate(built.items()):
            layers, spec = list(dict.fromkeys(of_base[base])), self.spec(base)
            outputs = [output_at(whole, layer) for layer in layers]
            part = keras.Model(whole.input, outputs if outputs[1:] else outputs[0], name=self.name("base", base))
            found = part(prepared(self.sized(spec), spec, f"preprocess_input_{i}"), training=False)
            for layer, each in zip(layers, found if outputs[1:] else [found], strict=True):
                self._found[base, layer] = each

    def _built(self, base: str) -> Any:
        spec = self.spec(base)
        check_base(spec)
        return build(spec, self._bases[base].weights, "float32")

    def name(self, *parts: str) -> str:
        """A name that TensorFlow takes for a scope, and that no other layer has."""
        found = "_".join("".join(c if c.isascii() and c.isalnum() else "_" for c in part) for part in parts)
        while found in self._names:
            found += "_"
        self._names.add(found)
        return found

    def spec(self, base: str) -> BaseSpec:
        """That of a base. Raises BaseError where it is not configured."""
        if base not in self._bases:
            raise BaseError(f"base {base!r}: expected one that is configured, found none; bring it back")
        return self._bases[base].spec

    def sized(self, spec: BaseSpec) -> Any:
        """Images (n, height, width, 3), float32 from 0 to 255, as a base's files are resized."""
        key = (spec.input_size, spec.resizing)
        if key not in self._sized:
            self._sized[key] = resized(self.images, *key, name=f"{RESIZED}_{len(self._sized)}")
        return self._sized[key]

    def of(self, base: str, layers: Sequence[str]) -> list[Any]:
        """The features of some layers."""
        return [self._found[base, layer] for layer in layers]


def whole_model(folder: Path, bases: Mapping[str, Built]) -> Any:
    """The model of the trained head in a folder: images (n, any height, any width, 3) uint8 → probabilities (n, classes), those that
    ``predict`` gives for the images as files.

    Raises HeadError for a head that has no form as layers, BaseError for a base that has none.
    """
    keras = load_keras()
    result = whole_result(folder)
    features = Features(bases, result.get("heads", [result]))
    logs = _scores(folder, features)
    return keras.Model(features.images, keras.layers.Softmax(name=PROBABILITIES)(logs), name="headstart")


def image_model(folder: Path, bases: Mapping[str, Built]) -> Any:
    """The model of the trained head in a folder, from RGB images (n, height, width, 3), float32 from 0 to 255 and of the input size, to
    probabilities before the temperature: (n, classes), or (n, 1) for the second of two classes.

    Raises HeadError for a head that is no Keras model of one layer, and BaseError for a base that is none.
    """
    result = whole_result(folder)
    kind, layers = result["kind"], result["layers"]
    if kind in ("sklearn", "ensemble") or len(layers) > 1:
        found = f"one on {', '.join(layers)}" if len(layers) > 1 else f'one of kind "{kind}"'
        raise HeadError(f"{folder}: expected a head that is a Keras model of the features of one layer, found {found}")
    model = _keras_model(folder)
    if not layers:  # trained on images
        return model
    spec, weights = bases[result["base"]]
    check_base(spec)
    return from_pixels(build(spec, weights, "float32"), spec, layers[0], model)


def _scores(folder: Path, features: Features) -> Any:
    """What a softmax makes the head's probabilities of, after its temperature: (n, classes)."""
    result = whole_result(folder)
    head, t = load_head(folder), result.get("temperature", 1.0)
    name = features.name("temperature", folder.name)
    try:
        if isinstance(head, EnsembleHead):
            return _cooled(_average(folder, head, features), t, name)
        return _cooled(_logits(folder, head, result, features), t, name)
    except HeadError as error:
        raise HeadError(f"head {folder.name!r}: {error}") from None


def _average(folder: Path, head: EnsembleHead, features: Features) -> Any:
    keras = load_keras()
    means = [
        told["weight"] * keras.layers.Softmax()(_scores(folder / HEADS / told["head"], features))
        for told, _ in head.voters
    ]
    return _logs(sum(means[1:], means[0]))


def _logits(folder: Path, head: Head, result: Mapping[str, Any], features: Features) -> Any:
    """Of one head: logits (n, classes), or (n, 1) of the second of two classes, as its ``predict_log_proba`` has them."""
    name = features.name("head", folder.name)
    if isinstance(head, SklearnHead):
        return _of_baseline(head, features.of(result["base"], result["layers"]), name)
    model = _keras_model(folder)
    if isinstance(head.spec, ON_IMAGES):
        spec = head.spec.images if isinstance(head.spec, CnnSpec) else features.spec(result["base"])
        taken = [features.sized(spec)]
    else:
        taken = features.of(result["base"], result["layers"])
    log = _end_in_logits(model)
    inputs = model.inputs if len(taken) > 1 else model.inputs[0]
    found = load_keras().Model(inputs, model.outputs[0], name=name)(
        taken if len(taken) > 1 else taken[0], training=False
    )
    return log(found) if log else found


def _of_baseline(head: SklearnHead, features: Sequence[Any], name: str) -> Any:
    keras = load_keras()
    kernel, bias, ending, scaling = linear(head)
    pooled = []
    for i, each in enumerate(features):
        for layer in pooling_layers(head.spec.pool, f"{name}_pool_{i}", tuple(each.shape[1:])):
            each = layer(each)
        pooled.append(each)
    x = pooled[0] if len(pooled) == 1 else keras.layers.Concatenate(name=f"{name}_pool")(pooled)
    for layer in scaling_layers(head.spec.pool, f"{name}_l2"):
        x = layer(x)
    if scaling is not None:
        # Of this layer TensorFlow makes a difference and a division, which LiteRT leaves; a product and a sum it puts into the weights.
        mean, scale = scaling
        x = keras.layers.Normalization(mean=mean, variance=scale**2, name=f"{name}_scale")(x)
    layer = keras.layers.Dense(len(bias), name=name)
    found = layer(x)
    layer.set_weights([kernel, bias])
    if ending == "softmax":
        return found
    if len(bias) == 1:
        p = keras.ops.sigmoid(found)
        return _logs(keras.ops.concatenate([1.0 - p, p], axis=-1))
    if ending == "floored":
        return _logs(keras.layers.Softmax()(found))
    p = keras.ops.sigmoid(found)
    return _logs(p / keras.ops.sum(p, axis=-1, keepdims=True))


def _logs(p: Any, least: float = EPSILON) -> Any:
    """Logarithms of probabilities, as ``stages.heads.calibration.log_probabilities`` has them but for what a softmax takes off."""
    ops = load_keras().ops
    return ops.log(ops.maximum(p, least))


def _keras_model(folder: Path) -> Any:
    path = folder / "model.keras"
    try:
        return load_keras().saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, TypeError, ValueError) as error:
        raise HeadError(f"{path}: expected a Keras model, found what cannot be read ({error})") from error


def _end_in_logits(model: Any) -> Callable[[Any], Any] | None:
    """Have a model that ends in probabilities end in logits; where it cannot, what makes logarithms of its probabilities."""
    keras = load_keras()
    last, plain = activated_end(model)
    if plain is None:
        return _two_logs
    shapes = [tuple(side or 1 for side in each.shape[1:]) for each in model.inputs]
    probe = [np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32) for shape in shapes]

    def called() -> Any:
        return keras.ops.convert_to_numpy(model(probe if len(probe) > 1 else probe[0], training=False))

    expected = called()
    if isinstance(last, keras.layers.Softmax):
        return lambda p: _logs(p, LEAST)
    before, last.activation = last.activation, plain
    found = np.exp(log_softmax(called()))
    # A layer that the model has in two places is not its end alone.
    if np.allclose(found[:, -expected.shape[1] :], expected, atol=1e-4):
        return None
    last.activation = before
    return _two_logs


def _two_logs(p: Any) -> Any:
    ops = load_keras().ops
    return _logs(ops.concatenate([1.0 - p, p], axis=-1) if p.shape[-1] == 1 else p)


def _cooled(logs: Any, t: float, name: str) -> Any:
    """Logits (n, classes) divided by a temperature, of which a softmax makes probabilities."""
    layers = load_keras().layers
    if logs.shape[-1] > 1:
        return layers.Rescaling(1 / t, name=name)(logs)
    layer = layers.Dense(2, use_bias=False, name=name)
    found = layer(logs)
    layer.set_weights([np.array([[0.0, 1 / t]], np.float32)])
    return found
