"""``[heads.NAME]`` of a head that is trained by gradient descent, in epochs; and what every head has.

The specs of heads stand where their work is: what dense heads are and how any head is trained here, the others in
``stages.heads.spec``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from stages.fields import Fraction, KeyedSpec, Layers, PositiveInt, Seed, off

Pooling = Literal["flatten", "avg", "max", "flatten+l2", "avg+l2", "max+l2"]
Pool = Pooling | Literal["none"]  # the last for heads that take feature maps as they are
Optimizer = Literal["rmsprop", "adam", "adamw", "sgd"]
Activation = Literal["relu", "gelu", "elu", "selu", "silu", "tanh", "leaky_relu"]
Monitor = Literal["loss", "accuracy"]  # on validation: what the epoch that is kept is chosen by
ADAMW_DECAY = 0.004  # Keras's
# Fields that only one value of another field takes.
ONLY_WITH = {"momentum": ("optimizer", "sgd"), "focal_gamma": ("loss", "focal")}
# Wide enough for any head; one of a thousand million would end where memory does.
Units = Annotated[int, Field(gt=0, le=65_536)]


class CommonSpec(KeyedSpec):
    """What every head has: the features it is trained on, how they are pooled, whether on augmented ``views`` as well, its seed."""

    FIRST = frozenset({"kind", "base", "layers", "pool", "seed", "refit"})

    base: str | list[str] | None = None
    layers: Layers | None = None
    pool: Pool
    seed: Seed = 0
    refit: bool = False
    views: bool = False

    # Whether a head of this kind is trained on a base at all.
    on_base: ClassVar[bool] = True
    # Fields that are looked for in this kind and are not there, each with what to do instead; other unknown ones get the nearest known.
    instead: ClassVar[Mapping[str, str]] = {}
    # Why a sweep cannot vary it, and why it cannot be trained on folds, with ``{head}`` for its name; whether its epochs can be divided.
    not_swept: ClassVar[str] = ""
    not_in_folds: ClassVar[str] = ""
    halves: ClassVar[bool] = False

    def in_folder(self, folder: Path) -> Self:
        """The head, with what its key must know of files that it names, from the ``folder`` of the configuration. Raises ConfigError."""
        return self

    def files(self) -> list[str]:
        """The files beside the images that it names, and that people edit, relative to the folder of the configuration."""
        return []

    def needs(self) -> dict[str, str]:
        """The names of the heads that this one is made of, each with the field that names it; none for most kinds."""
        return {}

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


class TrainedSpec(CommonSpec):
    """What heads have in common that are trained by gradient descent, in epochs."""

    FIRST = CommonSpec.FIRST | {
        *("optimizer", "learning_rate", "momentum", "weight_decay", "epochs", "batch_size"),
        *("patience", "class_weight", "label_smoothing"),
    }

    optimizer: Optimizer = "rmsprop"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    epochs: PositiveInt = 30
    batch_size: PositiveInt = 20
    patience: Annotated[PositiveInt | None, BeforeValidator(off)] = None
    class_weight: Annotated[Literal["balanced"] | None, BeforeValidator(off)] = None
    label_smoothing: Fraction = 0.0
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    monitor: Monitor = "loss"

    @model_validator(mode="before")
    @classmethod
    def _nothing_that_is_not_taken(cls, table: Any) -> Any:
        """Variants that differ only in a momentum that their optimizer does not take have one key, and are one trial."""
        if not isinstance(table, dict):
            return table
        idle = {name for name, (field, value) in ONLY_WITH.items() if table.get(field) != value}
        return {name: value for name, value in table.items() if name not in idle}

    @model_validator(mode="before")
    @classmethod
    def _adamw_decays(cls, table: Any) -> Any:
        """AdamW without decay is Adam. Set here and no default of the field, so that the keys of other heads stay as they are."""
        if not isinstance(table, dict) or table.get("optimizer") != "adamw":
            return table
        return {"weight_decay": ADAMW_DECAY} | table


class DenseSpec(TrainedSpec):
    """``kind = "dense"``: fully connected layers on pooled features, trained by Keras's rules."""

    FIRST = TrainedSpec.FIRST | {"units", "activation", "dropout", "batch_norm"}

    kind: Literal["dense"]
    pool: Pooling = "flatten"
    units: list[Units] = [256]
    activation: Activation = "relu"
    dropout: Fraction = 0.5
    batch_norm: bool = False
    l2: Annotated[float, Field(ge=0)] = 0.0
    max_norm: Annotated[float, Field(ge=0)] = 0.0

    halves: ClassVar[bool] = True
