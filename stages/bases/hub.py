"""A base of KerasHub (https://keras.io/keras_hub/): a preset, or the folder of one, from pixels to any of its layers.

Transformers hide their blocks inside one layer. Those inner layers can be cut at too, as ``encoder/block``: their outputs are
recorded while the outer layer is computed, or traced.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from cache.errors import BaseError
from cache.files import TEMPORARY_PREFIX
from stages.bases import backend
from stages.bases.cuts import Layer, check_layers
from stages.bases.engines import load_extra
from stages.bases.presets import CONFIG, check_trusted, fetched_preset, model_path, read_config
from stages.bases.spec import OUTPUT, BaseSpec
from stages.fields import did_you_mean


def fetch(spec: BaseSpec, folder: Path) -> None:
    """Fetch a preset by its name, and keep it in ``folder`` as files. Raises BaseError where it cannot be fetched."""
    hub = _keras_hub(spec)
    kept = fetched_preset(spec, folder)
    if "://" not in spec.weights and spec.weights not in hub.models.Backbone.presets:
        raise BaseError(
            f"base {spec.name!r}: expected a preset of KerasHub, or the folder of one, found neither"
            f"{did_you_mean(spec.weights, hub.models.Backbone.presets)}; mend name (https://keras.io/keras_hub/presets/ lists them)"
        )
    try:
        with backend.without_chatter(), backend.fresh_names("float32"):
            _look_at(spec.weights)
            model = hub.models.Backbone.from_preset(spec.weights)
            try:
                converter = hub.layers.ImageConverter.from_preset(spec.weights)
            except (ValueError, FileNotFoundError):  # a base without one takes pixels as they are
                converter = None
    except BaseError:
        raise
    except Exception as error:  # of the network, of Kaggle and Hugging Face, of KerasHub itself
        reason = " ".join(str(error).split())[:300]
        raise BaseError(
            f"base {spec.name!r} cannot be fetched ({reason}); connect this machine once, or name the folder of a preset that was "
            'saved elsewhere with save_to_preset: name = "hub:path/to/folder"'
        ) from error
    kept.parent.mkdir(parents=True, exist_ok=True)
    # Of this process alone: another one may be fetching the same, and `prune` leaves what a living process writes.
    partly = kept.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{kept.name}")
    try:
        model.save_to_preset(str(partly))
        if converter is not None:
            converter.save_to_preset(str(partly))
        with suppress(OSError):  # another process was quicker
            partly.rename(kept)
    finally:
        shutil.rmtree(partly, ignore_errors=True)


def _keras_hub(spec: BaseSpec) -> Any:
    """The package, imported as quietly as Keras, which it would import itself."""
    backend.load_keras()
    with backend.without_chatter():
        return load_extra("keras_hub", "hub", f"base {spec.name!r}")


def _look_at(preset: str) -> None:
    """Raise BaseError where the configuration of a preset that is not here yet names code from elsewhere."""
    get_file = import_module("keras_hub.src.utils.preset_utils").get_file
    for name in (CONFIG, "image_converter.json"):
        with suppress(FileNotFoundError):
            check_trusted(json.loads(Path(get_file(preset, name)).read_text(encoding="utf-8")), f"{preset}/{name}")


def _tower(spec: BaseSpec, path: Path, policy: str) -> Any:
    """The part of a preset that takes images and nothing else."""
    hub = _keras_hub(spec)
    read_config(path)
    try:
        with backend.without_chatter(), backend.fresh_names(policy):
            model = hub.models.Backbone.from_preset(str(path), dtype=policy)
            if len(model.inputs) > 1 and (inner := getattr(model, "vision_encoder", None)) is not None:
                # Of images and texts; the inner model keeps the policy that it was saved with.
                model = type(inner).from_config({**inner.get_config(), "dtype": policy})
                model.set_weights(inner.get_weights())
    except Exception as error:  # KerasHub and Keras raise ValueError, TypeError, KeyError, OSError and more
        reason = " ".join(str(error).split())[:300]
        raise BaseError(f"{path}: expected a KerasHub preset of an image model, found {reason}") from error
    shapes = [tuple(each.shape) for each in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] != 3:
        raise BaseError(f"{path}: expected a model of RGB images (height, width, 3) alone, found inputs {shapes}")
    wanted = [taken or asked for taken, asked in zip(shapes[0][1:3], spec.input_size, strict=True)]
    if tuple(wanted) != spec.input_size:
        raise BaseError(
            f"{path}: expected images of {wanted[0]}×{wanted[1]}, found input_size = {list(spec.input_size)}; set input_size = {wanted}"
        )
    model.trainable = False
    return model


def _inner(model: Any) -> dict[str, Any]:
    """The layers inside the layers of a model, of which there may be some that are not computed."""
    return {
        f"{outer.name}/{inner.name}": inner
        for outer in model.layers
        for inner in outer._flatten_layers(include_self=False, recursive=False)
    }


def _shapes(model: Any, size: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The shape of the output of one image at each place to cut, seen by computing one."""
    keras = backend.load_keras()
    whole, inner = _whole(model), _inner(model)
    seen: dict[str, Any] = {}
    with _listening(inner, seen):
        found = _call(keras.Model(model.input, list(whole.values())), keras.ops.zeros((1, *size, 3)))
    return {name: tuple(each.shape[1:]) for name, each in (dict(zip(whole, found, strict=True)) | seen).items()}


