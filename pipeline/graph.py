"""Targets, their keys, and why one is stale: the staleness table of the README, computed.

Everything here looks at small files only: the scan's memo, the stores' indices, the heads' results, the report's
header. Nothing heavy is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cache.errors import DataError
from cache.files import digest_json
from cache.manifest import Manifest
from cache.skipped import SkippedImages
from cache.store import FeatureStore
from pipeline.config import Config, HeadEntry, SweepEntry
from pipeline.reasons import data_changes, feature_reasons, spec_changes
from stages.bases.quantise import base_digest
from stages.bases.spec import BaseSpec, joint_key
from stages.bases.weights import Weights
from stages.data.policy import EXACT
from stages.data.scan import NoImagesError, scan
from stages.data.splits import assign_splits
from stages.heads.results import read_result, read_sweep
from stages.heads.spec import HEAD_SCHEMA, head_key
from stages.progress import SILENT, Progress
from stages.report.page import PAGE_VERSION, read_report_parts

PART_REASONS = {
    "page": "this headstart writes another page",
    "data": "images, names, labels, splits or what is skipped changed",
    "bases": "the base changed",
    "sweeps": "a sweep has another result",
}


@dataclass(frozen=True)
class LayerTarget:
    """The features of one layer of a base: their key and store, and why they are stale.

    Key and store are None while the weights were not fetched or quantised, as the key is not known then.
    """

    layer: str
    key: str | None
    identity: dict[str, Any]
    store: FeatureStore | None
    missing: tuple[str, ...]
    outdated: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class BaseTarget:
    """One base, and the features of each of its layers."""

    name: str
    spec: BaseSpec
    weights: Weights
    layers: tuple[LayerTarget, ...]

    @property
    def stale(self) -> bool:
        return any(layer.reasons for layer in self.layers)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is stale; layers are named where they differ."""
        if len({layer.reasons for layer in self.layers}) == 1:
            return self.layers[0].reasons
        return tuple(f"{layer.layer}: {reason}" for layer in self.layers for reason in layer.reasons)

    @property
    def missing(self) -> tuple[str, ...]:
        """The contents that one of the layers lacks."""
        return tuple(dict.fromkeys(digest for layer in self.layers for digest in layer.missing))

    @property
    def stores(self) -> dict[str, FeatureStore]:
        """The stores that are known, by layer."""
        return {layer.layer: layer.store for layer in self.layers if layer.store is not None}

    def key(self, layers: Sequence[str] = ()) -> str | None:
        """The key of the features of some of the layers together, of all of them where none is named."""
        keys = {layer.layer: layer.key for layer in self.layers}
        found = [keys[layer] for layer in layers or keys]
        return joint_key([key for key in found if key]) if all(found) else None


@dataclass(frozen=True)
class HeadTarget:
    """One head: its folder, the key that it should have, its result if it is whole, and why it is stale."""

    entry: HeadEntry
    folder: Path
    key: str | None
    result: dict[str, Any] | None
    reasons: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.entry.name

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
    def stale(self) -> bool:
        return bool(self.reasons)


@dataclass(frozen=True)
class Graph:
    """A configuration, what is on disk, and the difference."""

    config: Config
    manifest: Manifest
    skipped: SkippedImages
    bases: dict[str, BaseTarget]
    heads: dict[str, HeadTarget]
    sweeps: dict[str, SweepTarget]
    images_here: bool

    @property
    def report_path(self) -> Path:
        return self.config.cache.dir / "report" / "index.html"

    @cached_property
    def report_parts(self) -> dict[str, Any]:
        """What the report shows, as digests: the parts of its key."""
        return {
            "page": PAGE_VERSION,
            "data": self.manifest.digest,
            "images": self.images_here,
            "bases": {name: base.key() for name, base in self.bases.items()},
            # The results and not their keys: what a head was trained to again is shown again.
            "heads": {name: None if head.stale else digest_json(head.result) for name, head in self.heads.items()},
            "sweeps": {name: digest_json(each.result) for name, each in self.sweeps.items() if each.done},
        }

    @property
    def report_reasons(self) -> tuple[str, ...]:
        """Why the report is stale; empty where it is not."""
        written = read_report_parts(self.report_path)
        if written is None:
            return ("never written",)
        reasons = [why for part, why in PART_REASONS.items() if written.get(part) != self.report_parts[part]]
        if self.images_here and not written.get("images"):
            reasons.append("the images are here again")  # without them a page is written without thumbnails
        before, now = written.get("heads", {}), self.report_parts["heads"]
        reasons += [f"head {name} was removed" for name in before if name not in now]
        reasons += [f"head {name} was added" for name in now if name not in before]
        reasons += [
            f"head {name} is trained anew"
            for name, result in now.items()
            if result is None or before.get(name, result) != result
        ]
        return tuple(reasons)


def load_graph(config: Config, rehash: bool = False, progress: Progress = SILENT) -> Graph:
    """Scan the data folder, keep the manifest, and compare what the configuration asks for with what there is.

    Where the data folder is gone, the manifest of the last scan stands in. Raises DataError and ConfigError.
    """
    skipped = SkippedImages(config.cache.dir / "skipped.json", EXACT)
    manifest, here = _manifest(config, skipped, rehash, progress)
    bases = {name: base_target(config, name, spec, manifest) for name, spec in config.bases.items()}
    heads = {name: _head_target(config, entry, bases[entry.base], manifest) for name, entry in config.heads.items()}
    sweeps = {name: _sweep_target(config, entry, bases, manifest) for name, entry in config.sweeps.items()}
    for name, sweep in sweeps.items():
        if sweep.done:
            heads[name] = _winner_target(config, sweep, bases, manifest)
    return Graph(config, manifest, skipped, bases, heads, sweeps, here)


