"""``headstart prune``: what nothing refers to, and how it is removed."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cache.errors import ConfigError
from cache.files import TEMPORARY_PREFIX, is_alive, lock
from cache.store import FeatureStore
from pipeline.common.words import bytes_in
from pipeline.config.load import Config, load_config
from pipeline.targets.graph import Graph, load_graph
from stages.data.corrections import DROPPED
from stages.export.spec import folder_names
from stages.progress import Progress, counted, in_bytes


@dataclass(frozen=True)
class Garbage:
    """Something that no configuration refers to: what it is, its size in bytes, and how it is removed."""

    what: str
    size: int
    remove: Callable[[], None]


def garbage(config: Config, progress: Progress) -> list[Garbage]:
    """What no configuration in the folder of this one refers to. Removing it waits for who still writes there.

    Raises ConfigError for a configuration there that cannot be read, as it may refer to anything.
    """
    graphs = [load_graph(each) for each in _configurations(config)]
    folder = config.cache.dir
    layers = [layer for graph in graphs for base in graph.bases.values() for layer in base.every]
    # Not by its truth, which is whether it has rows: an extraction that has just begun, or damage, leaves none.
    stores = {layer.store.folder.name for layer in layers if layer.store is not None}
    sweeps = {name for graph in graphs for name in graph.sweeps}
    heads = {name for graph in graphs for name in graph.heads} | sweeps  # a stale sweep's winner is not among the heads
    bases = {name for graph in graphs for name in graph.bases}
    exports = {folder for name in heads for folder in folder_names(name)}
    unused: dict[Path, str] = {}
    for kind, known, what in (
        ("features", stores, "features of no configured base"),
        ("heads", heads, "a head that is not configured"),
        ("sweeps", sweeps, "a sweep that is not configured"),
        ("audit", bases, "an audit on no configured base"),
        ("export", exports, "an export of a head that is not configured"),
    ):
        there = [path for path in sorted(folder.glob(f"{kind}/*/")) if not path.name.startswith(TEMPORARY_PREFIX)]
        unused |= {path: what for path in there if path.name not in known}
    left = [path for path in folder.rglob(f"{TEMPORARY_PREFIX}*") if not is_alive(path)]
    unused |= dict.fromkeys(left, "a temporary file of a killed run")
    fresh = {head.folder for graph in graphs for head in graph.heads.values() if not head.stale}
    begun = [path for path in folder.glob("heads/*/checkpoint*.npz") if path.parent in fresh]
    unused |= dict.fromkeys(begun, "a checkpoint of a head that is up to date")
    # What is left of a damaged shard is kept until its images are extracted again.
    whole = {layer.store.folder for layer in layers if layer.store is not None and not layer.missing}
    damaged = [path for path in folder.glob("features/*/*.damaged") if path.parent in whole]
    unused |= dict.fromkeys(damaged, "a damaged shard that was set aside")
    found = [
        Garbage(f"{path}: {what}", bytes_in(path), partial(_remove, path, progress)) for path, what in unused.items()
    ]
    if all(graph.images_here and not _unreachable(graph) for graph in graphs):
        wanted = {digest for graph in graphs for digest in graph.manifest.by_digest}
        for store in [FeatureStore(folder / "features" / name) for name in sorted(stores)]:
            if unwanted := [digest for digest in store.digests() if digest not in wanted]:
                what = f"{store.folder}: {counted(len(unwanted), 'row')} of images that are gone or have no label"
                share = store.size() * len(unwanted) // len(store)
                found.append(Garbage(what, share, partial(_drop, store, unwanted, progress)))
    return found


def _unreachable(graph: Graph) -> bool:
    """Whether there are images that were not drawn, or files and folders that could not be looked into: they may not be gone."""
    undecodable = set(graph.skipped.reasons.values())
    reasons = graph.manifest.skipped.values()
    return bool(graph.manifest.drawn) or any(
        reason not in undecodable and not reason.startswith(DROPPED) for reason in reasons
    )


def _configurations(config: Config) -> list[Config]:
    """This configuration, and the others beside it that use the same cache."""
    others = []
    for path in sorted(config.path.parent.glob("*.toml")):
        if path == config.path or not _is_ours(path):
            continue
        try:
            other = load_config(path)
        except ConfigError as error:
            raise ConfigError(f"{error} (prune would not know what it refers to)") from error
        if other.cache.dir.resolve() == config.cache.dir.resolve():
            others.append(other)
    return [*others, config]


def _is_ours(path: Path) -> bool:
    """Whether a TOML file speaks of a base or of heads, as a configuration of headstart does, broken or not."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return any(line.lstrip().startswith(("[data]", "[base", "[heads", "[sweeps")) for line in text.splitlines())


def _remove(path: Path, progress: Progress) -> None:
    if path.is_dir():
        with lock(path, progress.say):
            shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _drop(store: FeatureStore, rows: list[str], progress: Progress) -> None:
    with store.writing(progress.say):
        store.drop(rows)


def pruned_lines(config: Config, progress: Progress, remove: bool) -> list[str]:
    """What is found, with sizes; with ``remove`` it is gone afterwards."""
    found = garbage(config, progress)
    if remove:
        for each in found:
            each.remove()
    if not found:
        return ["prune: nothing to remove; the configurations in the folder refer to everything"]
    total = in_bytes(sum(each.size for each in found))
    end = "removed" if remove else "can be removed: headstart prune --yes"
    return [f"{each.what} ({in_bytes(each.size)})" for each in found] + [f"prune: {total} {end}"]
