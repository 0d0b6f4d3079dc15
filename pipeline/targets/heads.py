"""Heads and sweeps, each with its key, what is on disk, and why it is stale.

Everything here looks at small files only: the stores' indices, the results of the others. Nothing heavy is imported.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.files import digest_json
from cache.manifest import Manifest
from pipeline.config.heads import HeadEntry
from pipeline.config.load import Config
from pipeline.config.sweeps import SweepEntry
from pipeline.targets.features import BaseTarget
from pipeline.targets.origin import base_key_of
from pipeline.targets.reasons import head_reasons, sweep_reasons
from stages.heads.results import HEADS, as_trained, read_result, read_sweep
from stages.heads.spec import HEAD_SCHEMA, EnsembleSpec, head_key
from stages.sweeps.protocol import of_sweep


@dataclass(frozen=True)
class HeadTarget:
    """One head: its folder, the key that it should have, its result if it is whole, and why it is stale.

    ``inside`` are the heads that are trained in its own folder, the best trials of a sweep that an ensemble is made of.
    """

    entry: HeadEntry
    folder: Path
    key: str | None
    result: dict[str, Any] | None
    reasons: tuple[str, ...]
    inside: "tuple[HeadTarget, ...]" = ()

    @property
    def stale(self) -> bool:
        return bool(self.reasons)


@dataclass(frozen=True)
class SweepTarget:
    """One sweep: its folder, what its key is made of, its result if it is whole, and why it is stale."""

    entry: SweepEntry
    folder: Path
    parts: dict[str, Any]
    result: dict[str, Any] | None
    reasons: tuple[str, ...]

    @property
    def key(self) -> str:
        return digest_json(self.parts)

    @property
    def done(self) -> dict[str, Any] | None:
        """Its result, where that is of the configuration as it is, though a trial may have failed."""
        return self.result if self.result and self.result["parts"] == self.parts else None

    @property
    def unknown(self) -> str:
        """Why what needs its winner, or its best trials, cannot be trained."""
        return f"sweep {self.entry.name} is not up to date ({'; '.join(self.reasons)})"

    @property
    def stale(self) -> bool:
        return bool(self.reasons)


# What a head is made of; a sweep stands for its winner where that is not known.
Need = HeadTarget | SweepTarget


@dataclass(frozen=True)
class Scene:
    """What heads and sweeps are looked at with: the configuration, its bases, the manifest, and the targets that are ``known`` so far."""

    config: Config
    bases: Mapping[str, BaseTarget]
    manifest: Manifest
    known: Mapping[str, Need]


def head_target(
    scene: Scene, entry: HeadEntry, inside: tuple[HeadTarget, ...] = (), folder: Path | None = None
) -> HeadTarget:
    """A head, its result, and why that is not the one that the configuration asks for. Of the heads that it needs, the targets are
    known, or that of a sweep whose winner is not. ``folder`` is another than that of its name.
    """
    config, manifest = scene.config, scene.manifest
    folder = folder or config.cache.dir / "heads" / entry.name
    result = read_result(folder)
    needs = {name: scene.known[name] for name in entry.needs}
    keys = [need.key for need in (*needs.values(), *inside) if isinstance(need, HeadTarget) and need.key]
    of_needs = tuple(_need_reasons(result, needs))
    base = scene.bases.get(entry.base)  # an ensemble has none
    base_key = base_key_of(config, entry, scene.bases)
    if base_key is None or len(keys) < len(needs) + len(inside):
        reasons = (*(base.reasons if base and base_key is None else ()), *of_needs) if result else ("never trained",)
        return HeadTarget(entry, folder, None, result, reasons, inside)
    key = head_key(entry.spec, base_key, manifest.rows_digest, keys)
    where = (
        f"{base.spec.name}, {' + '.join(entry.layers)}{', or its views' if entry.spec.views else ''}" if base else ""
    )
    reasons = head_reasons(folder, result, key, base_key, where, entry.spec, manifest, of_needs)
    if result and not reasons and config.report.metric not in result["metrics"]["validation"]:
        reasons = (f"its {config.report.metric} is not known, as an earlier version scored it",)
    return HeadTarget(entry, folder, key, result, reasons, inside)


def _need_reasons(result: dict[str, Any] | None, needs: Mapping[str, Need]) -> Iterator[str]:
    """What is stale among the heads that a head needs, or was trained again since it was made with this ``result``."""
    for name, need in needs.items():
        if isinstance(need, SweepTarget):
            yield need.unknown
        elif need.stale:
            yield f"head {name} is stale"
        elif result and need.result and result.get("needs", {}).get(name) != as_trained(need.result):
            yield f"head {name} was trained anew"


def _trained_anew(result: dict[str, Any] | None, needs: Mapping[str, Need]) -> Iterator[str]:
    """Which of the heads that the trials of a sweep need was trained again since. Sweeps of earlier versions, which did not note how these
    were trained, stay up to date: nothing says that they began with others.
    """
    for name, told in (result or {}).get("needs", {}).items():
        need = needs.get(name)
        if need and need.result and told != as_trained(need.result):
            yield f"head {name} was trained anew"


def sweep_target(scene: Scene, entry: SweepEntry) -> SweepTarget:
    """As ``head_target``, for a sweep."""
    config, bases, manifest = scene.config, scene.bases, scene.manifest
    folder = config.cache.dir / "sweeps" / entry.name
    named = entry.spec.grid.get("base", [entry.head.get("base") or next(iter(bases))])
    plain = config.variant(entry, {}).spec
    views = plain.views or "views" in entry.spec.grid
    keys = {name: bases[name].key(views=views) for name in named if name in bases} if isinstance(named, list) else {}
    head = plain.whole()
    if isinstance(builds := entry.spec.grid.get("build"), list):
        head["code"] = [getattr(config.variant(entry, {"build": build}).spec, "code", "") for build in builds]
    parts = {
        "schema": HEAD_SCHEMA,
        "sweep": entry.spec.whole(),
        "head": head,
        "bases": keys,
        "rows": manifest.rows_digest,
        **of_sweep(entry.spec, plain, manifest),
    }
    # Only where it is another than the default, so that older sweeps stay up to date.
    parts |= {} if config.report.metric == "accuracy" else {"metric": config.report.metric}
    needs = {name: scene.known[name] for name in entry.needs}
    parts |= {"needs": {name: need.key for name, need in needs.items()}} if needs else {}
    result = read_sweep(folder)
    if not all(keys.values()):
        reasons = tuple(reason for name in keys for reason in bases[name].reasons)
    elif unknown := tuple(need.unknown for need in needs.values() if isinstance(need, SweepTarget)):
        reasons = unknown
    else:
        reasons = sweep_reasons(folder, result, parts, entry.spec.head, tuple(_trained_anew(result, needs)))
    return SweepTarget(entry, folder, parts, result, reasons)


def winner_target(scene: Scene, sweep: SweepTarget) -> HeadTarget:
    """The winner of a sweep that is done, as a head under the sweep's name."""
    assert sweep.done is not None
    return head_target(scene, _as_head(scene.config, sweep, sweep.done["winner"]))


