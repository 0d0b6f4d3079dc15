"""TOML → ``Config``."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import ConfigError
from pipeline.config.heads import HeadEntry, head_entries, made_of
from pipeline.config.order import in_order
from pipeline.config.sweeps import SweepEntry, sweep_entries, variant
from pipeline.config.tables import check_keys, check_name, place, validated
from stages.bases.presets import is_preset_folder
from stages.bases.spec import FILE, HUB, SOURCES, BaseSpec
from stages.data.spec import DataSpec
from stages.data.views import ViewsSpec
from stages.extract.cost import CostSpec
from stages.extract.spec import CacheSpec
from stages.report.spec import ReportSpec

SECTIONS = ("data", "base", "bases", "views", "cache", "heads", "sweeps", "report", "cost")


@dataclass(frozen=True)
class Config:
    """A whole configuration; every path in it is absolute."""

    path: Path
    root_name: str
    data: DataSpec
    bases: dict[str, BaseSpec]
    views: ViewsSpec
    cache: CacheSpec
    heads: dict[str, HeadEntry]
    sweeps: dict[str, SweepEntry]
    report: ReportSpec
    cost: CostSpec | None

    def variant(self, sweep: SweepEntry, params: dict[str, Any]) -> HeadEntry:
        """The head of a sweep with other parameters, under the sweep's name. Raises ConfigError for one that cannot be."""
        with place(f"{self.path}: [sweeps.{sweep.name}] "):
            entry = variant(sweep.name, sweep.head, params, self.bases, self.path.parent)
            return made_of(entry, self.heads, self.sweeps)


def load_config(path: Path | str) -> Config:
    """Read a configuration. Raises ConfigError with one line that says where, what was expected and what was found."""
    path = Path(path)
    with place(f"{path}: "):
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError("no such configuration; name one with --config FILE (make: CONFIG=FILE)") from None
        except IsADirectoryError:
            raise ConfigError("expected a TOML file, found a folder; name a file with --config FILE") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"expected TOML, found {error}; mend that line") from None
        return _config(path.absolute(), raw)


def _config(path: Path, raw: dict[str, Any]) -> Config:
    check_keys(raw, SECTIONS, what="section")
    if "data" not in raw:
        raise ConfigError('expected a [data] table with root = "folder of images", found none; add one')
    tables = {name: raw.get(name, {}) for name in SECTIONS}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"expected a table [{name}], found {table!r}")
    folder = path.parent
    with place("[data] "):
        table = _with_paths(tables["data"], folder, "root", "labels", "corrections")
        if isinstance(group := table.get("group"), str) and group.lower().endswith(".csv"):
            table["group"] = str(folder / Path(group).expanduser())  # else it is a pattern or a column
        data = validated(DataSpec, table)
    with place("[views] "):
        views = validated(ViewsSpec, tables["views"])
    with place("[cache] "):
        cache = validated(CacheSpec, _with_paths({"dir": "artifacts"} | tables["cache"], folder, "dir"))
    with place("[report] "):
        report = validated(ReportSpec, tables["report"])
    with place("[cost] "):
        cost = validated(CostSpec, tables["cost"]) if "cost" in raw else None
    if "base" in raw and "bases" in raw:
        raise ConfigError("expected [base] or [bases.NAME], found both; keep one of the two forms")
    if raw.get("bases") == {}:
        raise ConfigError("expected at least one [bases.NAME], found none")
    bases = {name: _base(f"bases.{name}", name, table, folder) for name, table in tables["bases"].items()}
    bases = bases or {"base": _base("base", "base", tables["base"], folder)}
    heads = head_entries(tables["heads"], bases, folder, tables["sweeps"])
    sweeps = sweep_entries(tables, heads, bases, folder)
    in_order(heads, sweeps)  # an error, where there is none
    return Config(path, str(tables["data"].get("root")), data, bases, views, cache, heads, sweeps, report, cost)


def _base(where: str, name: str, table: Any, folder: Path) -> BaseSpec:
    with place(f"[{where}] "):
        check_name(name)
        return _spec(table, folder)


def _spec(table: Any, folder: Path) -> BaseSpec:
    spec = validated(BaseSpec, table)
    # Weights and structure of a user's own base are one file, so that the file is what the key holds.
    if spec.hub:
        path = folder / Path(spec.hub).expanduser()
        return spec.model_copy(update={"weights": str(path) if is_preset_folder(spec.hub, folder) else spec.hub})
    file = spec.own_file or (None if spec.weights in SOURCES else Path(spec.weights))
    return spec.model_copy(update={"weights": str(folder / file.expanduser())}) if file else spec


def base_of(name: str, size: tuple[int, int] | None, random: bool = True) -> BaseSpec:
    """A base that no configuration names, with those of its own file, or else ``random`` weights or its usual ones. Raises ConfigError."""
    options: dict[str, Any] = {"weights": "random"} if random and not name.startswith((FILE, HUB)) else {}
    if size:
        options["input_size"] = list(size)
    return _spec({"name": name, **options}, Path.cwd())


def _with_paths(table: dict[str, Any], folder: Path, *names: str) -> dict[str, Any]:
    """Paths in the file are relative to the file."""
    given = {name: table[name] for name in names if isinstance(table.get(name), str)}
    return table | {name: folder / Path(value).expanduser() for name, value in given.items()}
