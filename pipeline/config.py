"""TOML → ``Config``. An unknown key is an error that names the nearest known one."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cache.errors import ConfigError
from cache.files import sha256_file
from stages.bases.spec import FILE, BaseSpec
from stages.data.spec import DataSpec
from stages.extract.spec import CacheSpec
from stages.fields import Range, nearest
from stages.heads.spec import AnyHead, HeadSpec, KerasSpec, SklearnSpec
from stages.sweeps.spec import SweepSpec
from stages.training.spec import DenseSpec

SECTIONS = ("data", "base", "bases", "cache", "heads", "sweeps")
HEAD_KINDS: dict[str, type[AnyHead]] = {"dense": DenseSpec, "keras": KerasSpec, "sklearn": SklearnSpec}
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
# Names become folders and make targets, so they stay within what both can take.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class HeadEntry:
    """One head on one base: what is trained, and has a folder of its own. ``name`` is ``head`` or ``head@base``.

    ``layers`` are those of the base whose features it is trained on.
    """

    name: str
    base: str
    layers: tuple[str, ...]
    spec: AnyHead


@dataclass(frozen=True)
class SweepEntry:
    """One sweep: its spec, and the table of the head that it varies, as it stands in the file."""

    name: str
    spec: SweepSpec
    head: dict[str, Any]


@dataclass(frozen=True)
class Config:
    """A whole configuration; every path in it is absolute."""

    path: Path
    root_name: str
    data: DataSpec
    bases: dict[str, BaseSpec]
    cache: CacheSpec
    heads: dict[str, HeadEntry]
    sweeps: dict[str, SweepEntry]

    def variant(self, sweep: SweepEntry, params: dict[str, Any]) -> HeadEntry:
        """The head of a sweep with other parameters, under the sweep's name. Raises ConfigError for one that cannot be."""
        return _variant(self.path, sweep.name, sweep.head, params, self.bases)


def load_config(path: Path | str) -> Config:
    """Read a configuration. Raises ConfigError with one line that says where, what was expected and what was found."""
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration; name one with --config FILE (make: CONFIG=FILE)") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: expected a TOML file, found a folder; name a file with --config FILE") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML, found {error}; mend that line") from None
    folder = path.absolute().parent
    _check_keys(path, "", raw, SECTIONS)
    if "data" not in raw:
        raise ConfigError(f'{path}: expected a [data] table with root = "folder of images", found none; add one')
    data = _with_paths(_table(path, raw, "data"), folder, "root", "labels")
    cache = _with_paths({"dir": "artifacts"} | _table(path, raw, "cache"), folder, "dir")
    bases = _bases(path, raw, folder)
    tables = _table(path, raw, "heads")
    heads = _heads(path, tables, bases)
    return Config(
        path=path.absolute(),
        root_name=str(raw["data"].get("root")),
        data=_validated(path, "data", DataSpec, data),
        bases=bases,
        cache=_validated(path, "cache", CacheSpec, cache),
        heads=heads,
        sweeps=_sweeps(path, _table(path, raw, "sweeps"), tables, heads, bases),
    )


