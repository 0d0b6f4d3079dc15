"""Validated parameters of data, bases, cache and heads, and the keys made of them.

A key is the SHA-256 of the canonical JSON of everything that determines a value, and of nothing else:
times, paths, batch sizes and versions of libraries are recorded, not hashed. ``SCHEMA``, or for heads ``HEAD_SCHEMA``, is
raised by hand when the meaning of a spec changes; a test with pinned digests fails on a change that forgot to.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from cache.files import digest_json
from stages.fields import STRICT, Layers, Range, Seed, Units, Values, off
from stages.table import BASES, nearest

SCHEMA = 1
# Raised when heads are trained or scored otherwise, which leaves features as they are. 2: calibrated by logits.
HEAD_SCHEMA = 2
# What stands between a file and the numbers that the base sees; a change here changes every key.
DECODE_POLICY = "pillow-1: exif applied, alpha over white, first frame, 16-bit scaled to 8, RGB"
RESIZE_POLICY = "pillow bilinear antialiased to (height, width), aspect ratio not kept"

DECODE_SCALED = f"{DECODE_POLICY}; JPEG scaled by libjpeg to at least the input size"

FILE = "file:"  # what the name of a user's own base begins with
OUTPUT = "output"  # the cut of such a base where no layer is named
WEIGHTS_SUFFIXES = (".weights.h5", ".keras", ".h5")

Preprocess = Literal["caffe", "tf", "torch", "none"]
Pool = Literal["flatten", "avg", "max", "none"]  # the last for heads that take feature maps as they are
PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Spec(BaseModel):
    """Parameters that are checked when they are read, and never change afterwards."""

    model_config = STRICT


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


class DataSpec(Spec):
    """``[data]``: where the images are, and how they are split. ``root`` and ``labels`` are absolute paths here."""

    root: Path
    layout: Literal["splits", "classes", "names", "csv"] | None = None
    labels: Path | None = None
    validation: Fraction = 0.2
    test: Fraction = 0.2
    seed: Seed = 0
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
    """``[base]``: a frozen base, where it is cut, with which weights, and what computes it.

    ``name`` is a constructor of ``keras.applications``, or ``file:model.keras`` for a model of the user's own.
    """

    name: Annotated[str, BeforeValidator(_base_name)] = "VGG16"
    input_size: Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_size)] = (150, 150)
    layer: str | None = None
    layers: Layers | None = None
    weights: str = "imagenet"
    preprocess: Preprocess | None = None
    decode: Literal["exact", "scaled"] = "exact"
    engine: Literal["keras", "openvino"] = "keras"
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    calibration_images: PositiveInt = 300
    seed: Seed = 0
    batch_size: PositiveInt | None = None

    @model_validator(mode="after")
    def _weights_fit(self) -> "BaseSpec":
        known = ("imagenet", "packaged", "random")
        if self.own_file:
            if "weights" in self.model_fields_set:
                raise ValueError(f"weights: {self.name} brings its own, found {self.weights!r}; leave weights out")
            return self
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

    @model_validator(mode="after")
    def _fits_together(self) -> "BaseSpec":
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
            "decode": DECODE_POLICY if self.decode == "exact" else DECODE_SCALED,
            "resize": RESIZE_POLICY,
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


def _bytes(value: Any) -> Any:
    """``"1.5 GB"`` in bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)B\s*", value) if isinstance(value, str) else None
    if not found:
        raise ValueError(f'expected a size such as "500 MB" or "2 GB", found {value!r}')
    return int(float(found[1]) * 1000 ** " kMGT".index(found[2] or " "))


class CacheSpec(Spec):
    """``[cache]``: where artifacts go and how features are stored. ``dir`` is an absolute path here.

    ``memory`` (bytes) is what features may take while heads are trained; those that would take more are streamed. Left out,
    it is half of the machine's.
    """

    dir: Path
    dtype: Literal["float16", "float32"] = "float16"
    compression: Literal["zstd", "lzf", "none"] = "zstd"
    shard_images: PositiveInt = 512
    memory: Annotated[PositiveInt, BeforeValidator(_bytes)] | None = None


class _Head(Spec):
    base: str | list[str] | None = None
    layers: Layers | None = None
    pool: Pool
    seed: Seed = 0
    refit: bool = False

    def parameters(self) -> dict[str, Any]:
        """Every parameter of the head, whether it was set or is a default; not the base and layers it is trained on."""
        return self.model_dump(mode="json", exclude={"base", "layers"})

    def slice(self) -> dict[str, Any]:
        """The part of the configuration that the head's key is made of: what differs from the defaults.

        So a new parameter leaves the heads that do not use it as they are. Whoever changes a default raises ``HEAD_SCHEMA``.
        """
        return {"kind": self.parameters()["kind"]} | self.model_dump(
            mode="json", exclude={"base", "layers"}, exclude_defaults=True
        )


