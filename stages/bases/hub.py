"""A base of KerasHub (https://keras.io/keras_hub/): a preset, or the folder of one, from pixels to any of its layers.

Transformers hide their blocks inside one layer. Those inner layers can be cut at too, as ``encoder/block``: their outputs are
recorded while the outer layer is computed, or traced.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache.errors import BaseError
from stages.bases import backend
from stages.bases.brought import CONFIG, fetched_preset, model_path
from stages.bases.cuts import Layer, check_layers
from stages.bases.engines import load_extra
from stages.bases.spec import OUTPUT, BaseSpec

TRUSTED = re.compile(r"(keras|keras_hub)(\.|$)")


def read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of a preset, and what it says of its input, as fields of ``[base]``; nothing is imported or built.

    Raises BaseError for what is no preset, or names code from elsewhere than Keras and KerasHub.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        _check_trusted(config, path)
        inner = config.get("config", config)  # transformers writes the parameters at the top
        tower = inner.get("vision_encoder", {}).get("config") or inner.get("vision_config") or inner
        size = tower.get("image_shape") or tower.get("image_size")
        sizes = list(size[:2]) if isinstance(size, list) else [size, size]
        told: dict[str, Any] = {"input_size": sizes} if all(isinstance(n, int) for n in sizes) else {}
        if (prefix := _prefix(config.get("class_name") or config.get("model_type") or "", inner)) is not None:
            told["prefix_tokens"] = prefix
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BaseError(
            f"{path}: expected the configuration of a KerasHub preset, found none ({error}); mend name"
        ) from error
    return config, told


def _check_trusted(value: Any, path: Path) -> None:
    """Keras imports the modules that a configuration names: so they are looked at before."""
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_trusted(each, path)
    if not isinstance(value, dict):
        return
    module = value.get("module")
    package, known, _ = str(value.get("registered_name") or "").partition(">")
    function = module == "builtins" and value.get("class_name") == "function"  # an activation by its name
    if (
        (module is not None and not function and not TRUSTED.match(str(module)))
        or (known and not TRUSTED.match(package))
        or "lambda" in str(value.get("class_name")).lower()
    ):
        raise BaseError(
            f"{path}: expected classes of keras and keras_hub alone, found {value.get('class_name')!r} of {module!r}; "
            "headstart runs no code from a preset"
        )


def _prefix(kind: str, config: dict[str, Any]) -> int | None:
    """How many tokens stand before the patches: the class token, and registers; None where the kind does not say."""
    kind = kind.lower()
    if kind.startswith("dino"):
        return 1 + int(config.get("num_register_tokens") or 0)
    known = {"vit": int(config.get("use_class_token", True)), "deit": 2, "clip": 1, "metaclip": 1, "siglip": 0}
    return next((known[name] for name in known if kind.startswith(name)), None)


def fetch(spec: BaseSpec, folder: Path) -> None:
    """Fetch a preset by its name, and keep it in ``folder`` as files. Raises BaseError where it cannot be fetched."""
    hub = load_extra("keras_hub", "hub", f"base {spec.name!r}")
    kept = fetched_preset(spec, folder)
    try:
        with backend.fresh_names("float32"):
            model = hub.models.Backbone.from_preset(spec.weights)
            try:
                converter = hub.layers.ImageConverter.from_preset(spec.weights)
            except ValueError:  # a base without one takes pixels as they are
                converter = None
    except Exception as error:  # of the network, of Kaggle and Hugging Face, of KerasHub itself
        reason = " ".join(str(error).split())[:300]
        raise BaseError(
            f"base {spec.name!r} cannot be fetched ({reason}); connect this machine once, or name the folder of a preset that was "
            'saved elsewhere with save_to_preset: name = "hub:path/to/folder"'
        ) from error
    kept.parent.mkdir(parents=True, exist_ok=True)
    partly = kept.with_name(f".tmp-{kept.name}")
    model.save_to_preset(str(partly))
    if converter is not None:
        converter.save_to_preset(str(partly))
    partly.rename(kept)


def _tower(spec: BaseSpec, path: Path, policy: str) -> Any:
    """The part of a preset that takes images and nothing else."""
    hub = load_extra("keras_hub", "hub", f"base {spec.name!r}")
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
    """The layers inside the layers of a model that are not models themselves, as ``outer/inner``."""
    found = {}
    for outer in model.layers:
        for inner in outer._flatten_layers(include_self=False, recursive=False):
            found[f"{outer.name}/{inner.name}"] = inner
    return found


def cut(spec: BaseSpec, folder: Path, precision: str, layers: Sequence[str]) -> Any:
    """The Keras model from prepared pixels (n, height, width, 3) to a list of the outputs of ``layers``."""
    keras = backend.load_keras()
    model = _tower(spec, model_path(spec, folder), {"float32": "float32"}.get(precision, f"mixed_{precision}"))
    whole, inner = _whole(model), _inner(model)
    check_layers([*whole, *inner, OUTPUT], layers, spec.name)
    recorder = _recorder(keras, model, [inner[name] for name in layers if name in inner], spec.final_norm)
    places = keras.Input((*spec.input_size, 3), name="prepared")
    outputs = recorder([whole[name] for name in layers if name not in inner])(places)
    recorded = iter(outputs[len(outputs) - sum(name in inner for name in layers) :])
    plain = iter(outputs)
    return keras.Model(places, [next(recorded) if name in inner else next(plain) for name in layers])


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


def _recorder(keras: Any, model: Any, inner: Sequence[Any], normed: bool | None) -> Any:
    norms = [
        each
        for each in (*model.layers, *_inner(model).values())
        if type(each).__name__.endswith(("LayerNorm", "LayerNormalization"))
    ]

    class Recorded(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self, outputs: list[Any]) -> None:
            super().__init__(name="base", dtype="float32", autocast=False)
            # Where nothing else is wanted, the whole model runs for what is recorded.
            self.cut = keras.Model(model.input, outputs or [_first(model.output)])
            self.kept = len(outputs)

        def call(self, images: Any) -> list[Any]:
            seen: dict[int, Any] = {}
            before = [(each, each.call) for each in inner]
            try:
                for place, each in enumerate(inner):
                    _listen(each, place, seen)
                given = self.cut.input
                found = self.cut(
                    dict.fromkeys(given, images) if isinstance(given, dict) else images, training=False
                )
            finally:
                for each, call in before:
                    each.call = call
            found = list(found) if isinstance(found, list | tuple) else [found]
            recorded = [seen[place] for place in range(len(inner))]
            return [*found[: self.kept], *(norms[-1](each) if normed and norms else each for each in recorded)]

    return Recorded


def _listen(layer: Any, place: int, seen: dict[int, Any]) -> None:
    call = layer.call

    def listening(*arguments: Any, **options: Any) -> Any:
        found = call(*arguments, **options)
        seen[place] = _first(found)
        return found

    layer.call = listening


def layers_of(spec: BaseSpec, folder: Path) -> list[Layer]:
    """The layers at which a preset can be cut, from input to output."""
    model = _tower(spec, model_path(spec, folder), "float32")
    whole, inner = _whole(model), _inner(model)
    names = [name for name in (*whole, *inner) if name != OUTPUT]
    shapes = [tuple(each.shape[1:]) for each in cut(spec, folder, "float32", names).outputs]
    of = {each.name: each for each in model.layers} | inner
    found = [
        Layer(
            name,
            type(of[name]).__name__ if name in of else "pyramid",
            shape,
            of[name].count_params() if name in of else 0,
        )
        for name, shape in zip(names, shapes, strict=True)
    ]
    return [*found, Layer(OUTPUT, type(model).__name__, tuple(_first(model.output).shape[1:]), model.count_params())]