def best_target(scene: Scene, entry: HeadEntry, sweep: SweepTarget) -> HeadTarget:
    """An ensemble of the best trials of a sweep, those first that were trained to their end."""
    folder = scene.config.cache.dir / "heads" / entry.name
    assert isinstance(entry.spec, EnsembleSpec)
    lacking = sweep.unknown
    if sweep.done:
        leaders = sorted(sweep.done["leaders"], key=lambda trial: not trial["complete"])[: entry.spec.best]
        if len(leaders) == entry.spec.best:
            names = [f"{sweep.entry.name}-{i}" for i in range(1, len(leaders) + 1)]
            trials = {name: _as_head(scene.config, sweep, trial) for name, trial in zip(names, leaders, strict=True)}
            inside = tuple(
                head_target(scene, replace(each, name=name), folder=folder / HEADS / name)
                for name, each in trials.items()
            )
            return head_target(scene, entry, inside)
        lacking = f"sweep {sweep.entry.name} has {len(leaders)} trials with a result, expected best = {entry.spec.best}"
    result = read_result(folder)
    return HeadTarget(entry, folder, None, result, (lacking,) if result else ("never trained", lacking))


def _as_head(config: Config, sweep: SweepTarget, trial: Mapping[str, Any]) -> HeadEntry:
    """The head of a trial, as it stands in the result of its sweep."""
    params = {name: value for name, value in trial["params"].items() if value is not None}
    entry = config.variant(sweep.entry, params)
    if sweep.entry.spec.refit:
        entry = replace(entry, spec=entry.spec.model_copy(update={"refit": True}))
    return entry
