"""The graph: a configuration, what is on disk, and the difference. The staleness table of the README, computed.

Everything here looks at small files only: the scan's memo, and what the other files of this room and the report's page say.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import ConfigError, DataError
from cache.files import digest_json
from cache.manifest import Manifest
from cache.skipped import SkippedImages
from pipeline.config.load import Config
from pipeline.config.order import in_order
from pipeline.config.tables import no_such
from pipeline.targets.audit import AuditTarget, audit_target
from pipeline.targets.features import BaseTarget, base_target
from pipeline.targets.heads import (
    HeadTarget,
    Need,
    Scene,
    SweepTarget,
    best_target,
    head_target,
    sweep_target,
    winner_target,
)
from pipeline.targets.reasons import report_reasons
from stages.data.formats import curable
from stages.data.groups import drawn_by, groups_again
from stages.data.policy import EXACT
from stages.data.scan import NoImagesError, scan
from stages.data.splits import assign_splits
from stages.progress import SILENT, Progress
from stages.report.page import PAGE_VERSION, read_report_parts

if TYPE_CHECKING:
    from cache.store import FeatureStore


@dataclass(frozen=True)
class Graph:
    """A configuration, what is on disk, and the difference."""

    config: Config
    manifest: Manifest
    skipped: SkippedImages
    bases: dict[str, BaseTarget]
    heads: dict[str, HeadTarget]
    sweeps: dict[str, SweepTarget]
    audits: dict[str, AuditTarget]
    images_here: bool

    @property
    def report_path(self) -> Path:
        return self.config.cache.dir / "report" / "index.html"

    @cached_property
    def audit(self) -> AuditTarget | None:
        """The audit that the report shows: that on the first base that has one of the images as they are."""
        return next((each for each in self.audits.values() if each.done), None)

    @cached_property
    def report_parts(self) -> dict[str, Any]:
        """What the report shows, as digests: the parts of its key."""
        # Only where there is one, or another than the default, so that older reports stay up to date.
        audit = {"audit": digest_json(self.audit.result)} if self.audit else {}
        cost = {"cost": self.config.cost.model_dump()} if self.config.cost else {}
        metric = self.config.report.metric
        return (
            audit
            | cost
            | {
                "page": PAGE_VERSION,
                "data": self.manifest.digest,
                "images": self.images_here,
                "bases": {name: base.key() for name, base in self.bases.items()},
                # The results and not their keys: what a head was trained to again is shown again.
                "heads": {name: None if head.stale else digest_json(head.result) for name, head in self.heads.items()},
                "sweeps": {name: digest_json(each.result) for name, each in self.sweeps.items() if each.done},
            }
            | ({} if metric == "accuracy" else {"metric": metric})
            | ({"maps": True} if self.config.report.maps else {})
        )

    @cached_property
    def report_reasons(self) -> tuple[str, ...]:
        """Why the report is stale; empty where it is not."""
        return report_reasons(read_report_parts(self.report_path), self.report_parts, self.sweeps)


def load_graph(config: Config, rehash: bool = False, progress: Progress = SILENT) -> Graph:
    """Scan the data folder, keep the manifest, and compare what the configuration asks for with what there is.

    Where the data folder is gone, the manifest of the last scan stands in. Raises DataError and ConfigError.
    """
    skipped = SkippedImages(config.cache.dir / "skipped.json", EXACT, curable)
    manifest, here = _manifest(config, skipped, rehash, progress)
    if config.report.metric == "top5_accuracy" and len(manifest.classes) <= 5:
        raise ConfigError(
            f'{config.path}: [report] metric: "top5_accuracy" needs more than five classes, found {len(manifest.classes)}; take another'
        )
    bases = {name: base_target(config, name, spec, manifest) for name, spec in config.bases.items()}
    heads: dict[str, HeadTarget] = {}
    sweeps: dict[str, SweepTarget] = {}
    known: dict[str, Need] = {}
    scene = Scene(config, bases, manifest, known)
    for name in in_order(config.heads, config.sweeps):
        if name in config.heads:
            entry = config.heads[name]
            of = [sweeps[each] for each in entry.sweeps]
            known[name] = heads[name] = best_target(scene, entry, of[0]) if of else head_target(scene, entry)
            continue
        known[name] = sweep = sweeps[name] = sweep_target(scene, config.sweeps[name])
        if sweep.done:
            known[name] = heads[name] = winner_target(scene, sweep)
    # In the order of the file, whatever needs what.
    heads = {name: heads[name] for name in (*config.heads, *config.sweeps) if name in heads}
    sweeps = {name: sweeps[name] for name in config.sweeps}
    audits = {name: audit_target(config, base, manifest, here) for name, base in bases.items()}
    return Graph(config, manifest, skipped, bases, heads, sweeps, audits, here)


def extracted_layer(
    graph: Graph, base: str | None, layer: str | None, option: str = ""
) -> "tuple[BaseTarget, str, FeatureStore]":
    """A base (the first, where none is named), one of its layers (the last), and the store of that. Raises ConfigError, which names the
    ``option``'s prefix, where the configuration does not have them.
    """
    name = base or next(iter(graph.bases))
    if name not in graph.bases:
        raise ConfigError(f"{option}base: {no_such('base', name, graph.bases)}")
    target = graph.bases[name]
    layer = layer or target.spec.cuts[-1]
    if layer not in target.spec.cuts:
        raise ConfigError(f"{option}layer: {name} extracts {no_such('layer', layer, target.spec.cuts)}")
    if not target.stores:
        target.require()  # its weights are not here yet
    return target, layer, target.stores[layer]


def _manifest(config: Config, skipped: SkippedImages, rehash: bool, progress: Progress) -> tuple[Manifest, bool]:
    """The manifest, and whether the images are here. Where they are not, that of the last scan stands in."""
    folder = config.cache.dir
    try:
        return scan(config.data, folder, skipped.reasons, rehash, progress, config.root_name), True
    except DataError as error:
        gone = isinstance(error, NoImagesError) or not config.data.root.exists()
        if not gone or not (folder / "manifest.json").exists():
            raise
        problem = str(error)
    stored = Manifest.load(folder / "manifest.json")
    if stored.root != config.root_name:
        raise DataError(f"{problem} (the cache in {folder} is of {stored.root!r})")
    progress.say(f"data: no images in {config.data.root}; the manifest of the last scan stands in")
    names = groups_again(config.data, stored)
    rows = [(r.path, r.sha256, r.label, r.declared) for r in stored.records]
    records, _ = assign_splits(config.data, rows, drawn_by(names))
    groups = tuple(names.get(record.sha256, "") for record in stored.records) if config.data.group else ()
    same = tuple(records) == stored.records and groups == stored.groups
    return stored if same else replace(stored, records=tuple(records), groups=groups), False