class _Trained(_Head):
    """What heads have in common that are trained by gradient descent, in epochs."""

    optimizer: Literal["rmsprop", "adam", "adamw", "sgd"] = "rmsprop"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    epochs: PositiveInt = 30
    batch_size: PositiveInt = 20
    patience: Annotated[PositiveInt | None, BeforeValidator(off)] = None
    class_weight: Annotated[Literal["balanced"] | None, BeforeValidator(off)] = None
    label_smoothing: Fraction = 0.0

    @model_validator(mode="before")
    @classmethod
    def _momentum_is_of_sgd(cls, table: Any) -> Any:
        """Variants that differ only in a momentum that their optimizer does not take have one key, and are one trial."""
        if not isinstance(table, dict) or table.get("optimizer") == "sgd":
            return table
        return {name: value for name, value in table.items() if name != "momentum"}


class DenseSpec(_Trained):
    """``kind = "dense"``: fully connected layers on pooled features, trained by Keras's rules."""

    kind: Literal["dense"]
    pool: Literal["flatten", "avg", "max"] = "flatten"
    units: list[Units] = [256]
    activation: Literal["relu", "gelu", "elu", "selu", "silu", "tanh", "leaky_relu"] = "relu"
    dropout: Fraction = 0.5
    batch_norm: bool = False


class KerasSpec(_Trained):
    """``kind = "keras"``: a head of the user's own, made by a function in a Python file: ``build = "my_heads.py:build"``.

    The function takes the shape of one image's features and the number of classes, and gives a Keras model that ends
    in probabilities, or a list of layers, to which the last one is added. ``code`` is the SHA-256 of the file.
    """

    kind: Literal["keras"]
    pool: Literal["none"] = "none"
    build: Annotated[str, Field(pattern=r"^.+\.py:[A-Za-z_][A-Za-z0-9_]*$")]
    code: str = ""


class SklearnSpec(_Head):
    """``kind = "sklearn"``: any scikit-learn classifier by name, on pooled features."""

    kind: Literal["sklearn"]
    pool: Literal["flatten", "avg", "max"] = "avg"
    estimator: str
    params: dict[str, Any] = {}
    scale: bool = True


AnyHead = DenseSpec | KerasSpec | SklearnSpec
HeadSpec = Annotated[AnyHead, Field(discriminator="kind")]


class SweepSpec(Spec):
    """``[sweeps.NAME]``: many variants of one head, tried on the validation images.

    ``grid`` maps fields of the head (``params.C`` for those of an estimator) to the values to try, or to a ``Range`` where
    trials are drawn; without it there is one trial, the head as it is. ``cv`` folds take the place of the validation split;
    ``repeats`` trains with as many seeds.
    """

    head: str
    strategy: Literal["grid", "random", "halving", "tpe"] = "grid"
    grid: dict[str, Values] = {}
    trials: PositiveInt | None = None
    seed: Seed = 0
    factor: Annotated[int, Field(ge=2)] = 3
    min_epochs: PositiveInt = 1
    cv: Annotated[int, Field(ge=2, le=20)] | None = None
    repeats: PositiveInt = 1
    refit: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> "SweepSpec":
        if self.strategy != "grid" and not self.grid:
            raise ValueError(f'grid: strategy "{self.strategy}" needs fields of the head to vary; set grid')
        if self.strategy != "halving" and (idle := self.model_fields_set & {"factor", "min_epochs"}):
            raise ValueError(f'{min(idle)}: only strategy "halving" has it, found "{self.strategy}"; leave it out')
        if self.strategy == "halving" and "epochs" in self.grid:
            raise ValueError('grid.epochs: strategy "halving" divides the epochs itself; set epochs in the head')
        if "kind" in self.grid:
            raise ValueError("grid.kind: trials cannot differ in it; sweep over a head of each kind")
        if misplaced := sorted(self.grid.keys() & {"cv", "repeats", "refit"}):
            raise ValueError(f"grid.{misplaced[0]}: trials cannot differ in it; set {misplaced[0]} in the sweep itself")
        ranges = [name for name, values in self.grid.items() if isinstance(values, Range)]
        drawn = self.strategy in ("random", "tpe") or (self.strategy == "halving" and self.trials is not None)
        if ranges and not drawn:
            advice = "set trials" if self.strategy == "halving" else 'take strategy "random", with trials'
            raise ValueError(f'grid.{ranges[0]}: strategy "{self.strategy}" takes a list, found a range; {advice}')
        if self.strategy == "grid" and self.trials is not None:
            raise ValueError('trials: strategy "grid" tries all there are; leave trials out, or take "random"')
        if self.strategy in ("random", "tpe") and self.trials is None:
            raise ValueError(f'trials: strategy "{self.strategy}" needs to know how many; set trials')
        return self


def joint_key(keys: Sequence[str]) -> str:
    """The key of the features of several layers, in their order; that of one layer is the layer's own."""
    return keys[0] if len(keys) == 1 else digest_json(list(keys))


def head_key(spec: AnyHead, base_key: str, rows_digest: str) -> str:
    """SHA-256 of the head's own slice of the configuration, its features, and the labels and splits it is trained on."""
    return digest_json({"schema": HEAD_SCHEMA, "head": spec.slice(), "base": base_key, "rows": rows_digest})
