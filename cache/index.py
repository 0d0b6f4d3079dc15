"""The index of a store: a memo of its shards' tables, so that a no-op opens no shard. Losing it costs time, nothing else."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import canonical_json, read_sealed, seal, write_text
from cache.manifest import Manifest

VERSION = 1


@dataclass(frozen=True)
class ShardEntry:
    """What the index remembers of one shard, so that a no-op opens none: its table and the file's stat."""

    size: int
    mtime_ns: int
    sha256: list[str]
    labels: list[int]
    paths: list[str]
    class_names: list[str]


def load(folder: Path) -> dict[str, ShardEntry]:
    """The entries by name of the shard; none where the index is absent, damaged or of another version."""
    try:
        stored = read_sealed(folder / "index.json", "an index")
        if stored["version"] != VERSION:
            return {}
        return {name: ShardEntry(**entry) for name, entry in stored["shards"].items()}
    except (CacheError, OSError, ValueError, KeyError, TypeError):
        return {}


def save(folder: Path, entries: dict[str, ShardEntry]) -> None:
    """Keep the entries; a folder that cannot be written to goes without."""
    shards = {name: asdict(entry) for name, entry in entries.items()}
    with suppress(OSError):
        write_text(folder / "index.json", seal(canonical_json({"version": VERSION, "shards": shards})))


def read_entry(path: Path) -> ShardEntry:
    """The entry of a shard, from the shard itself. Raises CacheError where it is damaged."""
    from cache.shard import read_table

    status = path.stat()
    return ShardEntry(status.st_size, status.st_mtime_ns, **asdict(read_table(path)))


def agrees(entry: ShardEntry, manifest: Manifest) -> bool:
    """Whether labels, paths and class names of a shard are those of the manifest."""
    if entry.class_names != list(manifest.classes):
        return False
    known, names = manifest.by_digest, manifest.classes
    return all(
        record is None or (record.path == path and label >= 0 and record.label == names[label])
        for record, label, path in zip(map(known.get, entry.sha256), entry.labels, entry.paths, strict=True)
    )


def table_from(entry: ShardEntry, manifest: Manifest) -> dict[str, Any]:
    """The table that a shard should have: what the manifest says, and for images it no longer has, what stood."""
    ids = {name: i for i, name in enumerate(manifest.classes)}
    labels, paths = [], []
    for digest, label, path in zip(entry.sha256, entry.labels, entry.paths, strict=True):
        record = manifest.by_digest.get(digest)
        old_name = entry.class_names[label] if label >= 0 else ""
        labels.append(ids.get(record.label if record else old_name, -1))
        paths.append(record.path if record else path)
    return {"sha256": entry.sha256, "labels": labels, "paths": paths, "class_names": list(manifest.classes)}
