"""The Keras model of a base: built, given its weights, cut at layers, preprocessing in front."""

import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import BaseError
from stages.bases import backend
from stages.bases.catalogue import BASES, OURS
from stages.bases.cuts import Layer, check_layers
from stages.bases.lite import efficientnet_lite0
from stages.bases.packaged import PACKAGED, as_torchvision
from stages.bases.spec import OUTPUT, SOURCES, BaseSpec
from stages.bases.weights import Weights

OTHER_GRAPH = "EfficientNetB"
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def preprocessing(spec: BaseSpec) -> Callable[[Any], Any]:
    """The base's own ``preprocess_input``: float32 RGB (n, height, width, 3) in 0…255 → what its weights expect.

    For a user's own base, and for packaged weights that want another, that of the spec's style; for any base, the numbers that the
    spec has in its place.
    """
    if (affine := spec.affine()) is not None:
        times, plus = (np.asarray(each, np.float32) for each in affine)
        reverse = spec.order == "bgr"
        return lambda x: (x[..., ::-1] if reverse else x) * times + plus
    if spec.style == "lite":
        return lambda x: (x - 127.0) / 128.0
    applications = backend.load_keras().applications
    if not spec.brought and spec.style == BASES[spec.name].preprocess:
        module = getattr(applications, BASES[spec.name].module)
        return partial(module.preprocess_input, data_format="channels_last")
    if spec.style == "none":
        return lambda x: x
    return partial(applications.imagenet_utils.preprocess_input, data_format="channels_last", mode=spec.style)


def with_preprocessing(model: Any, spec: BaseSpec) -> Any:
    """The model from uint8 images on, so that casting and preprocessing are compiled with it."""
    keras = backend.load_keras()
    preprocess = preprocessing(spec)
    # A layer of its own policy, so that pixels are never rounded to bfloat16 before they are preprocessed.
    first = keras.layers.Lambda(
        lambda x: preprocess(keras.ops.cast(x, "float32")),
        output_shape=(*spec.input_size, 3),
        dtype="float32",
        name="preprocess_input",
    )
    images = keras.Input((*spec.input_size, 3), dtype="uint8", name="images")
    return keras.Model(images, model(first(images)))


def build(spec: BaseSpec, weights: Weights, precision: str) -> Any:
    """The whole base, without its top unless the spec says so, with its weights, for ``spec.input_size``."""
    if spec.own_file:
        return _own_model(spec, precision)
    if spec.weights not in SOURCES and spec.name.startswith(OTHER_GRAPH):
        raise BaseError(
            f"{spec.name}: Keras builds it differently for its ImageNet weights, so that a file of them does not fit; "
            'expected weights "imagenet" or "random"; or choose EfficientNetV2'
        )
    keras = backend.load_keras()
    # Keras gives the first EfficientNets another graph with "imagenet" than without: they are built by it each time.
    fetch = spec.weights == "imagenet" and (spec.name.startswith(OTHER_GRAPH) or not weights.fetched)
    try:
        with backend.fresh_names(POLICIES[precision]):
            shape = (*spec.input_size, 3)
            if spec.name in OURS:
                model = efficientnet_lite0(shape)
            else:
                constructor = getattr(keras.applications, spec.name)
                model = constructor(
                    include_top=spec.include_top, weights="imagenet" if fetch else None, input_shape=shape
                )
            if spec.packaged and spec.packaged.graph:
                model = as_torchvision(model)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        if fetch and not isinstance(error, ValueError):
            raise BaseError(
                f'weights "imagenet" of {spec.name} cannot be fetched ({reason}); connect this machine once, or set weights '
                "to a file that was downloaded elsewhere (path/to/…_notop.h5), "
                f'or to "packaged" ({", ".join(PACKAGED)}) or "random" to try things out'
            ) from error
        height, width = spec.input_size
        raise BaseError(f"{spec.name} at {height}×{width}: cannot be built ({reason}); mend input_size") from error
    try:
        weights.load(model)
    except ValueError as error:  # dense layers have as many weights as the image has places
        reason = " ".join(str(error).split())[:200]
        raise BaseError(
            f"{spec.name} at {spec.input_size[0]}×{spec.input_size[1]}: its weights do not fit ({reason}); "
            "with include_top, set input_size to what they were trained with"
        ) from error
    model.trainable = False
    return model


