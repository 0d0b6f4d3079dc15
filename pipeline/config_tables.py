"""One table of the configuration → one spec. What is wrong with it becomes one line: where, what was expected, what was found."""

import re
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cache.errors import ConfigError
from stages.fields import nearest

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
    "too_short": "expected one at least, found none",
    "finite_number": "expected a finite number",
    "string_pattern_mismatch": 'expected "file.py:function"',
}
# Errors whose words say what was found.
SAID = ("missing", "value_error", "too_short")
# What Pydantic puts into the place of an error for the member of a union that was meant; it does not stand in the file.
TAGS = ("dense", "keras", "sklearn", "list", "range")
# Names become folders and make targets, so they stay within what both can take.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def validated(path: Path, where: str, spec: Any, table: Any) -> Any:
    """The spec that a table says. Raises ConfigError; the error for an unknown field names the nearest known one."""
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: expected a table [{where}], found {table!r}")
    if hasattr(spec, "model_fields"):
        check_keys(path, where, table, spec.model_fields)
    try:
        return TypeAdapter(spec).validate_python(table)
    except ValidationError as error:
        first, *others = error.errors()
        names = [str(part) for part in first["loc"] if part not in TAGS]
        message = WORDS.get(first["type"], first["msg"].removeprefix("Value error, ").replace("Input should", "should"))
        found = "" if first["type"] in SAID else f", found {first['input']!r}"
        if first["type"] == "literal_error" and isinstance(first["input"], str):
            found += nearest(first["input"], re.findall("'([^']*)'", first["ctx"]["expected"]))
        more = f" (and {len(others)} more)" if others else ""
        # What does not fit together names its fields itself.
        place = f"{'.'.join(names)}: " if names else ""
        raise ConfigError(f"{path}: [{where}] {place}{message}{found}{more}") from None


def table_of(path: Path, raw: dict[str, Any], name: str) -> dict[str, Any]:
    """A table of the file, empty where there is none."""
    value = raw.get(name, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a table [{name}], found {value!r}")
    return value


def check_name(path: Path, where: str, name: str) -> None:
    """Raise ConfigError for a name that is no name of a folder."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{path}: [{where}]: expected a name that begins with a letter or digit, and has letters, digits, '-', '_' and '.' only, "
            f"found {name!r}; rename it"
        )


def check_keys(path: Path, where: str, table: dict[str, Any], known: Any, inside: str = "") -> None:
    """Raise ConfigError for a field that is not ``known``, or without ``where`` for a section of the file that is not."""
    for key in table:
        if key not in known:
            place = f"[{where}] {inside}{key}" if where else f"[{key}]"
            what = "field" if where else "section"
            raise ConfigError(f"{path}: {place}: unknown {what}{nearest(key, known)}; known are {', '.join(known)}")