def _sweep_target(config: Config, entry: SweepEntry, bases: dict[str, BaseTarget], manifest: Manifest) -> SweepTarget:
    folder = config.cache.dir / "sweeps" / entry.name
    named = entry.spec.grid.get("base", [entry.head.get("base") or next(iter(bases))])
    keys = {name: bases[name].key() for name in named if name in bases} if isinstance(named, list) else {}
    result = read_sweep(folder)
    spec = entry.spec.model_dump(mode="json", exclude={"refit"})
    head = config.variant(entry, {}).spec.model_dump(mode="json")
    if isinstance(builds := entry.spec.grid.get("build"), list):
        head["code"] = [getattr(config.variant(entry, {"build": build}).spec, "code", "") for build in builds]
    parts = {"schema": HEAD_SCHEMA, "sweep": spec, "head": head, "bases": keys, "rows": manifest.rows_digest}
    if not all(keys.values()):
        reasons = [reason for name in keys for reason in bases[name].reasons]
    elif result is None:
        reasons = ["never run"]
    elif not (folder / "trials.csv").exists():
        reasons = ["its trials.csv is gone"]
    else:
        why = {
            "sweep": "its settings changed",
            "head": f"head {entry.spec.head} changed",
            "bases": "the base changed",
            "rows": "images, labels or splits changed",
            "schema": "run by a headstart with other keys",
        }
        reasons = [reason for part, reason in why.items() if result["parts"].get(part) != parts[part]]
        if not reasons and (failed := result.get("failed")):
            reasons = [f"{failed} of {result['trials']} trials failed, and will be tried again"]
    return SweepTarget(entry, folder, parts, result, tuple(reasons))


def _winner_target(config: Config, sweep: SweepTarget, bases: dict[str, BaseTarget], manifest: Manifest) -> HeadTarget:
    """The winner of a sweep, as a head under the sweep's name."""
    assert sweep.done is not None
    params = {name: value for name, value in sweep.done["winner"]["params"].items() if value is not None}
    entry = config.variant(sweep.entry, params)
    if sweep.entry.spec.refit:
        entry = replace(entry, spec=entry.spec.model_copy(update={"refit": True}))
    return _head_target(config, entry, bases[entry.base], manifest)


def _manifest(config: Config, skipped: SkippedImages, rehash: bool, progress: Progress) -> tuple[Manifest, bool]:
    """The manifest, and whether the images are here. Where they are not, that of the last scan stands in."""
    folder = config.cache.dir
    try:
        return scan(config.data, folder, skipped.reasons, rehash, progress, config.root_name), True
    except NoImagesError as error:
        problem: DataError = error
    except DataError as error:
        if config.data.root.exists():
            raise
        problem = error
    if not (folder / "manifest.json").exists():
        raise problem
    stored = Manifest.load(folder / "manifest.json")
    if stored.root != config.root_name:
        raise DataError(f"{problem} (the cache in {folder} is of {stored.root!r})")
    progress.say(f"data: no images in {config.data.root}; the manifest of the last scan stands in")
    records, _ = assign_splits(config.data, [(r.path, r.sha256, r.label, r.declared) for r in stored.records])
    same = tuple(records) == stored.records
    return stored if same else replace(stored, records=tuple(records)), False


def base_target(config: Config, name: str, spec: BaseSpec, manifest: Manifest) -> BaseTarget:
    """A base, what its stores hold, and what they lack."""
    weights = Weights(spec, config.cache.dir / "weights")
    digest = base_digest(spec, weights)
    layers = tuple(_layer_target(config, spec, digest, layer, manifest) for layer in spec.cuts)
    return BaseTarget(name, spec, weights, layers)


def _layer_target(config: Config, spec: BaseSpec, digest: str | None, layer: str, manifest: Manifest) -> LayerTarget:
    if digest is None:
        what = "is not quantised" if spec.precision == "int8" else f"has its {spec.weights} weights not fetched"
        return LayerTarget(layer, None, {}, None, tuple(manifest.by_digest), 0, (f"{spec.name} {what} yet",))
    identity = spec.identity(digest, config.cache.dtype, layer)
    key = digest_json(identity)
    store = FeatureStore(config.cache.dir / "features" / spec.folder_name(key, layer))
    missing = tuple(store.missing(manifest.by_digest))
    outdated = len(store.outdated(manifest))
    return LayerTarget(
        layer, key, identity, store, missing, outdated, feature_reasons(store, manifest, missing, outdated)
    )


def _head_target(config: Config, entry: HeadEntry, base: BaseTarget, manifest: Manifest) -> HeadTarget:
    folder = config.cache.dir / "heads" / entry.name
    result = read_result(folder)
    base_key = base.key(entry.layers)
    key = head_key(entry.spec, base_key, manifest.rows_digest) if base_key else None
    reasons: list[str] = []
    if result is None:
        reasons.append("never trained")
    elif key is None:
        reasons += base.reasons
    elif result["key"] != key:
        if result["base_key"] != base_key:
            reasons.append(f"the base changed ({base.spec.name}, {' + '.join(entry.layers)})")
        if result["spec"] != entry.spec.parameters():
            reasons.append(spec_changes(result["spec"], entry.spec))
        if result["rows_digest"] != manifest.rows_digest:
            reasons.append(data_changes(folder, manifest))
        reasons = reasons or ["trained by a headstart with other keys"]
    return HeadTarget(entry, folder, key, result, tuple(reasons))
