"""A memo of file digests by size, modification time and inode, as git's index keeps.

A digest is believed without reading the file while its size, mtime and inode stand as they were. Git's racy
rule applies: a file modified at about the moment when the memo was taken could have changed again within the
same clock tick, so it is read again. https://git-scm.com/docs/racy-git
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from cache.errors import CacheError
from cache.files import read_memo, write_sealed
from cache.manifest import Manifest

VERSION = 1
# Coarse clocks tick every 4 to 10 ms, FAT stores even seconds: two seconds are safe everywhere.
RACY_NS = 2_000_000_000

Stat = tuple[int, int, int]


def stat_of(status: os.stat_result) -> Stat:
    """Size in bytes, modification time in nanoseconds, inode."""
    return status.st_size, status.st_mtime_ns, status.st_ino


class StatMemo:
    """Digests of the files under one folder, by path relative to it. Losing the file costs time, nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._old: dict[str, tuple[int, int, int, str]] = {}
        self._new: dict[str, tuple[int, int, int, str]] = {}
        self._changed = False
        self._taken = time.time_ns()
        self._trusted_before = 0
        stored = read_memo(path)
        if stored.get("version") == VERSION:
            self._trusted_before = stored["taken_ns"] - RACY_NS
            self._old = dict(zip(stored["paths"], zip(*stored["columns"], strict=True), strict=True))

    def get(self, path: str, stat: Stat) -> str | None:
        """The digest of an untouched file, None for one that has to be read."""
        entry = self._old.get(path)
        if entry is None or entry[:3] != stat or stat[1] >= self._trusted_before:
            return None
        self._new[path] = entry
        return entry[3]

    def put(self, path: str, stat: Stat, sha256: str) -> None:
        """Remember the digest of a file that was just read; ``stat`` was taken before reading it."""
        self._new[path] = (*stat, sha256)
        self._changed = True

    @property
    def settled(self) -> bool:
        """Whether every file is old enough for its stat to be believed from now on."""
        return all(entry[1] < self._taken - RACY_NS for entry in self._new.values())

    def save(self) -> None:
        """Write what this scan saw, where it differs from what was stored."""
        if not self._changed and len(self._new) == len(self._old):
            return
        columns = list(zip(*self._new.values(), strict=True)) or [(), (), (), ()]
        stored = {"version": VERSION, "taken_ns": self._taken, "paths": list(self._new), "columns": columns}
        write_sealed(self.path, stored)


def recall_manifest(folder: Path, inputs: str) -> Manifest | None:
    """The manifest in ``folder``, if it came of ``inputs``: a scan that finds all as it was reads it back.

    ``inputs`` is a digest of everything that a manifest is made of: paths, stats, the data spec.
    """
    stored = read_memo(folder / "scan-state.json")
    if stored.get("inputs") == inputs:
        with suppress(CacheError, OSError):
            manifest = Manifest.load(folder / "manifest.json")
            return manifest if manifest.digest == stored["manifest"] else None
    return None


def remember_manifest(folder: Path, inputs: str, manifest: Manifest, complete: bool) -> None:
    """Remember what the manifest in ``folder`` came of; where the scan was not ``complete``, forget the one before."""
    path = folder / "scan-state.json"
    if complete:
        write_sealed(path, {"inputs": inputs, "manifest": manifest.digest})
    else:
        path.unlink(missing_ok=True)