def _read_model(spec: BaseSpec) -> tuple[Any, tuple[int, int]]:
    """A user's own model, read without running code from it, and the (height, width) it takes, or else the spec's."""
    keras = backend.load_keras()
    path = spec.weights
    if not zipfile.is_zipfile(path):
        what = "another kind of file" if Path(path).exists() else "no such file"
        raise BaseError(f"{path}: expected a Keras model (.keras), found {what}")
    try:
        with backend.fresh_names(POLICIES["float32"]):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises ValueError, TypeError, OSError and more
        reason = " ".join(str(error).split())[:300]
        raise BaseError(f"{path}: expected a Keras model of built-in layers, found {reason}") from error
    try:
        shape = tuple(model.input_shape) if isinstance(model.input_shape, tuple) else ()
        outputs = len(model.outputs)
    except AttributeError:  # a Sequential that was saved before it was built
        shape, outputs = (), 0
    if len(shape) != 4 or shape[3] != 3 or outputs != 1:
        raise BaseError(f"{path}: expected a model of RGB images (height, width, 3) with one output, found {shape[1:]}")
    return model, (shape[1] or spec.input_size[0], shape[2] or spec.input_size[1])


def own_size(spec: BaseSpec) -> tuple[int, int]:
    """The (height, width) that a user's own base takes, and the spec's where it takes any."""
    return _read_model(spec)[1]


def _own_model(spec: BaseSpec, precision: str) -> Any:
    keras = backend.load_keras()
    model, wanted = _read_model(spec)
    if wanted != spec.input_size:
        raise BaseError(
            f"{spec.weights}: expected images of {wanted[0]}×{wanted[1]}, found input_size = {list(spec.input_size)}; "
            f"set input_size = {list(wanted)}"
        )
    # A Sequential lists its layers differently, and has no outputs to cut at.
    sequential, model = isinstance(model, keras.Sequential), keras.Model(model.inputs[0], model.outputs[0])
    if sequential:
        # Its layers were called once for each that was added, and remember all of these calls: which is the model's, they do not tell.
        values, model = model.get_weights(), keras.models.clone_model(model)
        model.set_weights(values)
    if precision != "float32":
        _set_policy(model, POLICIES[precision])
    model.trainable = False
    return model


def _set_policy(model: Any, policy: str) -> None:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            _set_policy(layer, policy)
        else:
            layer.dtype_policy = policy


def cut(model: Any, layers: Sequence[str], name: str) -> Any:
    """The model up to ``layers``, with a list of their outputs. Raises BaseError with the layers that there are."""
    check_layers([*(each.name for each in model.layers[1:]), OUTPUT], layers, name)
    outputs = [output_at(model, layer) for layer in layers]
    return backend.load_keras().Model(model.input, outputs)


def output_at(model: Any, layer: str) -> Any:
    """The output of a layer of a whole base; of ``OUTPUT``, that of the base. Raises BaseError for a layer that there is not."""
    there = [each.name for each in model.layers[1:]]
    check_layers([*there, OUTPUT], [layer], model.name)
    return model.outputs[0] if layer == OUTPUT and layer not in there else model.get_layer(layer).output


def layers_of(spec: BaseSpec, weights: Weights) -> list[Layer]:
    """The layers at which a base can be cut, from input to output. ``weights`` are not fetched where they are missing."""
    keras = backend.load_keras()
    model = build(spec, weights, "float32")
    layers = [layer for layer in model.layers[1:] if not isinstance(layer.output, list | tuple | dict)]
    # A model of one's own may take images of any size, so that its shapes are known for a given one alone.
    image = keras.KerasTensor((1, *spec.input_size, 3))
    outputs = keras.Model(model.input, [layer.output for layer in layers]).compute_output_spec(image)
    return [
        Layer(layer.name, type(layer).__name__, tuple(output.shape[1:]), layer.count_params())
        for layer, output in zip(layers, outputs if isinstance(outputs, list) else [outputs], strict=True)
    ]
