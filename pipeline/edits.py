"""The files of a project that a person edits, and what was changed among them."""

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from cache.errors import HeadstartError
from pipeline.config import Config
from stages.heads.spec import KerasSpec

# Milliseconds: how long a file must be left alone until a change counts, and how long many changes are gathered at most.
STEP, DEBOUNCE = 50, 1600


class Edits:
    """Follows the configuration in the file ``path``, and what it names: heads of one's own, tables, the folder of images.

    Folders of single files are watched, as editors put a new file in the place of the old one. Raises HeadstartError without watchfiles.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._watch = _load()
        self._changed: SimpleQueue[set[Path] | HeadstartError] = SimpleQueue()
        self._threads: list[tuple[threading.Thread, threading.Event]] = []
        self._files: set[Path] = {self._path}
        self._root: Path | None = None
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    @property
    def names(self) -> list[str]:
        """What is followed, in words."""
        return [*sorted(file.name for file in self._files), *([f"{self._root.name}/"] if self._root else [])]

    def follow(self, config: Config | None) -> None:
        """Follow what this configuration names, from now on; without one, what was followed before."""
        if config is None:
            return
        files = {self._path, *_files_of(config)}
        root = config.data.root if config.data.root.is_dir() else None
        if (files, root) != (self._files, self._root):
            self._end()
            self._files, self._root = files, root
            self._begin()

    def next(self) -> set[Path]:
        """Wait until something is changed; all that was changed since the last time."""
        found: set[Path] = set()
        while not found or not self._changed.empty():
            each = self._changed.get()
            if isinstance(each, HeadstartError):
                raise each
            found |= each
        return found

    def _begin(self) -> None:
        self._follow([folder for folder in sorted({file.parent for file in self._files}) if folder.is_dir()], False)
        if self._root:
            self._follow([self._root], True)

    def _follow(self, folders: list[Path], whole: bool) -> None:
        """In a thread of its own, as watchfiles goes into all folders below, or into none."""
        stop = threading.Event()
        files = None if whole else set(self._files)

        def wanted(_: Any, path: str) -> bool:
            return Path(path) in files if files is not None else not Path(path).name.startswith(".")

        def run() -> None:
            options = {"stop_event": stop, "step": STEP, "debounce": DEBOUNCE, "recursive": whole}
            try:
                for changes in self._watch(*folders, watch_filter=wanted, raise_interrupt=False, **options):
                    self._changed.put({Path(path) for _, path in changes})
            except OSError as error:
                where = ", ".join(map(str, folders))
                self._changed.put(HeadstartError(f"{where}: cannot be watched ({error.strerror or error})"))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append((thread, stop))

    def _end(self) -> None:
        for _, stop in self._threads:
            stop.set()
        for thread, _ in self._threads:
            thread.join()
        self._threads.clear()


def _files_of(config: Config) -> Iterator[Path]:
    """The files beside the images that a configuration names, and that people edit."""
    home = config.path.parent
    for entry in config.heads.values():
        if isinstance(entry.spec, KerasSpec):
            yield (home / entry.spec.build.rpartition(":")[0]).absolute()
    yield from config.data.tables
    if config.data.labels:
        yield config.data.labels


def _load() -> Any:
    try:
        from watchfiles import watch
    except ImportError as error:
        raise HeadstartError(
            f"headstart watch: expected the package watchfiles, found none ({error}); install headstart[watch]"
        ) from error
    return watch
