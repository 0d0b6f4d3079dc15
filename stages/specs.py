"""Validated parameters of data, bases, cache and heads, and the keys made of them.

A key is the SHA-256 of the canonical JSON of everything that determines a value, and of nothing else:
times, paths, batch sizes and versions of libraries are recorded, not hashed. ``SCHEMA`` is raised by hand when the
meaning of a spec changes; a test with pinned digests fails on a change that forgot to.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cache.files import digest_json
from stages.table import BASES, nearest

SCHEMA = 1
# What stands between a file and the numbers that the base sees; a change here changes every key.
DECODE_POLICY = "pillow-1: exif applied, alpha over white, first frame, 16-bit scaled to 8, RGB"
RESIZE_POLICY = "pillow bilinear antialiased to (height, width), aspect ratio not kept"

WEIGHTS_SUFFIXES = (".weights.h5", ".keras", ".h5")

Pool = Literal["flatten", "avg", "max"]
PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Spec(BaseModel):
    """Parameters that are checked when they are read, and never change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _size(value: Any) -> Any:
    """``150`` means 150×150; ``[120, 160]`` is height and width."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list) and len(value) == 2:
        return tuple(value)
    raise ValueError(f"expected a whole number, or [height, width], found {value!r}")


def _base_name(value: Any) -> Any:
    if isinstance(value, str) and value not in BASES:
        raise ValueError(
            f"no base {value!r} in keras.applications{nearest(value, BASES)}; there are {', '.join(sorted(BASES))}"
        )
    return value


class DataSpec(Spec):
    """``[data]``: where the images are, and how they are split. ``root`` and ``labels`` are absolute paths here."""

    root: Path
    layout: Literal["splits", "classes", "names", "csv"] | None = None
    labels: Path | None = None
    validation: Fraction = 0.2
    test: Fraction = 0.2
    seed: int = 0
    on_bad_image: Literal["skip", "fail"] = "skip"

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "DataSpec":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must stay below 1, found {self.validation} + {self.test}; nothing would be left to train on"
            )
        if self.validation == 0:
            raise ValueError("validation must be above 0: heads are chosen by their validation scores")
        return self


class BaseSpec(Spec):
    """``[base]``: a frozen base of ``keras.applications``, where it is cut, and with which weights."""

    name: Annotated[str, BeforeValidator(_base_name)] = "VGG16"
    input_size: Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_size)] = (150, 150)
    layer: str | None = None
    weights: str = "imagenet"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = 0
    batch_size: PositiveInt = 32

    @model_validator(mode="after")
    def _weights_fit(self) -> "BaseSpec":
        known = ("imagenet", "packaged", "random")
        if self.weights == "packaged" and self.name != "VGG16":
            raise ValueError(
                f'weights "packaged" are of VGG16, found base {self.name}; set "imagenet", "random" or a file'
            )
        if self.weights not in known and not self.weights.endswith(WEIGHTS_SUFFIXES):
            raise ValueError(
                f"weights: expected {', '.join(known)} or a file ({', '.join(WEIGHTS_SUFFIXES)}), "
                f"found {self.weights!r}{nearest(self.weights, known)}"
            )
        return self

    @property
    def cut(self) -> str:
        """The layer whose output is kept; where none is named, the base's last."""
        return self.layer or BASES[self.name].last_layer

    def identity(self, weights_sha256: str, dtype: str) -> dict[str, Any]:
        """Everything that determines the features, as it is written to ``spec.json`` and into each shard."""
        return {
            "schema": SCHEMA,
            "base": self.name,
            "layer": self.cut,
            "weights": weights_sha256,
            "input_size": list(self.input_size),
            "decode": DECODE_POLICY,
            "resize": RESIZE_POLICY,
            "preprocess": BASES[self.name].preprocess,
            "precision": self.precision,
            "dtype": dtype,
            "view": "identity",
        }

    def folder_name(self, key: str) -> str:
        """``vgg16-block5_pool-150-<first 12 digits of the key>``."""
        height, width = self.input_size
        size = f"{height}" if height == width else f"{height}x{width}"
        return f"{self.name.lower()}-{self.cut}-{size}-{key[:12]}"


class CacheSpec(Spec):
    """``[cache]``: where artifacts go and how features are stored. ``dir`` is an absolute path here."""

    dir: Path
    dtype: Literal["float16", "float32"] = "float16"
    compression: Literal["zstd", "lzf", "none"] = "zstd"
    shard_images: PositiveInt = 512


class _Head(Spec):
    base: str | list[str] | None = None
    pool: Pool
    seed: int = 0

    def parameters(self) -> dict[str, Any]:
        """Every parameter of the head, whether it was set or is a default; not the base that it is trained on."""
        return self.model_dump(mode="json", exclude={"base"})

    def slice(self) -> dict[str, Any]:
        """The part of the configuration that the head's key is made of: what differs from the defaults.

        So a new parameter leaves the heads that do not use it as they are. Whoever changes a default raises ``SCHEMA``.
        """
        return {"kind": self.parameters()["kind"]} | self.model_dump(
            mode="json", exclude={"base"}, exclude_defaults=True
        )


class DenseSpec(_Head):
    """``kind = "dense"``: fully connected layers on pooled features, trained by Keras."""

    kind: Literal["dense"]
    pool: Pool = "flatten"
    units: list[PositiveInt] = [256]
    activation: Literal["relu", "gelu", "elu", "selu", "silu", "tanh", "leaky_relu"] = "relu"
    dropout: Fraction = 0.5
    batch_norm: bool = False
    optimizer: Literal["rmsprop", "adam", "adamw", "sgd"] = "rmsprop"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    epochs: PositiveInt = 30
    batch_size: PositiveInt = 20
    patience: PositiveInt | None = None
    class_weight: Literal["balanced"] | None = None
    label_smoothing: Fraction = 0.0


class SklearnSpec(_Head):
    """``kind = "sklearn"``: any scikit-learn classifier by name, on pooled features."""

    kind: Literal["sklearn"]
    pool: Pool = "avg"
    estimator: str
    params: dict[str, Any] = {}
    scale: bool = True


HeadSpec = Annotated[DenseSpec | SklearnSpec, Field(discriminator="kind")]


def head_key(spec: DenseSpec | SklearnSpec, base_key: str, rows_digest: str) -> str:
    """SHA-256 of the head's own slice of the configuration, its base, and the labels and splits it is trained on."""
    return digest_json({"schema": SCHEMA, "head": spec.slice(), "base": base_key, "rows": rows_digest})
