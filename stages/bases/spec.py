"""``[base]``: which frozen base, where it is cut, with which weights; and the key of its features.

A key is the SHA-256 of the canonical JSON of everything that determines a value, and of nothing else: times, paths, batch
sizes and versions of libraries are recorded, not hashed. ``SCHEMA`` is raised by hand when the meaning of a spec changes; a
test with pinned digests fails on a change that forgot to.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cache.files import digest_json
from stages.bases.catalogue import BASES, OURS
from stages.bases.packaged import PACKAGED, Packaged
from stages.bases.pixels import Pixels
from stages.data.policy import DECODE
from stages.data.views import View
from stages.fields import Layers, PositiveInt, Seed, did_you_mean

SCHEMA = 1
FILE = "file:"  # what the name of a user's own base begins with
HUB = "hub:"  # and that of a preset of KerasHub
OUTPUT = "output"  # the cut of such bases where no layer is named
SOURCES = ("imagenet", "packaged", "random")  # of weights, beside files
WEIGHTS_SUFFIXES = (".weights.h5", ".keras", ".h5")
OWN_SUFFIXES = (".keras", ".onnx")
# What names of presets begin with, and no other base.
OF_HUB = re.compile("clip|dino|deit|metaclip|siglip|swin|vit", re.IGNORECASE)


def image_size(value: Any) -> Any:
    """``150`` means 150×150; ``[120, 160]`` is height and width."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list) and len(value) == 2:
        return tuple(value)
    raise ValueError(f"expected a whole number, or [height, width], found {value!r}")


def _base_name(value: Any) -> Any:
    if value == HUB:
        raise ValueError('expected "hub:" and a preset of KerasHub or the folder of one, found "hub:"; name it')
    if isinstance(value, str) and not value.startswith((FILE, HUB)) and value not in BASES:
        listed = f'{", ".join(sorted(BASES))}, or "file:model.keras", "file:model.onnx", "hub:PRESET"'
        hint = _without_its_door(value) or did_you_mean(value, BASES) or f"; there are {listed}"
        raise ValueError(f"no base {value!r} in keras.applications{hint}")
    return value


def _without_its_door(value: str) -> str:
    """A hint where a model file, the folder of a preset or the name of one stands without ``file:`` or ``hub:``."""
    if value.endswith(OWN_SUFFIXES):
        return f' (did you mean "{FILE}{value}"?)'
    if ("/" in value and not PurePath(value).suffix) or OF_HUB.match(value):
        return f' (did you mean "{HUB}{value}"?)'
    return ""


