"""TOML → ``Config``."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import ConfigError
from pipeline.config_heads import HeadEntry, head_entries
from pipeline.config_sweeps import SweepEntry, sweep_entries, variant
from pipeline.config_tables import check_keys, check_name, table_of, validated
from stages.bases.spec import FILE, SOURCES, BaseSpec
from stages.data.spec import DataSpec
from stages.extract.spec import CacheSpec

SECTIONS = ("data", "base", "bases", "cache", "heads", "sweeps")


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
        return variant(self.path, sweep.name, sweep.head, params, self.bases)


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
    check_keys(path, "", raw, SECTIONS)
    if "data" not in raw:
        raise ConfigError(f'{path}: expected a [data] table with root = "folder of images", found none; add one')
    data = _with_paths(table_of(path, raw, "data"), folder, "root", "labels")
    cache = _with_paths({"dir": "artifacts"} | table_of(path, raw, "cache"), folder, "dir")
    bases = _bases(path, raw, folder)
    tables = table_of(path, raw, "heads")
    heads = head_entries(path, tables, bases)
    return Config(
        path=path.absolute(),
        root_name=str(raw["data"].get("root")),
        data=validated(path, "data", DataSpec, data),
        bases=bases,
        cache=validated(path, "cache", CacheSpec, cache),
        heads=heads,
        sweeps=sweep_entries(path, table_of(path, raw, "sweeps"), tables, heads, bases),
    )


def _bases(path: Path, raw: dict[str, Any], folder: Path) -> dict[str, BaseSpec]:
    if "base" in raw and "bases" in raw:
        raise ConfigError(f"{path}: expected [base] or [bases.NAME], found both; keep one of the two forms")
    tables = table_of(path, raw, "bases") if "bases" in raw else {"base": table_of(path, raw, "base")}
    if not tables:
        raise ConfigError(f"{path}: expected at least one [bases.NAME], found none")
    found = {}
    for name, table in tables.items():
        where = f"bases.{name}" if "bases" in raw else "base"
        check_name(path, where, name)
        spec: BaseSpec = validated(path, where, BaseSpec, table)
        # Weights and structure of a user's own base are one file, so that the file is what the key holds.
        file = spec.own_file or (None if spec.weights in SOURCES else Path(spec.weights))
        if file is not None:
            spec = spec.model_copy(update={"weights": str(folder / file.expanduser())})
        found[name] = spec
    return found


def base_of(name: str, size: tuple[int, int]) -> BaseSpec:
    """A base that no configuration names, with random weights, or those of its own file. Raises ConfigError."""
    own = name.startswith(FILE)
    table: dict[str, Any] = {"name": name, "input_size": list(size)} | ({} if own else {"weights": "random"})
    spec: BaseSpec = validated(Path("headstart layers"), "base", BaseSpec, table)
    return spec.model_copy(update={"weights": str(spec.own_file)}) if spec.own_file else spec


def _with_paths(table: dict[str, Any], folder: Path, *names: str) -> dict[str, Any]:
    """Paths in the file are relative to the file."""
    given = {name: table[name] for name in names if isinstance(table.get(name), str)}
    return table | {name: folder / Path(value).expanduser() for name, value in given.items()}