def _table(path: Path, raw: dict[str, Any], name: str) -> dict[str, Any]:
    value = raw.get(name, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a table [{name}], found {value!r}")
    return value


def _bases(path: Path, raw: dict[str, Any], folder: Path) -> dict[str, BaseSpec]:
    if "base" in raw and "bases" in raw:
        raise ConfigError(f"{path}: expected [base] or [bases.NAME], found both; keep one of the two forms")
    tables = _table(path, raw, "bases") if "bases" in raw else {"base": _table(path, raw, "base")}
    if not tables:
        raise ConfigError(f"{path}: expected at least one [bases.NAME], found none")
    found = {}
    for name, table in tables.items():
        where = f"bases.{name}" if "bases" in raw else "base"
        _check_name(path, where, name)
        spec = _validated(path, where, BaseSpec, table)
        if spec.own_file:
            # Weights and structure are one file, so that the file is what the key holds.
            spec = spec.model_copy(update={"weights": str(folder / spec.own_file.expanduser())})
        elif spec.weights not in ("imagenet", "packaged", "random"):
            spec = spec.model_copy(update={"weights": str(folder / Path(spec.weights).expanduser())})
        found[name] = spec
    return found


def base_of(name: str, size: tuple[int, int]) -> BaseSpec:
    """A base that no configuration names, with random weights, or those of its own file. Raises ConfigError."""
    own = name.startswith(FILE)
    table: dict[str, Any] = {"name": name, "input_size": list(size)} | ({} if own else {"weights": "random"})
    spec: BaseSpec = _validated(Path("headstart layers"), "base", BaseSpec, table)
    return spec.model_copy(update={"weights": str(spec.own_file)}) if spec.own_file else spec


def _heads(path: Path, tables: dict[str, Any], bases: dict[str, BaseSpec]) -> dict[str, HeadEntry]:
    entries = {}
    for name, table in tables.items():
        _check_name(path, f"heads.{name}", name)
        for entry in _head_entries(path, f"heads.{name}", name, table, bases):
            optimizer = getattr(entry.spec, "optimizer", None)
            if "momentum" in table and optimizer != "sgd":
                raise ConfigError(
                    f'{path}: [heads.{name}] momentum: only optimizer "sgd" takes it, found "{optimizer}"; leave it out'
                )
            entries[entry.name] = entry
    return entries


def _head_entries(path: Path, where: str, name: str, table: Any, bases: dict[str, BaseSpec]) -> list[HeadEntry]:
    """A head on each of its bases."""
    if not isinstance(table, dict) or table.get("kind") not in HEAD_KINDS:
        kind = table.get("kind") if isinstance(table, dict) else table
        raise ConfigError(f"{path}: [{where}] kind: expected one of {', '.join(HEAD_KINDS)}, found {kind!r}")
    fields = HEAD_KINDS[table["kind"]].model_fields
    if elsewhere := [key for key in ("cv", "repeats") if key in table.keys() - fields.keys()]:
        raise ConfigError(
            f"{path}: [{where}] {elsewhere[0]}: a head has no such key, a sweep has; set it in a [sweeps.NAME] with "
            f'head = "{name}"'
        )
    _check_keys(path, where, table, fields)
    spec: AnyHead = _validated(path, where, HeadSpec, table)
    if isinstance(spec, KerasSpec):
        spec = spec.model_copy(update={"code": _code(path, where, spec)})
    asked = [spec.base] if isinstance(spec.base, str) else spec.base or list(bases)[:1]
    entries = []
    for base in asked:
        if base not in bases:
            raise ConfigError(
                f"{path}: [{where}] base: no base {base!r}{nearest(base, bases)}; there are {', '.join(bases)}"
            )
        full = f"{name}@{base}" if len(asked) > 1 else name
        entries.append(HeadEntry(full, base, _layers(path, where, spec.layers, bases[base]), spec))
    return entries


def _code(path: Path, where: str, spec: KerasSpec) -> str:
    """The digest of the file that a head is built by, so that an edit makes the head stale."""
    name = spec.build.rpartition(":")[0]
    try:
        return sha256_file(path.absolute().parent / name)
    except OSError as error:
        raise ConfigError(
            f"{path}: [{where}] build: {name}: cannot be read ({error.strerror}); name a Python file"
        ) from None


def _sweeps(
    path: Path, tables: dict[str, Any], heads: dict[str, Any], entries: dict[str, HeadEntry], bases: dict[str, BaseSpec]
) -> dict[str, SweepEntry]:
    found = {}
    for name, table in tables.items():
        where = f"sweeps.{name}"
        _check_name(path, where, name)
        if name in entries:
            raise ConfigError(
                f"{path}: [{where}]: expected a name of its own, as its winner becomes a head; there is [heads.{name}]"
            )
        if isinstance(table, dict) and isinstance(table.get("grid"), dict):
            table = table | {"grid": _flat(table["grid"])}
            for field, values in table["grid"].items():
                if isinstance(values, dict):
                    _check_keys(path, where, values, Range.model_fields, f"grid.{field}.")
        spec: SweepSpec = _validated(path, where, SweepSpec, table)
        if spec.head not in heads:
            raise ConfigError(
                f"{path}: [{where}] head: no head {spec.head!r}{nearest(spec.head, heads)}; there are {', '.join(heads)}"
            )
        head = heads[spec.head]
        if isinstance(head.get("base"), list) and head["base"][1:] and "base" not in spec.grid:
            raise ConfigError(
                f"{path}: [{where}]: the head {spec.head!r} is on several bases; name one of them, or sweep over them: "
                f"grid.base = {head['base']}"
            )
        if spec.strategy == "halving" and head["kind"] != "dense":
            raise ConfigError(
                f'{path}: [{where}] strategy: "halving" needs a head of kind "dense", whose epochs it divides, found '
                f'kind "{head["kind"]}"; take "grid" or "random"'
            )
        fields = HEAD_KINDS[head["kind"]].model_fields
        if spec.strategy == "halving" and spec.min_epochs >= (epochs := head.get("epochs", fields["epochs"].default)):
            raise ConfigError(
                f"{path}: [{where}] min_epochs: expected fewer than the {epochs} epochs of the head {spec.head!r}, found "
                f"{spec.min_epochs}; no trial would be dropped"
            )
        optimizers = spec.grid.get("optimizer") or [head.get("optimizer")]
        if "momentum" in spec.grid and "sgd" not in optimizers:
            raise ConfigError(
                f'{path}: [{where}] grid.momentum: only optimizer "sgd" takes it, found {", ".join(map(repr, optimizers))}; '
                "leave it out"
            )
        grid = dict(spec.grid)
        for field, values in spec.grid.items():
            for value in [values.low, values.high] if isinstance(values, Range) else values:
                _variant(path, name, head, {field: value}, bases)
            if isinstance(values, Range) and field in fields and fields[field].annotation is float:
                grid[field] = values.of_floats()
        found[name] = SweepEntry(name, spec.model_copy(update={"grid": grid}), head)
    return found


def _flat(grid: dict[str, Any]) -> dict[str, Any]:
    """``params = { C = […] }`` as ``params.C``; any other table is a range."""
    params = grid.get("params")
    if not isinstance(params, dict):
        return grid
    rest = {field: values for field, values in grid.items() if field != "params"}
    return rest | {f"params.{name}": values for name, values in params.items()}


def _variant(
    path: Path, sweep: str, head: dict[str, Any], params: dict[str, Any], bases: dict[str, BaseSpec]
) -> HeadEntry:
    table = dict(head)
    if isinstance(table.get("base"), list):
        table["base"] = table["base"][0]  # stands in where no base is named
    for field, value in params.items():
        name, _, parameter = field.partition(".")
        if name == "base" and not isinstance(value, str):
            raise ConfigError(f"{path}: [sweeps.{sweep}] grid.base: expected names of bases, found {value!r}")
        if parameter and not isinstance(table.get(name, {}), dict):
            raise ConfigError(f"{path}: [sweeps.{sweep}] grid.{field}: {name} has no parts, found {table[name]!r}")
        table[name] = {**table.get(name, {}), parameter: value} if parameter else value
    start = f"{path}: [sweeps.{sweep}] "
    try:
        (entry,) = _head_entries(path, f"sweeps.{sweep}", sweep, table, bases)
    except ConfigError as error:
        said = str(error).removeprefix(start)
        varied = {field.partition(".")[0] for field in params}
        raise ConfigError(f"{start}{'grid.' if re.split('[.:]', said)[0] in varied else ''}{said}") from None
    return entry


def _layers(path: Path, where: str, asked: list[str] | None, base: BaseSpec) -> tuple[str, ...]:
    """The layers that a head is trained on: those that it names, else the last that the base names."""
    for layer in asked or ():
        if layer not in base.cuts:
            raise ConfigError(
                f"{path}: [{where}] layers: the base extracts no layer {layer!r}{nearest(layer, base.cuts)}; "
                f"it extracts {', '.join(base.cuts)}; add it to the base's layers"
            )
    return tuple(asked) if asked else base.cuts[-1:]


def _check_name(path: Path, where: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{path}: [{where}]: expected a name of letters, digits, '-', '_' and '.', found {name!r}")


def _check_keys(path: Path, where: str, table: dict[str, Any], known: Any, inside: str = "") -> None:
    for key in table:
        if key not in known:
            place = f"[{where}] {inside}{key}" if where else f"[{key}]"
            raise ConfigError(f"{path}: {place}: unknown key{nearest(key, known)}; known are {', '.join(known)}")


def _with_paths(table: dict[str, Any], folder: Path, *names: str) -> dict[str, Any]:
    """Paths in the file are relative to the file."""
    given = {name: table[name] for name in names if isinstance(table.get(name), str)}
    return table | {name: folder / Path(value).expanduser() for name, value in given.items()}


def _validated(path: Path, where: str, spec: Any, table: Any) -> Any:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: expected a table [{where}], found {table!r}")
    if hasattr(spec, "model_fields"):
        _check_keys(path, where, table, spec.model_fields)
    try:
        return TypeAdapter(spec).validate_python(table)
    except ValidationError as error:
        first, *others = error.errors()
        # The discriminator of a union stands in the location but not in the file.
        names = [str(part) for part in first["loc"] if part not in (*HEAD_KINDS, "list", "range")]
        message = WORDS.get(first["type"], first["msg"].removeprefix("Value error, ").replace("Input should", "should"))
        found = "" if first["type"] in SAID else f", found {first['input']!r}"
        if first["type"] == "literal_error" and isinstance(first["input"], str):
            found += nearest(first["input"], re.findall("'([^']*)'", first["ctx"]["expected"]))
        more = f" (and {len(others)} more)" if others else ""
        # What does not fit together names its fields itself.
        place = f"{'.'.join(names)}: " if names else ""
        raise ConfigError(f"{path}: [{where}] {place}{message}{found}{more}") from None