class BaseSpec(Pixels):
    """``[base]``: a frozen base, where it is cut, with which weights, and what computes it.

    ``name`` is a constructor of ``keras.applications``, ``file:model.keras`` or ``file:model.onnx`` for a model of the user's own,
    or ``hub:PRESET`` for one of KerasHub. ``output`` is what is kept of the tokens of a transformer, of which the first
    ``prefix_tokens`` stand for no place in the image: the class token, and then registers. So many augmented ``views`` of each
    training image are extracted beside the image itself.
    """

    name: Annotated[str, BeforeValidator(_base_name)] = "VGG16"
    input_size: Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(image_size)] = (150, 150)
    layer: str | None = None
    layers: Layers | None = None
    output: Literal["cls", "patches", "mean", "cls+mean"] | None = None
    prefix_tokens: Annotated[int, Field(ge=0)] | None = None
    final_norm: bool | None = None
    weights: str = "imagenet"
    include_top: bool = False
    preprocess: Literal["caffe", "tf", "torch", "none"] | None = None
    decode: Literal["exact", "scaled"] = "exact"
    engine: Literal["keras", "openvino", "onnxruntime"] = "keras"
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    calibration_images: PositiveInt = 300
    seed: Seed = 0
    batch_size: PositiveInt | None = None
    views: Annotated[int, Field(ge=0, le=1000)] = 0

    @model_validator(mode="before")
    @classmethod
    def _ours_have_packaged_weights(cls, data: Any) -> Any:
        """Keras has none of theirs to fetch."""
        return {"weights": "packaged", **data} if isinstance(data, dict) and data.get("name") in OURS else data

    @model_validator(mode="after")
    def _fits_together(self) -> "BaseSpec":
        if self.brought and "weights" in self.model_fields_set:
            raise ValueError(f"weights: {self.name} brings its own, found {self.weights!r}; leave weights out")
        if self.weights == "packaged" and self.name not in PACKAGED:
            raise ValueError(
                f'weights "packaged" are of {", ".join(PACKAGED)}, found base {self.name}; set "imagenet", "random" or a file'
            )
        if self.weights == "imagenet" and self.name in OURS:
            raise ValueError(
                f'weights "imagenet": Keras has none of {self.name}; take "packaged", which are ImageNet weights too'
            )
        if self.weights not in SOURCES and not self.weights.endswith(WEIGHTS_SUFFIXES):
            raise ValueError(
                f"weights: expected {', '.join(SOURCES)} or a file ({', '.join(WEIGHTS_SUFFIXES)}), "
                f"found {self.weights!r}{did_you_mean(self.weights, SOURCES)}"
            )
        if self.layer is not None and self.layers is not None:
            raise ValueError("expected layer or layers, found both; keep one of them")
        if self.own_file is not None and self.own_file.suffix not in OWN_SUFFIXES:
            raise ValueError(f'name: expected "file:….keras" or "file:….onnx", found {self.name!r}')
        self._check_preprocessing()
        self._check_engine()
        return self

    def _check_preprocessing(self) -> None:
        if self.preprocess is not None and (self.own_file is None or self.onnx):
            raise ValueError(f"preprocess: {self.name} has its own, found {self.preprocess!r}; leave it out")
        if self.preprocess is not None and self.numbers:
            raise ValueError("expected preprocess, or scale, mean, std and order, found both; keep one of them")
        if self.include_top and (self.brought or self.weights == "packaged" or self.name in OURS):
            what = self.brought or ("packaged weights" if self.weights == "packaged" else self.name)
            raise ValueError(f"include_top: there is no top for {what}; leave it out")
        if self.include_top and not (self.layer or self.layers):
            raise ValueError('include_top: expected a layer of the top, such as layer = "fc2" of VGG16; name one')
        if self.final_norm is not None and not self.hub:
            raise ValueError(
                "final_norm: of bases of KerasHub alone; leave it out, and name the layer with it or without"
            )

    def _check_engine(self) -> None:
        if self.precision == "int8" and self.engine != "openvino":
            raise ValueError('precision "int8" needs engine = "openvino"')
        if self.precision == "float16" and self.engine == "openvino":
            raise ValueError(
                'precision: engine "openvino" computes in "float32", "bfloat16" or "int8", found "float16"'
            )
        if self.engine == "onnxruntime" and not self.onnx:
            raise ValueError(
                f'engine "onnxruntime" computes ONNX models, found {self.name}; take "keras" or "openvino"'
            )
        if self.onnx and self.engine == "keras" and "engine" in self.model_fields_set:
            raise ValueError(
                f'engine "keras" computes no ONNX model, found {self.name}; take "onnxruntime" or "openvino"'
            )
        if (self.onnx or self.hub) and self.precision == "int8":
            raise ValueError(f'precision "int8": {self.name} cannot be quantised here; take another precision')
        if self.onnx and self.engine != "openvino" and self.precision not in ("auto", "float32"):
            raise ValueError(f'precision: engine "onnxruntime" computes in "float32", found {self.precision!r}')

    @property
    def own_file(self) -> Path | None:
        """The model file of a user's own base, as it was named; None for the others."""
        return Path(self.name.removeprefix(FILE)) if self.name.startswith(FILE) else None

    @property
    def hub(self) -> str | None:
        """The preset of KerasHub, or the folder of one, as it was named; None for other bases."""
        return self.name.removeprefix(HUB) if self.name.startswith(HUB) else None

    @property
    def onnx(self) -> bool:
        """Whether the base is an ONNX model, which Keras does not compute."""
        return self.own_file is not None and self.own_file.suffix == ".onnx"

    @property
    def brought(self) -> str | None:
        """What brings architecture and weights together, in words; None for the bases of ``keras.applications``."""
        return self.own_file.name if self.own_file else self.hub

    @property
    def computed_by(self) -> str:
        """The engine: the one that is named, and ONNX Runtime for an ONNX model where none is."""
        return "onnxruntime" if self.onnx and self.engine == "keras" else self.engine

    @property
    def slug(self) -> str:
        """The base's name as part of a file name. A user's own is ``own``: what its file is called makes no difference."""
        return "own" if self.own_file else "hub" if self.hub else self.name.lower()

    @property
    def cuts(self) -> tuple[str, ...]:
        """The layers whose outputs are kept; where none is named, the base's last."""
        if self.layers is not None:
            return tuple(self.layers)
        return (self.layer or (OUTPUT if self.brought else BASES[self.name].last_layer),)

    @property
    def packaged(self) -> Packaged | None:
        """The package that the weights are in; None for other weights."""
        return PACKAGED[self.name] if self.weights == "packaged" else None

    @property
    def style(self) -> str:
        """How pixels are prepared, in a word: as its own file says, as packaged weights want it, or as Keras does it."""
        if self.brought:
            return self.preprocess or "none"
        return (self.packaged and self.packaged.preprocess) or BASES[self.name].preprocess

    def identity(self, weights_sha256: str, dtype: str, layer: str, view: View | None = None) -> dict[str, Any]:
        """Everything that determines the features of ``layer``, as it is written to ``spec.json`` and into each shard.

        ``weights_sha256`` is that of the quantised model where the base is quantised; without a ``view`` it is the image itself that
        goes through the base.
        """
        found = {
            "schema": SCHEMA,
            "base": "file" if self.own_file else "hub" if self.hub else self.name,
            "layer": layer,
            "weights": weights_sha256,
            "input_size": list(self.input_size),
            "decode": DECODE[self.decode],
            "resize": self.resizing.words,
            "preprocess": self.numbers or self.style,
            "precision": self.precision,
            "dtype": dtype,
            "view": view.identity() if view else "identity",
        }
        # What later versions added is in the key only where it is used, so that older stores keep theirs.
        added = {
            "engine": None if self.computed_by == "keras" else self.computed_by,
            "graph": self.packaged and self.packaged.graph,  # of another network than that of Keras
            "include_top": self.include_top or None,
            "output": self.output,
            "prefix_tokens": self.prefix_tokens if self.output not in (None, "cls") else None,
            "final_norm": self.final_norm or None,
        }
        return found | {name: value for name, value in added.items() if value is not None}

    def folder_name(self, key: str, layer: str) -> str:
        """``vgg16-block5_pool-150-<first 12 digits of the key>``."""
        height, width = self.input_size
        size = f"{height}" if height == width else f"{height}x{width}"
        return f"{self.slug}-{re.sub(r'[^A-Za-z0-9._-]', '_', layer)}-{size}-{key[:12]}"


def joint_key(keys: Sequence[str]) -> str:
    """The key of the features of several layers, in their order; that of one layer is the layer's own."""
    return keys[0] if len(keys) == 1 else digest_json(list(keys))
