"""``[heads.NAME]`` → the heads to train: one for each base that the table names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import ConfigError
from cache.files import sha256_file
from pipeline.config_tables import check_keys, check_name, validated
from stages.bases.spec import BaseSpec
from stages.fields import nearest
from stages.heads.spec import AnyHead, HeadSpec, KerasSpec, SklearnSpec
from stages.training.spec import DenseSpec

KINDS: dict[str, type[AnyHead]] = {"dense": DenseSpec, "keras": KerasSpec, "sklearn": SklearnSpec}


@dataclass(frozen=True)
class HeadEntry:
    """One head on one base: what is trained, and has a folder of its own. ``name`` is ``head`` or ``head@base``.

    ``layers`` are those of the base whose features it is trained on.
    """

    name: str
    base: str
    layers: tuple[str, ...]
    spec: AnyHead


def head_entries(path: Path, tables: dict[str, Any], bases: dict[str, BaseSpec]) -> dict[str, HeadEntry]:
    """Every head of the file, by name. Raises ConfigError."""
    entries = {}
    for name, table in tables.items():
        where = f"heads.{name}"
        check_name(path, where, name)
        for entry in on_each_base(path, where, name, table, bases):
            optimizer = getattr(entry.spec, "optimizer", None)
            if "momentum" in table and optimizer != "sgd":
                raise ConfigError(
                    f'{path}: [{where}] momentum: only optimizer "sgd" takes it, found "{optimizer}"; leave it out'
                )
            entries[entry.name] = entry
    return entries


def on_each_base(path: Path, where: str, name: str, table: Any, bases: dict[str, BaseSpec]) -> list[HeadEntry]:
    """The head of a table on each of its bases; on the first base where it names none. Raises ConfigError."""
    kind = table.get("kind") if isinstance(table, dict) else table
    if not isinstance(table, dict) or kind not in KINDS:
        raise ConfigError(f"{path}: [{where}] kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    fields = KINDS[kind].model_fields
    if elsewhere := [key for key in ("cv", "repeats") if key in table.keys() - fields.keys()]:
        raise ConfigError(
            f"{path}: [{where}] {elsewhere[0]}: a head has no such field, a sweep has; set it in a [sweeps.NAME] with "
            f'head = "{name}"'
        )
    check_keys(path, where, table, fields)
    spec: AnyHead = validated(path, where, HeadSpec, table)
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


def _layers(path: Path, where: str, asked: list[str] | None, base: BaseSpec) -> tuple[str, ...]:
    """The layers that a head is trained on: those that it names, else the last that the base names."""
    for layer in asked or ():
        if layer not in base.cuts:
            raise ConfigError(
                f"{path}: [{where}] layers: the base extracts no layer {layer!r}{nearest(layer, base.cuts)}; "
                f"it extracts {', '.join(base.cuts)}; add it to the base's layers"
            )
    return tuple(asked) if asked else base.cuts[-1:]