def cut(spec: BaseSpec, folder: Path, precision: str, layers: Sequence[str]) -> Any:
    """The Keras model from prepared pixels (n, height, width, 3) to a list of the outputs of ``layers``."""
    keras = backend.load_keras()
    model = _tower(spec, model_path(spec, folder), {"float32": "float32"}.get(precision, f"mixed_{precision}"))
    whole, inner = _whole(model), _inner(model)
    if not set(layers) <= set(whole):
        check_layers(list(_shapes(model, spec.input_size)), layers, spec.name)
    norm = _final_norm(model, spec, layers) if spec.final_norm else None
    recorder = _recorder(model, layers, whole, inner, norm)
    pixels = keras.Input((*spec.input_size, 3), name="prepared")
    return keras.Model(pixels, recorder(pixels))


def _recorder(model: Any, layers: Sequence[str], whole: Mapping[str, Any], inner: Mapping[str, Any], norm: Any) -> Any:
    """A layer of which the outputs are those of ``layers``, inner ones among them, behind ``norm`` where there is one."""
    keras = backend.load_keras()
    normed = {name for name, tensor in whole.items() if tensor is whole[OUTPUT]}  # as the model does it itself
    plain = [name for name in layers if name in whole]
    # Where nothing else is wanted, the whole model runs for what is recorded.
    part = keras.Model(model.input, [whole[name] for name in plain or [OUTPUT]])

    class Recorded(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name="base", dtype="float32", autocast=False)
            self.part, self.norm = part, norm

        def call(self, images: Any) -> list[Any]:
            seen: dict[str, Any] = {}
            with _listening({name: inner[name] for name in layers if name not in whole}, seen):
                found = dict(zip(plain or [OUTPUT], _call(self.part, images), strict=True))
            found |= seen
            if self.norm is not None:
                found = {name: each if name in normed else self.norm(each) for name, each in found.items()}
            return [found[name] for name in layers]

    return Recorded()


def _final_norm(model: Any, spec: BaseSpec, layers: Sequence[str]) -> Any:
    """The last norm of a transformer, which some have inside their encoder. Raises BaseError where there is none, or it does not fit."""
    norms = [each for each in model.layers if "LayerNorm" in type(each).__name__]
    norms = norms or [each for each in _inner(model).values() if "LayerNorm" in type(each).__name__]
    if not norms:
        raise BaseError(f"final_norm: expected a transformer with a norm at its end, found {spec.name}; leave it out")
    width = norms[-1].weights[0].shape[-1] if norms[-1].weights else None
    shapes = _shapes(model, spec.input_size)
    for layer in layers:
        if layer != OUTPUT and (len(shapes[layer]) != 2 or width not in (None, shapes[layer][-1])):
            raise BaseError(
                f"final_norm: expected tokens (tokens, {width}) at layer {layer!r}, found {shapes[layer]}; "
                "leave final_norm out, or name another layer"
            )
    return norms[-1]


def _call(model: Any, images: Any) -> list[Any]:
    given = model.input
    found = model(dict.fromkeys(given, images) if isinstance(given, dict) else images, training=False)
    return list(found) if isinstance(found, list | tuple) else [found]


@contextmanager
def _listening(layers: Mapping[str, Any], seen: dict[str, Any]) -> Iterator[None]:
    """While the block runs, ``seen`` gets the outputs of ``layers``, by name."""

    def listen(name: str, call: Any) -> Any:
        def listening(*arguments: Any, **options: Any) -> Any:
            found = call(*arguments, **options)
            seen[name] = _first(found)
            return found

        return listening

    before = {name: layer.call for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.call = listen(name, before[name])
        yield
    finally:
        for name, layer in layers.items():
            layer.call = before[name]


def _whole(model: Any) -> dict[str, Any]:
    """Tensors of the functional model by the names that they can be cut at."""
    tensors = {each.name: each.output for each in model.layers[1:] if hasattr(each.output, "shape")}
    pyramid = getattr(model, "pyramid_outputs", {})
    return (
        {OUTPUT: _first(model.output)}
        | tensors
        | {name: tensor for name, tensor in pyramid.items() if name not in tensors}
    )


def _first(output: Any) -> Any:
    """The features among the outputs of a model: those of the sequence, where there is a pooled vector beside it."""
    if isinstance(output, dict):
        return output.get("sequence_output", next(iter(output.values())))
    return output[0] if isinstance(output, list | tuple) else output


def layers_of(spec: BaseSpec, folder: Path) -> list[Layer]:
    """The layers at which a preset can be cut, from input to output."""
    model = _tower(spec, model_path(spec, folder), "float32")
    of = {each.name: each for each in model.layers} | _inner(model) | {OUTPUT: model}
    shapes = _shapes(model, spec.input_size)
    return [
        Layer(
            name,
            type(of[name]).__name__ if name in of else "pyramid",
            shapes[name],
            of[name].count_params() if name in of else 0,
        )
        for name in [*(name for name in shapes if name != OUTPUT), OUTPUT]
    ]
