"""What lies under a folder: image files with their stat, what is skipped and why, what is ignored."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from cache.errors import DataError
from cache.memo import Stat, stat_of

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif"}
)


def walk(root: Path, without: Path | None = None) -> "Walk":
    """Every file under ``root`` but what lies in the folder ``without`` (the cache's own) or is hidden.

    Links are followed within the root, never out of it. Raises DataError where there is no folder.
    """
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise DataError(f"{root}: expected a folder of images, found {what}; set data.root in the configuration")
    return Walk(os.path.realpath(root), os.path.realpath(without) if without else "")


class _Folder(NamedTuple):
    """The prefix of its files' names, its real path, and the real paths of the folders that it lies in."""

    prefix: str
    path: str
    above: frozenset[str]


class Walk:
    """What lies under the real path ``root``: image files with their stat, what is skipped and why, what is ignored."""

    def __init__(self, root: str, excluded: str) -> None:
        self.files: dict[str, Stat] = {}
        self.skipped: dict[str, str] = {}
        self.ignored: Counter[str] = Counter()
        self._root, self._excluded = root, excluded
        self._waiting = [_Folder("", root, frozenset({root}))]
        while self._waiting:
            self._list(self._waiting.pop())

    def _list(self, folder: _Folder) -> None:
        try:
            descriptor = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # Through a descriptor a stat costs a quarter less.
                self._take_entries(list(os.scandir(descriptor)), folder)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.skipped[folder.prefix.rstrip("/")] = f"the folder cannot be listed: {error.strerror}"

    def _take_entries(self, entries: list[os.DirEntry[str]], folder: _Folder) -> None:
        prefix, files = folder.prefix, self.files
        for entry in entries:
            # Most entries are image files, and a no-op comes through here for each of them: they are asked about first.
            name = entry.name
            if (
                entry.is_file(follow_symlinks=False)
                and name[name.rfind(".") :].lower() in EXTENSIONS
                and name[0] != "."
            ):
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    self.skipped[prefix + name] = f"cannot be read: {error.strerror}"
                else:
                    files[prefix + name] = (status.st_size, status.st_mtime_ns, status.st_ino)
            elif name[0] == ".":
                continue
            elif entry.is_symlink():
                self._follow(entry, folder)
            elif entry.is_dir():
                path = os.path.join(folder.path, name)
                if path != self._excluded or self._excluded == self._root:
                    self._waiting.append(_Folder(prefix + name + "/", path, folder.above))
            else:
                self._take(entry, prefix + name)

    def _follow(self, entry: os.DirEntry[str], folder: _Folder) -> None:
        name = folder.prefix + entry.name
        target = os.path.realpath(os.path.join(folder.path, entry.name))
        if not os.path.exists(target):
            self.skipped[name] = "a link to a file that does not exist"
        elif target != self._root and not target.startswith(self._root + os.sep):
            self.skipped[name] = "a link out of the data folder, not followed"
        elif not os.path.isdir(target):
            self._take(entry, name)
        elif any(path == target or path.startswith(target + os.sep) for path in (*folder.above, folder.path)):
            self.skipped[name] = "a link to a folder that contains it, not followed"
        else:
            self._waiting.append(_Folder(name + "/", target, folder.above | {target}))

    def _take(self, entry: os.DirEntry[str], name: str) -> None:
        extension = os.path.splitext(entry.name)[1].lower()
        if extension not in EXTENSIONS:
            self.ignored[extension or "no extension"] += 1
        elif not entry.is_file():
            self.skipped[name] = "not a regular file"
        else:
            self.files[name] = stat_of(entry.stat())
