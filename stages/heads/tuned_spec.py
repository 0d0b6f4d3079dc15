"""The specs of heads that are trained beyond frozen features: with a part of the base, with the base, or without one."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainValidator, create_model, model_validator

from stages.bases.spec import BaseSpec, image_size
from stages.fields import Fraction, PositiveInt, off
from stages.training.spec import Activation, DenseSpec, Optimizer, Pooling, TrainedSpec, Units


def _start(value: Any) -> Any:
    named = isinstance(value, str) and value
    if not named and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"expected a layer, or a number of last blocks from 1 on, found {value!r}")
    return value


def _start_or_none(value: Any) -> Any:
    return None if off(value) is None else _start(value)


Start = Annotated[int | str, PlainValidator(_start)]
_NOT_SWEPT = 'is of kind "{}", which a sweep cannot vary; write a head for each variant, or sweep over a dense one'


class ScheduledSpec(TrainedSpec):
    """What models have in common that are trained by themselves, with layers of a base or of images."""

    FIRST = TrainedSpec.FIRST | {"warmup", "cosine"}

    warmup: Annotated[float, Field(ge=0)] = 0.0
    cosine: bool = False

    @model_validator(mode="after")
    def _warms_up_before_the_end(self) -> "ScheduledSpec":
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup: expected fewer than the {self.epochs} epochs, found {self.warmup:g}")
        return self


# A field that Python has no name for.
_Tuned = create_model("_Tuned", __base__=ScheduledSpec, **{"from": (Start, 1)})  # type: ignore[call-overload]
_Whole = create_model(
    "_Whole", __base__=ScheduledSpec, **{"from": (Annotated[int | str | None, PlainValidator(_start_or_none)], None)}
)  # type: ignore[call-overload]


class FinetuneSpec(_Tuned, ScheduledSpec):  # type: ignore[misc, valid-type]
    """``kind = "finetune"``: a trained dense ``head`` and the last layers of its base, ``from`` one on, or so many last blocks.

    It is trained on the activations before these layers, which the cache has.
    """

    FIRST = ScheduledSpec.FIRST | {"from", "head"}

    kind: Literal["finetune"]
    pool: Literal["flatten"] = "flatten"  # as rows are read; the model gives them their shape again
    head: Annotated[str, Field(min_length=1)]
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5

    not_in_folds: ClassVar[str] = (
        "the head that {head!r} begins with has seen all training images, so that no fold of them is new to it; leave it out"
    )

    @model_validator(mode="before")
    @classmethod
    def _is_on_what_its_head_is(cls, table: Any) -> Any:
        if isinstance(table, dict) and "layers" in table:
            raise ValueError("layers: follow from head and from; leave them out")
        return table

    @property
    def start(self) -> int | str:
        """``from``: the layer from which the base is trained, or the number of its last blocks."""
        return getattr(self, "from")  # type: ignore[no-any-return]

    def needs(self) -> dict[str, str]:
        return {self.head: "head"}


class EndToEndSpec(_Whole, ScheduledSpec):  # type: ignore[misc, valid-type]
    """``kind = "end_to_end"``: a base and new dense layers on it, trained on images; frozen, or trained ``from`` a layer on."""

    FIRST = ScheduledSpec.FIRST | {"from", "units", "activation", "dropout", "batch_norm"}

    kind: Literal["end_to_end"]
    pool: Pooling = "flatten"
    units: list[Units] = [256]
    activation: Activation = "relu"
    dropout: Fraction = 0.5
    batch_norm: bool = False

    not_swept: ClassVar[str] = _NOT_SWEPT.format("end_to_end")

    @model_validator(mode="after")
    def _is_on_one_layer(self) -> "EndToEndSpec":
        if self.layers and len(self.layers) > 1:
            raise ValueError(f"layers: expected one, found {', '.join(self.layers)}; name the last that is to be used")
        return self

    @property
    def start(self) -> int | str | None:
        """``from``: as of ``FinetuneSpec``; None where all of the base is frozen."""
        return getattr(self, "from")  # type: ignore[no-any-return]

    @property
    def dense(self) -> DenseSpec:
        """The layers on the base, as a dense head."""
        same = {name: getattr(self, name) for name in ("pool", "units", "activation", "dropout", "batch_norm", "seed")}
        return DenseSpec(kind="dense", **same)


class CnnSpec(ScheduledSpec):
    """``kind = "cnn"``: a small convolutional network without a base, trained on images from its beginning.

    Convolutions of 3×3 with ReLU, each with max pooling over 2×2, then dense layers, as in F. Chollet, "Building powerful image
    classification models using very little data", 2016.
    """

    FIRST = ScheduledSpec.FIRST | {"input_size", "filters", "units", "dropout"}

    kind: Literal["cnn"]
    pool: Literal["none"] = "none"
    input_size: Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(image_size)] = (150, 150)
    filters: Annotated[list[PositiveInt], Field(min_length=1)] = [32, 32, 64]
    units: list[Units] = [64]
    dropout: Fraction = 0.5
    optimizer: Optimizer = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.01

    on_base: ClassVar[bool] = False
    not_swept: ClassVar[str] = _NOT_SWEPT.format("cnn")

    @model_validator(mode="before")
    @classmethod
    def _momentum_is_that_of_sgd(cls, table: Any) -> Any:
        return {"optimizer": "sgd"} | table if isinstance(table, dict) else table

    @model_validator(mode="before")
    @classmethod
    def _has_no_base(cls, table: Any) -> Any:
        if isinstance(table, dict) and (idle := sorted(table.keys() & {"base", "layers"})):
            raise ValueError(f"{idle[0]}: a network from scratch has no base; leave it out")
        return table

    @model_validator(mode="after")
    def _something_is_left_of_an_image(self) -> "CnnSpec":
        for side in self.input_size:
            left = side
            for _ in self.filters:
                left = (left - 2) // 2
            if left < 1:
                height, width = self.input_size
                raise ValueError(
                    f"input_size: images of {height}×{width} are too small for {len(self.filters)} convolutions with pooling; take larger "
                    "ones, or fewer filters"
                )
        return self

    @property
    def images(self) -> BaseSpec:
        """How images come to its input size, as those of a base do."""
        return BaseSpec.model_validate({"weights": "random", "input_size": list(self.input_size)})


# Trained on image files, and not on features of the cache.
ON_IMAGES = (EndToEndSpec, CnnSpec)
