"""``[base]``: which frozen base, where it is cut, with which weights; and the key of its features.

A key is the SHA-256 of the canonical JSON of everything that determines a value, and of nothing else: times, paths, batch
sizes and versions of libraries are recorded, not hashed. ``SCHEMA`` is raised by hand when the meaning of a spec changes; a
test with pinned digests fails on a change that forgot to.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from cache.files import digest_json
from stages.bases.catalogue import BASES
from stages.data.policy import DECODE, RESIZE
from stages.fields import Layers, PositiveInt, Seed, Spec, nearest

SCHEMA = 1
FILE = "file:"  # what the name of a user's own base begins with
OUTPUT = "output"  # the cut of such a base where no layer is named
SOURCES = ("imagenet", "packaged", "random")  # of weights, beside files
WEIGHTS_SUFFIXES = (".weights.h5", ".keras", ".h5")


def _size(value: Any) -> Any:
    """``150`` means 150×150; ``[120, 160]`` is height and width."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list) and len(value) == 2:
        return tuple(value)
    raise ValueError(f"expected a whole number, or [height, width], found {value!r}")


def _base_name(value: Any) -> Any:
    if isinstance(value, str) and not value.startswith(FILE) and value not in BASES:
        raise ValueError(
            f"no base {value!r} in keras.applications{nearest(value, BASES)}; "
            f'there are {", ".join(sorted(BASES))}, or "file:model.keras"'
        )
    return value


class BaseSpec(Spec):
    """``[base]``: a frozen base, where it is cut, with which weights, and what computes it.

    ``name`` is a constructor of ``keras.applications``, or ``file:model.keras`` for a model of the user's own.
    """

    name: Annotated[str, BeforeValidator(_base_name)] = "VGG16"
    input_size: Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_size)] = (150, 150)
    layer: str | None = None
    layers: Layers | None = None
    weights: str = "imagenet"
    preprocess: Literal["caffe", "tf", "torch", "none"] | None = None
    decode: Literal["exact", "scaled"] = "exact"
    engine: Literal["keras", "openvino"] = "keras"
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    calibration_images: PositiveInt = 300
    seed: Seed = 0
    batch_size: PositiveInt | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "BaseSpec":
        if self.own_file and "weights" in self.model_fields_set:
            raise ValueError(f"weights: {self.name} brings its own, found {self.weights!r}; leave weights out")
        if self.weights == "packaged" and self.name != "VGG16":
            raise ValueError(
                f'weights "packaged" are of VGG16, found base {self.name}; set "imagenet", "random" or a file'
            )
        if self.weights not in SOURCES and not self.weights.endswith(WEIGHTS_SUFFIXES):
            raise ValueError(
                f"weights: expected {', '.join(SOURCES)} or a file ({', '.join(WEIGHTS_SUFFIXES)}), "
                f"found {self.weights!r}{nearest(self.weights, SOURCES)}"
            )
        if self.layer is not None and self.layers is not None:
            raise ValueError("expected layer or layers, found both; keep one of them")
        if self.preprocess is not None and not self.own_file:
            raise ValueError(f"preprocess: {self.name} has its own, found {self.preprocess!r}; leave it out")
        if self.own_file is not None and self.own_file.suffix != ".keras":
            raise ValueError(f'name: expected "file:….keras", found {self.name!r}')
        if self.precision == "int8" and self.engine != "openvino":
            raise ValueError('precision "int8" needs engine = "openvino"')
        if self.precision == "float16" and self.engine == "openvino":
            raise ValueError(
                'precision: engine "openvino" computes in "float32", "bfloat16" or "int8", found "float16"'
            )
        return self

    @property
    def own_file(self) -> Path | None:
        """The model file of a user's own base, as it was named; None for one of ``keras.applications``."""
        return Path(self.name.removeprefix(FILE)) if self.name.startswith(FILE) else None

    @property
    def slug(self) -> str:
        """The base's name as part of a file name. A user's own is ``own``: what its file is called makes no difference."""
        return "own" if self.own_file else self.name.lower()

    @property
    def cuts(self) -> tuple[str, ...]:
        """The layers whose outputs are kept; where none is named, the base's last."""
        if self.layers is not None:
            return tuple(self.layers)
        return (self.layer or (OUTPUT if self.own_file else BASES[self.name].last_layer),)

    def identity(self, weights_sha256: str, dtype: str, layer: str) -> dict[str, Any]:
        """Everything that determines the features of ``layer``, as it is written to ``spec.json`` and into each shard.

        ``weights_sha256`` is that of the quantised model where the base is quantised.
        """
        found = {
            "schema": SCHEMA,
            "base": "file" if self.own_file else self.name,
            "layer": layer,
            "weights": weights_sha256,
            "input_size": list(self.input_size),
            "decode": DECODE[self.decode],
            "resize": RESIZE,
            "preprocess": (self.preprocess or "none") if self.own_file else BASES[self.name].preprocess,
            "precision": self.precision,
            "dtype": dtype,
            "view": "identity",
        }
        return found if self.engine == "keras" else found | {"engine": self.engine}

    def folder_name(self, key: str, layer: str) -> str:
        """``vgg16-block5_pool-150-<first 12 digits of the key>``."""
        height, width = self.input_size
        size = f"{height}" if height == width else f"{height}x{width}"
        return f"{self.slug}-{re.sub(r'[^A-Za-z0-9._-]', '_', layer)}-{size}-{key[:12]}"


def joint_key(keys: Sequence[str]) -> str:
    """The key of the features of several layers, in their order; that of one layer is the layer's own."""
    return keys[0] if len(keys) == 1 else digest_json(list(keys))
