"""Targets, their keys, and why one is stale: the staleness table of the README, computed.

Everything here looks at small files only: the scan's memo, the stores' indices, the heads' results, the report's
header. Nothing heavy is imported.
"""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cache.files import digest_json
from cache.manifest import Manifest
from cache.skipped import SkippedImages
from cache.store import FeatureStore
from pipeline.config import Config, HeadEntry
from stages.progress import SILENT, Progress
from stages.report.page import PAGE_VERSION, read_report_parts
from stages.results import read_result
from stages.scan import assign_splits, check, scan
from stages.specs import DECODE_POLICY, BaseSpec, head_key
from stages.weights import Weights

PART_REASONS = {
    "page": "this headstart writes another page",
    "data": "images, names, labels or splits changed",
    "skipped": "other images are skipped",
    "bases": "the base changed",
}


@dataclass(frozen=True)
class BaseTarget:
    """The features of one base: its store (None: the weights were not fetched, so that the key is not known yet)."""

    name: str
    spec: BaseSpec
    weights: Weights
    key: str | None
    identity: dict[str, Any]
    store: FeatureStore | None
    missing: tuple[str, ...]
    outdated: int
    reasons: tuple[str, ...]

    @property
    def stale(self) -> bool:
        return bool(self.reasons)


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
class Graph:
    """A configuration, what is on disk, and the difference."""

    config: Config
    manifest: Manifest
    skipped: SkippedImages
    bases: dict[str, BaseTarget]
    heads: dict[str, HeadTarget]
    images_here: bool

    @property
    def rows_digest(self) -> str:
        """Digest of contents, labels and splits of the images that can be decoded."""
        return self.manifest.rows_digest(self.skipped.reasons)

    @property
    def report_path(self) -> Path:
        return self.config.cache.dir / "report" / "index.html"

    @property
    def heads_folder(self) -> Path:
        return self.config.cache.dir / "heads"

    @cached_property
    def report_parts(self) -> dict[str, Any]:
        """What the report shows, as digests: the parts of its key."""
        shown = {sha: why for sha, why in self.skipped.reasons.items() if sha in self.manifest.by_digest}
        return {
            "page": PAGE_VERSION,
            "data": self.manifest.digest,
            "skipped": digest_json(shown),
            "bases": {name: base.key for name, base in self.bases.items()},
            # The results and not their keys: what a head was trained to again is shown again.
            "heads": {name: None if head.stale else digest_json(head.result) for name, head in self.heads.items()},
        }

    @property
    def report_reasons(self) -> tuple[str, ...]:
        """Why the report is stale; empty where it is not."""
        written = read_report_parts(self.report_path)
        if written is None:
            return ("never written",)
        reasons = [why for part, why in PART_REASONS.items() if written.get(part) != self.report_parts[part]]
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
    manifest, here = _manifest(config, rehash, progress)
    skipped = SkippedImages(config.cache.dir / "skipped.json", DECODE_POLICY)
    # Images known to be undecodable don't count, so a class of nothing but those is found before anything is trained.
    check(manifest, config.data.root, lambda sha256: sha256 in skipped.reasons)
    bases = {name: _base_target(config, name, spec, manifest, skipped) for name, spec in config.bases.items()}
    rows = manifest.rows_digest(skipped.reasons)
    heads = {
        name: _head_target(config, entry, bases[entry.base], manifest, skipped, rows)
        for name, entry in config.heads.items()
    }
    return Graph(config, manifest, skipped, bases, heads, here)


def _manifest(config: Config, rehash: bool, progress: Progress) -> tuple[Manifest, bool]:
    path = config.cache.dir / "manifest.json"
    if not config.data.root.exists() and path.exists():
        stored = Manifest.load(path)
        rows = [(r.path, r.sha256, r.label, r.declared) for r in stored.records]
        records, _ = assign_splits(config.data, rows)
        return Manifest(**{**stored.__dict__, "records": tuple(records)}), False
    manifest = scan(config.data, config.cache.dir / "scan-memo.json", rehash, progress)
    try:
        manifest.save(path)
    except OSError:
        progress.say(f"{path}: cannot be written")
    return manifest, True


