"""The index of a store: a memo of its shards' tables, so that a no-op opens no shard. Losing it costs time, nothing else."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import canonical_json, read_sealed, seal, write_text
from cache.manifest import Manifest

VERSION = 2


@dataclass(frozen=True)
class ShardEntry:
    """What the index remembers of one shard, so that a no-op opens none: its table and the file's stat."""

    size: int
    mtime_ns: int
    key: str
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
    shards = {name: vars(entry) for name, entry in entries.items()}
    with suppress(OSError):
        write_text(folder / "index.json", seal(canonical_json({"version": VERSION, "shards": shards})))


def read_entry(path: Path) -> ShardEntry:
    """The entry of a shard, from the shard itself. Raises CacheError where it is damaged."""
    from cache.shard import read_table_and_key

    status = path.stat()
    table, key = read_table_and_key(path)
    return ShardEntry(status.st_size, status.st_mtime_ns, key, **vars(table))


def agrees(entry: ShardEntry, manifest: Manifest) -> bool:
    """Whether labels, paths and class names of a shard are those of the manifest, for the images that it has."""
    if tuple(entry.class_names[: len(manifest.classes)]) != manifest.classes:
        return False
    known, names = manifest.by_digest, entry.class_names
    return all(
        record is None or (record.path == path and record.label == names[label])
        for record, label, path in zip(map(known.get, entry.sha256), entry.labels, entry.paths, strict=True)
    )


def table_from(entry: ShardEntry, manifest: Manifest) -> dict[str, Any]:
    """The table that a shard should have: what the manifest says, and what stood for images that it does not have.

    Those may belong to another configuration, so their class names are kept, behind the manifest's.
    """
    records = [manifest.by_digest.get(digest) for digest in entry.sha256]
    labels = [r.label if r else entry.class_names[old] for r, old in zip(records, entry.labels, strict=True)]
    paths = [record.path if record else path for record, path in zip(records, entry.paths, strict=True)]
    class_names = [*manifest.classes, *sorted(set(labels) - set(manifest.classes))]
    ids = {name: i for i, name in enumerate(class_names)}
    return {
        "sha256": entry.sha256,
        "labels": [ids[name] for name in labels],
        "paths": paths,
        "class_names": class_names,
    }
