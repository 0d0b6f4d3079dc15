"""The files of a project that a person edits, and what was changed among them."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from cache.errors import HeadstartError
from pipeline.config.load import Config

# Milliseconds: how long a file must be left alone until a change counts, and how long many changes are gathered at most.
STEP, DEBOUNCE = 50, 1600


class Edits:
    """Follows the configuration in the file ``path``, and what it names: heads of one's own, tables, the folder of images.

    Folders of single files are watched, as editors put a new file in the place of the old one, and so is the folder above the images.
    Raises HeadstartError without watchfiles.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._watch = _load()
        self._changed: SimpleQueue[set[Path] | HeadstartError] = SimpleQueue()
        self._threads: list[tuple[threading.Thread, _Stop]] = []
        self._files: set[Path] = {self._path}
        self._root: Path | None = None
        # The places at which the folder of images may come and go, and whether it did: what was followed may be another folder then.
        self._places: set[Path] = set()
        self._is_old = False
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    @property
    def names(self) -> list[str]:
        """What is followed, in words."""
        return [*sorted(file.name for file in self._files), *([f"{self._root.name}/"] if self._root else [])]

    @property
    def waiting(self) -> bool:
        """Whether there are changes that ``next`` has not given yet."""
        return not self._changed.empty()

    def follow(self, config: Config) -> bool:
        """Follow what this configuration names, from when this returns; whether that, or the folder itself, is another than before."""
        files = {self._path, *_files_of(config)}
        root = config.data.root if config.data.root.is_dir() else None
        places = {config.data.root.absolute(), config.data.root.resolve()}
        if (files, root, places) == (self._files, self._root, self._places) and not self._is_old:
            return False
        self._end()
        self._files, self._root, self._places, self._is_old = files, root, places, False
        self._begin()
        return True

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
        singles = self._files | self._places
        self._start(
            [folder for folder in sorted({path.parent for path in singles}) if folder.is_dir()],
            lambda path: path in singles,
        )
        if self._root:
            self._start([self._root], lambda path: not path.name.startswith("."), recursive=True)
        for _, stop in self._threads:
            stop.asked.wait()

    def _start(self, folders: list[Path], wanted: Callable[[Path], bool], recursive: bool = False) -> None:
        """In a thread of its own, as watchfiles goes into all folders below, or into none."""
        stop = _Stop()

        def run() -> None:
            options = {"stop_event": stop, "step": STEP, "debounce": DEBOUNCE, "recursive": recursive}
            try:
                for changes in self._watch(
                    *folders, watch_filter=lambda _, path: wanted(Path(path)), raise_interrupt=False, **options
                ):
                    self._tell({Path(path) for _, path in changes})
            except FileNotFoundError:  # it went away just now
                self._is_old = True
                self._tell(set(folders))
            except OSError as error:
                where = ", ".join(map(str, folders))
                self._changed.put(HeadstartError(f"{where}: cannot be watched ({error.strerror or error})"))
            finally:
                stop.asked.set()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append((thread, stop))

    def _tell(self, changed: set[Path]) -> None:
        # A folder that was moved or made anew is watched by nobody, also where it came back.
        self._is_old |= not self._places.isdisjoint(changed)
        self._changed.put(changed)

    def _end(self) -> None:
        for _, stop in self._threads:
            stop.set()
        for thread, _ in self._threads:
            thread.join()
        self._threads.clear()


class _Stop(threading.Event):
    """Ends a watch, which asks for it as soon as it is there: what is changed from then on is told."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def is_set(self) -> bool:
        self.asked.set()
        return super().is_set()


def _files_of(config: Config) -> Iterator[Path]:
    """The files beside the images that a configuration names, and that people edit."""
    home = config.path.parent
    for entry in config.heads.values():
        yield from ((home / file).absolute() for file in entry.spec.files())
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
