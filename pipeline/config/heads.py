"""``[heads.NAME]`` → the heads to train: one for each base that the table names."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.errors import ConfigError
from pipeline.config.tables import check_name, no_such, place, validated
from stages.bases.spec import BaseSpec
from stages.fields import did_you_mean
from stages.heads.spec import KINDS, AnyHead, EnsembleSpec
from stages.heads.tuned_spec import ON_IMAGES, FinetuneSpec
from stages.training.spec import ONLY_WITH, DenseSpec


@dataclass(frozen=True)
class HeadEntry:
    """One head on one base: what is trained, and has a folder of its own. ``name`` is ``head`` or ``head@base``.

    ``layers`` are those of the base whose features it is trained on; ``needs`` names the heads that it is made of, which are trained
    before it; the name of a sweep is its winner. An ensemble has neither base nor layers; it may take the best trials of ``sweeps``.
    """

    name: str
    base: str
    layers: tuple[str, ...]
    spec: AnyHead
    needs: tuple[str, ...] = ()
    sweeps: tuple[str, ...] = ()


def head_entries(
    tables: dict[str, Any], bases: dict[str, BaseSpec], folder: Path, sweeps: Collection[str]
) -> dict[str, HeadEntry]:
    """Every head of the file in ``folder``, by name; ``sweeps`` are the names of those whose winners they may be made of. Raises
    ConfigError.
    """
    entries = {}
    for name, table in tables.items():
        with place(f"[heads.{name}] "):
            check_name(name)
            for entry in on_each_base(name, on_bases_of_its_head(table, tables), bases, folder):
                for field, (other, value) in ONLY_WITH.items():
                    if field in table and (found := getattr(entry.spec, other, None)) != value:
                        raise ConfigError(f'{field}: only {other} "{value}" takes it, found "{found}"; leave it out')
                entries[entry.name] = entry
    for name, entry in entries.items():
        with place(f"[heads.{name.partition('@')[0]}] "):
            entries[name] = made_of(entry, entries, sweeps)
            for need in entries[name].needs if isinstance(entry.spec, EnsembleSpec) else ():
                if need in entries and isinstance(entries[need].spec, EnsembleSpec):
                    raise ConfigError(f"heads: {need!r} is an ensemble itself; name its heads")
    return entries


def on_each_base(name: str, table: Any, bases: dict[str, BaseSpec], folder: Path) -> list[HeadEntry]:
    """The head of a table on each of its bases; on the first base where it names none. Raises ConfigError."""
    kind = table.get("kind") if isinstance(table, dict) else table
    if not isinstance(table, dict) or not isinstance(kind, str) or kind not in KINDS:
        meant = did_you_mean(kind, KINDS) if isinstance(kind, str) else ""
        raise ConfigError(f"kind: expected one of {', '.join(KINDS)}, found {kind!r}{meant}")
    for key in ("cv", "repeats"):
        if key in table:
            raise ConfigError(
                f'{key}: a head has no such field, a sweep has; set it in a [sweeps.NAME] with head = "{name}"'
            )
    for key, said in KINDS[kind].instead.items():
        if key in table:
            raise ConfigError(f"{key}: {said.format(found=repr(table[key]))}")
    spec: AnyHead = validated(KINDS[kind], table)
    spec = spec.in_folder(folder)
    if not spec.on_base:
        return [HeadEntry(name, "", (), spec)]
    asked = [spec.base] if isinstance(spec.base, str) else spec.base or list(bases)[:1]
    entries = []
    for base in asked:
        if base not in bases:
            raise ConfigError(f"base: {no_such('base', base, bases)}")
        cuts = bases[base].cuts
        for layer in spec.layers or ():
            if layer not in cuts:
                raise ConfigError(
                    f"layers: the base extracts no layer {layer!r}{did_you_mean(layer, cuts)}; "
                    f"it extracts {', '.join(cuts)}; add it to the base's layers"
                )
        if spec.views and not bases[base].views and not isinstance(spec, ON_IMAGES):
            raise ConfigError(
                f"views: expected augmented views of the base {base!r}, found none; set views = 4 in it, or leave views out"
            )
        full = f"{name}@{base}" if len(asked) > 1 else name
        entries.append(HeadEntry(full, base, tuple(spec.layers or cuts[-1:]), spec))
    return entries


def on_bases_of_its_head(table: Any, tables: dict[str, Any]) -> Any:
    """The table of a head that is fine-tuned, with the bases of the head that it begins with, where it names none."""
    if not isinstance(table, dict) or table.get("kind") != "finetune" or "base" in table:
        return table
    head = tables.get(table["head"]) if isinstance(table.get("head"), str) else None
    return table | ({"base": head["base"]} if isinstance(head, dict) and "base" in head else {})


def made_of(entry: HeadEntry, heads: dict[str, HeadEntry], sweeps: Collection[str]) -> HeadEntry:
    """The head with those that it is made of, and on the layer of the one that it goes on with. Raises ConfigError."""
    return on_its_head(with_needs(entry, heads, sweeps), heads)


def on_its_head(entry: HeadEntry, heads: dict[str, HeadEntry]) -> HeadEntry:
    """A head that is fine-tuned is on the layer of the dense head that it begins with. Raises ConfigError where that is none, or where
    it is on several layers.
    """
    if not isinstance(entry.spec, FinetuneSpec):
        return entry
    (name,) = entry.needs
    begun = heads.get(name)
    if begun is None or not isinstance(begun.spec, DenseSpec):
        found = "a sweep" if begun is None else f'one of kind "{begun.spec.kind}"'
        raise ConfigError(f'head: expected a head of kind "dense", found {name!r}, which is {found}; name a dense head')
    if begun.base != entry.base:
        head, _, on_several = name.partition("@")
        other = (
            f'head = "{head}" without base, which is fine-tuned on each of its bases'
            if on_several
            else "leave base out"
        )
        raise ConfigError(
            f'head: {name!r} is on the base {begun.base!r}, found {entry.base!r}; set base = "{begun.base}", or {other}'
        )
    if len(begun.layers) > 1:
        raise ConfigError(
            f"head: expected a head on one layer, found {name!r}, which is on {', '.join(begun.layers)}; name another head"
        )
    if begun.spec.refit:
        raise ConfigError(
            f"head: {name!r} has refit = true, so that it knows the validation images, which are to choose the epoch; name one without"
        )
    return replace(entry, layers=begun.layers)


def with_needs(entry: HeadEntry, heads: Collection[str], sweeps: Collection[str]) -> HeadEntry:
    """The head, with the heads and the winners of sweeps that its spec names. ConfigError for a name that is none of them.

    A head that is on several bases is named with one of them, ``head@base``; left out, it is that of the head that needs it. What a
    field ``sweep`` names is a sweep and not its winner.
    """
    found, of_sweeps = [], []
    for name, field in entry.spec.needs().items():
        if field == "sweep":
            if name not in sweeps:
                raise ConfigError(f"sweep: {no_such('sweep', name, sweeps)}")
            of_sweeps.append(name)
            continue
        here = f"{name}@{entry.base}"
        if name not in heads and name not in sweeps and here not in heads:
            raise ConfigError(f"{field}: {no_such('head', name, [*heads, *sweeps])}")
        found.append(name if name in heads or name in sweeps else here)
    return replace(entry, needs=tuple(found), sweeps=tuple(of_sweeps)) if found or of_sweeps else entry