def _base_target(config: Config, name: str, spec: BaseSpec, manifest: Manifest, skipped: SkippedImages) -> BaseTarget:
    weights = Weights(spec, config.cache.dir / "weights")
    digest = weights.digest()
    if digest is None:
        reason = f"the {spec.weights} weights of {spec.name} are not fetched yet"
        wanted = tuple(sha for sha in manifest.by_digest if sha not in skipped.reasons)
        return BaseTarget(name, spec, weights, None, {}, None, wanted, 0, (reason,))
    identity = spec.identity(digest, config.cache.dtype)
    key = digest_json(identity)
    store = FeatureStore(config.cache.dir / "features" / spec.folder_name(key))
    missing = tuple(sha for sha in store.missing(manifest.by_digest) if sha not in skipped.reasons)
    outdated = len(store.outdated(manifest))
    reasons = _feature_reasons(store, manifest, missing, outdated)
    return BaseTarget(name, spec, weights, key, identity, store, missing, outdated, reasons)


def _feature_reasons(
    store: FeatureStore, manifest: Manifest, missing: tuple[str, ...], outdated: int
) -> tuple[str, ...]:
    reasons = []
    if missing and not len(store) and not store.damaged:
        reasons.append(f"{_count(len(missing), 'image')} never extracted with this base")
    elif missing:
        before = set(store.paths().values())
        changed = sum(manifest.by_digest[sha].path in before for sha in missing)
        reasons += [
            _count(n, f"image {what}", f"images {what}")
            for n, what in ((len(missing) - changed, "added"), (changed, "changed"))
            if n
        ]
    reasons += [f"damaged: {name}" for name in store.damaged]
    if outdated:
        reasons.append(f"labels or names changed in {_count(outdated, 'shard')} (nothing to extract)")
    return tuple(reasons)


def _head_target(
    config: Config, entry: HeadEntry, base: BaseTarget, manifest: Manifest, skipped: SkippedImages, rows: str
) -> HeadTarget:
    folder = config.cache.dir / "heads" / entry.name
    result = read_result(folder)
    key = head_key(entry.spec, base.key, rows) if base.key else None
    reasons: list[str] = []
    if result is None:
        reasons.append("never trained")
    elif key is None:
        reasons.append("the base's weights are not fetched yet")
    elif result["key"] != key:
        if result["base_key"] != base.key:
            reasons.append(f"the base changed ({base.spec.name}, {base.spec.cut})")
        if result["spec"] != entry.spec.slice():
            reasons.append(_spec_changes(result["spec"], entry.spec))
        if result["rows_digest"] != rows:
            reasons.append(_data_changes(folder, manifest, skipped))
        reasons = reasons or ["trained by a headstart with other keys"]
    return HeadTarget(entry, folder, key, result, tuple(reasons))


def _spec_changes(before: dict[str, Any], spec: Any) -> str:
    now = spec.slice()
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {json.dumps(before.get(name))} → {json.dumps(now.get(name))}" for name in names)


def _data_changes(folder: Path, manifest: Manifest, skipped: SkippedImages) -> str:
    """What happened to the images since the head was trained, from the predictions that it left behind."""
    with open(folder / "predictions.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.reader(file)
        next(rows, None)
        before = {row[0]: (row[1], row[2]) for row in rows}
    now = {r.path: (r.split, r.label) for r in manifest.records if r.sha256 not in skipped.reasons}
    counts = {
        "added": len(now.keys() - before.keys()),
        "deleted": len(before.keys() - now.keys()),
        "relabelled": sum(before[path][1] != now[path][1] for path in now.keys() & before.keys()),
        "moved to another split": sum(
            before[p][0] != now[p][0] and before[p][1] == now[p][1] for p in now.keys() & before.keys()
        ),
    }
    told = [_count(n, f"image {what}", f"images {what}") for what, n in counts.items() if n]
    return ", ".join(told) or "the content of images changed"


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
