"""What specs share: how they are read, the bounds of their fields, ranges to draw from, and the nearest known name."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what NumPy takes


class Spec(BaseModel):
    """Parameters as they are read: nothing is converted, unknown fields are errors, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class KeyedSpec(Spec):
    """A spec that stands in keys as a whole.

    ``FIRST`` are the fields that it had in the beginning. It stays as it is: no field is added to it or taken away.
    """

    FIRST: ClassVar[frozenset[str]]

    def whole(self) -> dict[str, Any]:
        """The spec as it is in the key of a sweep: the ``FIRST`` fields, and of later ones what differs from the defaults.

        So a new field leaves the sweeps that do not use it as they are.
        """
        differs = self.model_dump(mode="json", exclude_defaults=True)
        dumped = self.model_dump(mode="json")
        return {name: value for name, value in dumped.items() if name in self.FIRST or name in differs}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the known word that is nearest, or nothing."""
    by_lower = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean {by_lower[found[0]]!r}?)" if found else ""


def near_or_all(word: str, known: Collection[str], lead: str = "there are") -> str:
    """As ``did_you_mean``; where no known word is near, all of them: ``; there are x, y``."""
    return did_you_mean(word, known) or f"; {lead} {', '.join(known) or 'none'}"


def each_once(names: list[str]) -> list[str]:
    """The names. Raises ValueError for one that stands there twice."""
    if len(set(names)) < len(names):
        raise ValueError(f"expected each once, found {names}")
    return names


Layers = Annotated[list[str], Field(min_length=1), AfterValidator(each_once)]


def off(value: Any) -> Any:
    """``"none"`` and ``false`` are what a sweep can list for a field that is off: TOML has no null."""
    return None if value is False or value == "none" else value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise ValueError(f"expected a finite number, found {value!r}")
    return value


class Range(Spec):
    """Numbers from ``low`` to ``high``, drawn evenly, or evenly on a logarithmic scale; whole ones where both ends are."""

    low: Annotated[int | float, PlainValidator(_number)]  # as it is written: 1 is whole, 1.0 is not
    high: Annotated[int | float, PlainValidator(_number)]
    log: bool = False

    @model_validator(mode="after")
    def _is_one(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"expected low < high, found {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: expected low > 0, found {self.low}")
        return self

    @property
    def whole(self) -> bool:
        """Whether whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def of_floats(self) -> "Range":
        """The same range, of which no whole numbers are drawn."""
        return self.model_copy(update={"low": float(self.low), "high": float(self.high)})


# Which of the two it is follows from the value, so that an error is that of the one that was meant.
Values = Annotated[
    Annotated[list[Any], Field(min_length=1), Tag("list")] | Annotated[Range, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, dict | Range) else "list"),
]
