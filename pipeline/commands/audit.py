"""``headstart audit``: what is odd about the images and their labels, from the features that were extracted before."""

from pathlib import Path
from time import perf_counter

from cache.errors import ConfigError
from cache.files import lock
from pipeline.config.load import Config
from pipeline.targets.audit import AuditTarget
from pipeline.targets.graph import Graph, load_graph
from stages.audit.proposals import write_corrections, write_groups
from stages.audit.summary import summary
from stages.fields import near_or_all
from stages.progress import Progress, counted


def run_stale(config: Config, progress: Progress, base: str | None = None) -> AuditTarget:
    """Audit the images where that was not done yet, on the last layer of a base, of the first where none is named.

    Raises ConfigError for a base that there is not, CacheError where features are missing.
    """
    target = _target(load_graph(config, progress=progress), base)
    if not target.stale:
        progress.say("audit: up to date")
        return target
    with lock(target.folder, progress.say):
        # Another process may have done it while this one waited.
        graph = load_graph(config)
        target = _target(graph, base)
        if target.stale:
            target.base.require()
            _run(graph, target, progress)
    return _target(load_graph(config), base)


def _target(graph: Graph, base: str | None) -> AuditTarget:
    name = base or next(iter(graph.audits))
    if name not in graph.audits:
        raise ConfigError(f"no base {name!r} in the configuration{near_or_all(name, graph.audits)}")
    return graph.audits[name]


def _run(graph: Graph, target: AuditTarget, progress: Progress) -> None:
    from stages.audit.audit import AuditTask, audit
    from stages.heads.dataset import Dataset

    start = perf_counter()
    config = graph.config
    task = AuditTask(
        name=target.base.name,
        network=target.base.spec.name,
        layer=target.layer.layer,
        key=target.key,
        parts=target.parts,
        folder=target.folder,
        root=config.data.root if graph.images_here else None,
        memo=target.folder.parent / "pixels.json",
    )
    audit(task, Dataset(graph.manifest, target.base.stores, config.cache.memory), progress)
    images = counted(len(graph.manifest.records), "image")
    progress.say(f"audit: {images} in {perf_counter() - start:.1f} s → {target.folder}")


def audit_lines(target: AuditTarget, groups: Path | None, corrections: Path | None) -> list[str]:
    """What was found, in words; with the files that are asked for written. Raises DataError for one that is there already."""
    lines = summary(target.result) if target.result else []
    if groups:
        written = counted(write_groups(target.folder, groups, target.manifest), "image")
        joined = ", with those of [data] group" if target.manifest.groups else ""
        lines.append(f"{groups}: {written} in groups of near-copies{joined}")
    if corrections:
        found = counted(write_corrections(target.folder, corrections), "suspicious label")
        lines.append(f"{corrections}: {found} with the likely ones; delete the lines that are wrong before you use it")
    return [*lines, f"tables: {target.folder}"]
