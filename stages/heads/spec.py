"""The specs of heads, and the key of a trained head.

``HEAD_SCHEMA`` is raised by hand when heads are trained or scored otherwise, which leaves features as they are. 2: calibrated
by logits.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from cache.errors import ConfigError
from cache.files import digest_json, sha256_file
from stages.fields import each_once
from stages.heads.tuned_spec import CnnSpec, EndToEndSpec, FinetuneSpec
from stages.training.spec import CommonSpec, DenseSpec, Pooling, TrainedSpec

HEAD_SCHEMA = 2
# For what a dense head has fields for.
_IN_BUILD = 'a head of kind "keras" has layers of its own, found {{found}}; give them {} in the function of build'


class KerasSpec(TrainedSpec):
    """``kind = "keras"``: a head of the user's own, made by a function in a Python file: ``build = "my_heads.py:build"``.

    The function takes the shape of one image's features and the number of classes, and gives a Keras model that ends
    in probabilities, or a list of layers, to which the last one is added. ``code`` is the SHA-256 of the file.
    """

    FIRST = TrainedSpec.FIRST | {"build", "code"}

    kind: Literal["keras"]
    pool: Literal["none"] = "none"
    build: Annotated[str, Field(pattern=r"^.+\.py:[A-Za-z_][A-Za-z0-9_]*$")]
    code: str = ""

    instead: ClassVar[Mapping[str, str]] = {
        "l2": _IN_BUILD.format("kernel_regularizer=keras.regularizers.L2(…)"),
        "max_norm": _IN_BUILD.format("kernel_constraint=keras.constraints.MaxNorm(…)"),
    }

    def in_folder(self, folder: Path) -> Self:
        """With the digest of its file, so that an edit makes the head stale."""
        (file,) = self.files()
        try:
            return self.model_copy(update={"code": sha256_file(folder / file)})
        except OSError as error:
            raise ConfigError(f"build: {file}: cannot be read ({error.strerror}); name a Python file") from None

    def files(self) -> list[str]:
        return [self.build.rpartition(":")[0]]


class SklearnSpec(CommonSpec):
    """``kind = "sklearn"``: any scikit-learn classifier by name, on pooled features."""

    FIRST = CommonSpec.FIRST | {"estimator", "params", "scale"}

    kind: Literal["sklearn"]
    pool: Pooling = "avg"
    estimator: str
    params: dict[str, Any] = {}
    scale: bool = True


class EnsembleSpec(CommonSpec):
    """``kind = "ensemble"``: the mean of the probabilities of other ``heads``, or of the ``best`` trials of a ``sweep``, trained for it.

    ``weights`` are equal, or those of the lowest log loss on validation.
    """

    FIRST = CommonSpec.FIRST | {"heads", "sweep", "best", "weights"}

    kind: Literal["ensemble"]
    pool: Literal["none"] = "none"
    heads: Annotated[list[str], Field(min_length=2), AfterValidator(each_once)] | None = None
    sweep: str | None = None
    best: Annotated[int, Field(ge=2, le=10)] = 5
    weights: Literal["equal", "validation"] = "equal"

    on_base: ClassVar[bool] = False
    not_swept: ClassVar[str] = (
        "is an ensemble, found no fields to vary; sweep over one of its heads, or write several ensembles"
    )

    @model_validator(mode="before")
    @classmethod
    def _takes_no_features(cls, table: Any) -> Any:
        if isinstance(table, dict) and (idle := sorted(table.keys() & CommonSpec.model_fields.keys())):
            raise ValueError(f"{idle[0]}: an ensemble has no such field, its heads have; leave it out")
        return table

    @model_validator(mode="after")
    def _is_of_one_or_the_other(self) -> "EnsembleSpec":
        if (self.heads is None) == (self.sweep is None):
            found = "both" if self.heads else "neither"
            raise ValueError(f'expected heads = ["NAME", …] or sweep = "NAME", found {found}')
        if self.heads and "best" in self.model_fields_set:
            raise ValueError("best: only the trials of a sweep have a best; leave it out")
        return self

    def parameters(self) -> dict[str, Any]:
        idle = {"sweep", "best"} if self.heads else {"heads"}
        return self.model_dump(mode="json", exclude={*CommonSpec.model_fields, *idle})

    def needs(self) -> dict[str, str]:
        return dict.fromkeys(self.heads or [], "heads") | ({self.sweep: "sweep"} if self.sweep else {})


AnyHead = DenseSpec | KerasSpec | SklearnSpec | EnsembleSpec | FinetuneSpec | EndToEndSpec | CnnSpec
HeadSpec = Annotated[AnyHead, Field(discriminator="kind")]
KINDS: dict[str, type[AnyHead]] = {
    kind: spec for spec in get_args(AnyHead) for kind in get_args(spec.model_fields["kind"].annotation)
}


def trained_with(spec: AnyHead, told: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a result tells of its head; those that are newer than it are at the defaults that ``spec`` has."""
    fields = type(spec).model_fields
    return {name: fields[name].default for name in spec.parameters() if name not in told} | dict(told)


def head_key(spec: AnyHead, base_key: str, rows_digest: str, needs: Sequence[str] = ()) -> str:
    """SHA-256 of the head's own slice of the configuration, its features, the labels and splits it is trained on, and the keys of the
    heads that it ``needs``.
    """
    # Only where there are some, so that the keys of other heads stay as they are.
    of_needs = {"needs": list(needs)} if needs else {}
    return digest_json({"schema": HEAD_SCHEMA, "head": spec.slice(), "base": base_key, "rows": rows_digest} | of_needs)
