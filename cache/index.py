"""The index of a store: a memo of its shards' tables, so that a no-op opens no shard. Losing it costs time, nothing else."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cache.errors import DamageError
from cache.files import read_memo, write_sealed
from cache.table import ShardTable

VERSION = 2


@dataclass(frozen=True)
class ShardEntry(ShardTable):
    """What the index remembers of one shard: its table, its base key, and the file's size and modification time."""

    key: str
    size: int
    mtime_ns: int


def entry_of(table: ShardTable, key: str, status: os.stat_result) -> ShardEntry:
    """The entry of a shard whose file has the stat ``status``."""
    return ShardEntry(**vars(table), key=key, size=status.st_size, mtime_ns=status.st_mtime_ns)


def read_entries(folder: Path, key: str | None) -> tuple[dict[str, ShardEntry], dict[str, str]]:
    """The shards that can be used, by name, and what is wrong with the others: damaged, or not of the base ``key``.

    A shard is opened where the index does not know it as it is now; the index is brought up to date.
    """
    stored = read_memo(folder / "index.json")
    remembered = stored["shards"] if stored.get("version") == VERSION else {}
    entries: dict[str, ShardEntry] = {}
    damaged: dict[str, str] = {}
    changed = False
    for path in sorted(folder.glob("shard-*.h5")):
        known = remembered.pop(path.name, None)
        try:
            status = path.stat()
            if known and (known["size"], known["mtime_ns"]) == (status.st_size, status.st_mtime_ns):
                entry = ShardEntry(**known)
            else:
                from cache.shard import read_table_and_key

                changed = True
                entry = entry_of(*read_table_and_key(path), status)
        except DamageError as error:
            damaged[path.name] = str(error)
            continue
        except FileNotFoundError:
            if path.is_symlink():  # to a disk that is not there: its images are not to be extracted again
                raise
            changed = True  # another process dropped it, or moved it aside, just now
            continue
        if key and entry.key != key:
            damaged[path.name] = f"{path}: belongs to another base; run `make features` to extract its images again"
        else:
            entries[path.name] = entry
    if changed or remembered:
        save(folder, entries)
    return entries, damaged


def save(folder: Path, entries: dict[str, ShardEntry]) -> None:
    """Keep the entries; a folder that cannot be written to goes without."""
    shards = {name: vars(entry) for name, entry in entries.items()}
    with suppress(OSError):
        write_sealed(folder / "index.json", {"version": VERSION, "shards": shards})
