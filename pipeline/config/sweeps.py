"""``[sweeps.NAME]`` → the sweeps to run, each with the head that it varies; and the head of each of its variants."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import ConfigError
from pipeline.config.heads import HeadEntry, made_of, on_bases_of_its_head, on_each_base
from pipeline.config.tables import check_keys, check_name, no_such, place, validated
from stages.bases.spec import BaseSpec
from stages.fields import Range
from stages.heads.spec import KINDS
from stages.sweeps.spec import SweepSpec
from stages.training.spec import ONLY_WITH, DenseSpec


@dataclass(frozen=True)
class SweepEntry:
    """One sweep: its spec, the table of the head that it varies, as it stands in the file, and the heads that its trials need."""

    name: str
    spec: SweepSpec
    head: dict[str, Any]
    needs: tuple[str, ...] = ()


def sweep_entries(
    raw: dict[str, Any], entries: dict[str, HeadEntry], bases: dict[str, BaseSpec], folder: Path
) -> dict[str, SweepEntry]:
    """Every sweep of the file in ``folder``, by name; each value of each grid is tried on its head. Raises ConfigError."""
    found, heads = {}, raw["heads"]
    for name, table in raw["sweeps"].items():
        with place(f"[sweeps.{name}] "):
            check_name(name)
            if name in entries:
                raise ConfigError(f"expected a name of its own, as its winner becomes a head; there is [heads.{name}]")
            spec = validated(SweepSpec, _flat(table))
            if spec.head not in heads:
                raise ConfigError(f"head: {no_such('head', spec.head, heads)}")
            head = on_bases_of_its_head(heads[spec.head], heads)
            _check_fit(spec, head)
            fields = KINDS[head["kind"]].model_fields
            grid = dict(spec.grid)
            needs = list(made_of(variant(name, head, {}, bases, folder), entries, raw["sweeps"]).needs)
            for field, values in spec.grid.items():
                for value in [values.low, values.high] if isinstance(values, Range) else values:
                    tried = variant(name, head, {field: value}, bases, folder)
                    needs += made_of(tried, entries, raw["sweeps"]).needs
                if isinstance(values, Range) and field in fields and fields[field].annotation is float:
                    grid[field] = values.of_floats()
        found[name] = SweepEntry(name, spec.model_copy(update={"grid": grid}), head, tuple(dict.fromkeys(needs)))
    return found


def _flat(table: Any) -> Any:
    """The grid's ``params = { C = […] }`` as ``params.C``; any other table in it is a range."""
    if not isinstance(table, dict) or not isinstance(table.get("grid"), dict):
        return table
    grid = dict(table["grid"])
    if isinstance(grid.get("params"), dict):
        grid |= {f"params.{name}": values for name, values in grid.pop("params").items()}
    for field, values in grid.items():
        if isinstance(values, dict):
            check_keys(values, Range.model_fields, f"grid.{field}.")
    return table | {"grid": grid}


def _check_fit(spec: SweepSpec, head: dict[str, Any]) -> None:
    """Raise ConfigError where a sweep asks what its head cannot do."""
    base, kind = head.get("base"), KINDS[head["kind"]]
    if isinstance(base, list) and base[1:] and "base" not in spec.grid:
        raise ConfigError(
            f"the head {spec.head!r} is on several bases; name one of them, or sweep over them: grid.base = {base}"
        )
    if kind.not_swept:
        raise ConfigError(f"head: {spec.head!r} {kind.not_swept}")
    if spec.cv and kind.not_in_folds:
        raise ConfigError(f"cv: {kind.not_in_folds.format(head=spec.head)}")
    if spec.strategy == "halving" and not kind.halves:
        raise ConfigError(
            'strategy: "halving" needs a head of kind "dense", whose epochs it divides, found '
            f'kind "{head["kind"]}"; take "grid" or "random"'
        )
    epochs = head.get("epochs", DenseSpec.model_fields["epochs"].default)
    if spec.strategy == "halving" and spec.min_epochs >= epochs:
        raise ConfigError(
            f"min_epochs: expected fewer than the {epochs} epochs of the head {spec.head!r}, found "
            f"{spec.min_epochs}; no trial would be dropped"
        )
    for field, (other, value) in ONLY_WITH.items():
        values = spec.grid.get(other) or [head.get(other)]
        if field in spec.grid and value not in values:
            found = ", ".join(map(repr, values))
            raise ConfigError(f'grid.{field}: only {other} "{value}" takes it, found {found}; leave it out')


def variant(
    sweep: str, head: dict[str, Any], params: dict[str, Any], bases: dict[str, BaseSpec], folder: Path
) -> HeadEntry:
    """The head of a sweep with other parameters, under the sweep's name. Raises ConfigError for one that cannot be."""
    table = dict(head)
    if isinstance(table.get("base"), list):
        table["base"] = table["base"][0]  # stands in where no base is named
    for field, value in params.items():
        name, _, parameter = field.partition(".")
        if name == "base" and not isinstance(value, str):
            raise ConfigError(f"grid.base: expected names of bases, found {value!r}")
        if parameter and not isinstance(table.get(name, {}), dict):
            raise ConfigError(f"grid.{field}: {name} has no parts, found {table[name]!r}")
        table[name] = {**table.get(name, {}), parameter: value} if parameter else value
    try:
        (entry,) = on_each_base(sweep, table, bases, folder)
    except ConfigError as error:
        varied = {field.partition(".")[0] for field in params}
        raise ConfigError(f"{'grid.' if re.split('[.:]', str(error))[0] in varied else ''}{error}") from None
    return entry
