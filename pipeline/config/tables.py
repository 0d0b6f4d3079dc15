"""One table of the configuration → one spec. What is wrong with it becomes one line: where, what was expected, what was found."""

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import ValidationError

from cache.errors import ConfigError
from stages.fields import Spec, did_you_mean, near_or_all

AnySpec = TypeVar("AnySpec", bound=Spec)

# Pydantic's words for its own types, in those of a TOML file.
WORDS = {
    "missing": "expected a value, found none; add it",
    "is_instance_of": "expected a text",
    "path_type": "expected a text",
    "string_type": "expected a text",
    "tuple_type": "expected a whole number, or [height, width]",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "list_type": "expected a list",
    "dict_type": "expected a table",
    "finite_number": "expected a finite number",
    "string_pattern_mismatch": 'expected "file.py:function"',
}
# Errors whose words say what was found.
SAID = ("missing", "value_error", "too_short")
# What Pydantic puts into the place of an error for the member of a union that was meant; it does not stand in the file.
TAGS = ("list", "range")
# Names become folders and make targets, so they stay within what both can take.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@contextmanager
def place(where: str) -> Iterator[None]:
    """A ConfigError in the block begins with ``where`` it is: so who finds a mistake need not know of which table it is."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from error


def validated(spec: type[AnySpec], table: Any) -> AnySpec:
    """The spec that a table says. Raises ConfigError; the error for an unknown field names the nearest known one."""
    if not isinstance(table, dict):
        raise ConfigError(f"expected a table, found {table!r}")
    check_keys(table, spec.model_fields)
    try:
        return spec.model_validate(table)
    except ValidationError as error:
        first, *others = error.errors()
        names = [str(part) for part in first["loc"] if part not in TAGS]
        message = WORDS.get(first["type"], first["msg"].removeprefix("Value error, ").replace("Input should", "should"))
        if first["type"] == "too_short":
            least, there = (_number(first["ctx"][name]) for name in ("min_length", "actual_length"))
            message = f"expected {least} at least, found {there}"
        found = "" if first["type"] in SAID else f", found {first['input']!r}"
        if first["type"] == "literal_error" and isinstance(first["input"], str):
            found += did_you_mean(first["input"], re.findall("'([^']*)'", first["ctx"]["expected"]))
        more = f" (and {len(others)} more)" if others else ""
        # What does not fit together names its fields itself.
        field = f"{'.'.join(names)}: " if names else ""
        raise ConfigError(f"{field}{message}{found}{more}") from None


def _number(n: int) -> str:
    return ("none", "one", "two")[n] if n <= 2 else str(n)


def check_name(name: str) -> None:
    """Raise ConfigError for a name that is no name of a folder."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            "expected a name that begins with a letter or digit, and has letters, digits, '-', '_' and '.' only, "
            f"found {name!r}; rename it"
        )


def check_keys(table: Iterable[str], known: Collection[str], before: str = "", what: str = "field") -> None:
    """Raise ConfigError for a field that is not ``known``; ``before`` is what stands before the fields' names."""
    for key in table:
        if key not in known:
            raise ConfigError(f"{before}{key}: unknown {what}{near_or_all(key, known, 'known are')}")


def no_such(what: str, name: str, known: Collection[str]) -> str:
    """The words for a name that is not among those ``known``, with the nearest of these, or all."""
    return f"no {what} {name!r}{near_or_all(name, known)}"
