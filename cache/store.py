"""``FeatureStore``: the features of one base, in shards, addressed by the content of the image.

A notebook can use it without TensorFlow::

    from cache import FeatureStore
    store = FeatureStore("artifacts/features/vgg16-block5_pool-150-0123456789ab")
    X = store.read(store.digests())          # (n, 4, 4, 512)
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache import index
from cache.errors import CacheError, DamageError
from cache.files import digest_json, lock, read_sealed, remove_temporaries, write_sealed
from cache.manifest import SPLITS, ImageRecord, Manifest
from cache.table import ShardTable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

    from cache.shard import Compression, ShardInfo


# Of files beside the shards that hold what was made of their rows, see cache.derived.
DERIVED = ".rows"


class FeatureStore:
    """Features by SHA-256 of the image file, in the shards of one folder.

    Opening one reads its index (a memo of the shards' tables, made anew from the shards where it does not
    match them) and imports neither h5py nor NumPy until rows are read. A shard that turns out to be damaged is moved
    aside, whatever was to be done with it: its images are missing then, and the next extraction replaces it.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.damaged: dict[str, str] = {}
        self._entries: dict[str, index.ShardEntry] = {}
        self._rows: dict[str, tuple[str, int]] = {}
        self.refresh()

    @property
    def spec(self) -> dict[str, Any]:
        """The spec that the base key was made of. Raises CacheError where the store has none."""
        path = self.folder / "spec.json"
        if not path.exists():
            found = "a folder without one" if self.folder.is_dir() else "a file" if self.folder.exists() else "nothing"
            raise CacheError(
                f"{self.folder}: expected the folder of a feature store (with spec.json), found {found}; `make status` names those that "
                "there are"
            )
        return read_sealed(path, "the spec of a feature store")

    @property
    def spec_is_whole(self) -> bool:
        """Whether there is a spec, undamaged."""
        return self._key() is not None

    def create(self, spec: dict[str, Any]) -> None:
        """Make the folder and write its spec."""
        write_sealed(self.folder / "spec.json", spec)

    def digests(self) -> list[str]:
        """SHA-256 of every image that the store has features of, in the order of the shards."""
        return list(self._rows)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Those of ``wanted`` that the store lacks, each once, in order."""
        return [digest for digest in dict.fromkeys(wanted) if digest not in self._rows]

    def shard_of(self, sha256: str) -> str:
        """The name of the shard that holds a content. Raises CacheError where none does."""
        if sha256 not in self._rows:
            raise CacheError(f"{self.folder}: lacks the image with content {sha256[:12]}; run `make features`")
        return self._rows[sha256][0]

    def paths(self) -> dict[str, str]:
        """The file name, relative to the data root, under which each content was last seen."""
        return {
            digest: path
            for entry in self._entries.values()
            for digest, path in zip(entry.sha256, entry.paths, strict=True)
        }

    def shards(self) -> list[Path]:
        """The shard files, in order."""
        return [self.folder / name for name in self._entries]

    def info(self) -> list["ShardInfo"]:
        """What the attributes of each shard say: spec, and precision, device and versions really used."""
        from cache.shard import read_info

        with self._moving_damage_aside():
            return [read_info(path) for path in self.shards()]

    def dtypes(self) -> set[str]:
        """The dtypes in which features are stored: a shard may be float32 where float16 does not hold its values."""
        from cache.shard import dtype_of

        with self._moving_damage_aside():
            return {dtype_of(path) for path in self.shards()}

    def refresh(self) -> None:
        """Look at the shards again. One that cannot be read, or is of another base, is in ``damaged`` and holds nothing."""
        entries, damaged = index.read_entries(self.folder, self._key())
        # Swapped whole, so that a reader in another thread sees the old state or the new one.
        self._rows = {digest: (name, row) for name, entry in entries.items() for row, digest in enumerate(entry.sha256)}
        self._entries, self.damaged = entries, damaged

    def _key(self) -> str | None:
        """The base key that the shards should have, where the spec is whole."""
        try:
            return digest_json(self.spec)
        except (CacheError, OSError):
            return None

    def append(
        self,
        features: "NDArray[Any]",
        records: Sequence[ImageRecord],
        classes: Sequence[str],
        info: "ShardInfo",
        compression: "Compression" = "zstd",
    ) -> Path:
        """Write ``features`` (n, …), row i belonging to ``records[i]``, as a new shard; returns its path.

        Call it while holding ``writing()``. Raises CacheError where a content is in the store already.
        """
        from cache.shard import write_shard

        for record in records:
            if record.sha256 in self._rows:
                raise CacheError(f"{record.path}: is in the store {self.folder} already")
        (path,) = self.new_shards(1)
        table = ShardTable.of(records, classes)
        write_shard(path, features, table, info, compression)
        self._entries[path.name] = index.entry_of(table, info.key, path.stat())
        self._rows |= {digest: (path.name, row) for row, digest in enumerate(table.sha256)}
        return path

    def new_shards(self, count: int) -> list[Path]:
        """Paths for so many new shards. Call it while holding ``writing()``."""
        numbers = [int(path.stem.removeprefix("shard-")) for path in self.folder.glob("shard-*.h5")]
        first = max(numbers, default=-1) + 1
        return [self.folder / f"shard-{number:05d}.h5" for number in range(first, first + count)]

    def read(
        self,
        digests: Iterable[str],
        transform: "Callable[[NDArray[Any]], NDArray[Any]] | None" = None,
        dtype: "DTypeLike" = "float32",
    ) -> "NDArray[Any]":
        """Features of ``digests``, in that order, as an array (n, …) of ``dtype``.

        ``transform`` is applied to each shard's rows, as float32, before they are kept (pooling, say), so that memory
        holds no more than the result and two shards; it is called from two threads, and once on a row of zeros, to see
        its shape. ``dtype`` is float16, float32 or float64; float16 takes half the memory and, where whole shards are
        asked for in their order, no copy. Raises CacheError for a content that is not there, for values that do not fit
        float16, and for a damaged shard.
        """
        from cache.reading import read_rows

        rows, entries = self._rows, self._entries  # as they are now, whatever another thread finds damaged
        wanted = list(digests)
        if absent := [digest for digest in wanted if digest not in rows]:
            _ = self.spec  # of a folder that is no store, this is what is to be said
            raise CacheError(f"{self.folder}: lacks {len(absent)} of {len(wanted)} images; run `make features`")
        try:
            with self._moving_damage_aside():
                return read_rows(self.folder, entries, [rows[digest] for digest in wanted], transform, dtype)
        except FileNotFoundError as error:
            raise CacheError(f"{error.filename}: went away while the store was in use; open it again") from error

    def arrays(self, manifest: Manifest, split: str) -> "tuple[NDArray[np.float32], NDArray[np.int64]]":
        """Features (n, …) float32 and labels (n,) int64, which index ``manifest.classes``, of a whole split.

        Rows are in order of the manifest's paths. Raises CacheError where an image has no features yet, ValueError for
        a split of another name.
        """
        import numpy as np

        if split not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, found {split!r}")
        records = [record for record in manifest.records if record.split == split]
        labels = [manifest.classes.index(record.label) for record in records]
        return self.read(record.sha256 for record in records), np.array(labels, np.int64)

    @contextmanager
    def writing(self, waiting: Callable[[str], None] = lambda line: None) -> Iterator[None]:
        """Hold the store for one writer, and clear what killed writers left.

        Where another process holds it, ``waiting`` is called with a line that names it, and this one waits.
        """
        with lock(self.folder, waiting):
            remove_temporaries(self.folder)
            self.refresh()
            try:
                yield
            finally:
                index.save(self.folder, self._entries)

    def outdated(self, manifest: Manifest) -> list[str]:
        """The shards whose labels, paths or class names no longer agree with the manifest."""
        return [name for name, entry in self._entries.items() if not entry.agrees(manifest)]

    def relabel(self, manifest: Manifest) -> int:
        """Rewrite the shards that disagree with the manifest; nothing is extracted. Returns how many."""
        from cache.shard import relabel_shard

        names, entries = self.outdated(manifest), self._entries
        self._each_shard(names, lambda path: relabel_shard(path, entries[path.name].relabelled(manifest)))
        return len(names)

    def discard_damaged(self) -> int:
        """Remove the shards that cannot be used, so that their images are extracted again. Returns how many."""
        names = [*self.damaged, *self.set_aside()]
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
        self.refresh()
        return len(names)

    def set_aside(self) -> list[str]:
        """Shards that a reader found damaged and moved out of the way."""
        return sorted(path.name for path in self.folder.glob("shard-*.h5.damaged"))

    def drop(self, unwanted: Iterable[str]) -> int:
        """Remove the rows of ``unwanted`` contents; shards are rewritten or, when empty, removed. Returns how many rows.

        Call it while holding ``writing()``.
        """
        from cache.shard import drop_rows

        gone = set(unwanted) & self._rows.keys()
        self._each_shard({self.shard_of(digest) for digest in gone}, lambda path: drop_rows(path, gone))
        for path in self.folder.glob(f"*{DERIVED}") if gone else ():
            path.unlink(missing_ok=True)  # it has these rows too, and is made again where it is needed
        return len(gone)

    def size(self) -> int:
        """Bytes of all shards on disk."""
        return sum(entry.size for entry in self._entries.values())

    def verify(self) -> dict[str, str]:
        """Read every shard whole and check it; returns what is wrong, by name of the file."""
        from cache.shard import read_shard

        wrong = dict(self.damaged)
        if self._entries and not self.spec_is_whole:
            wrong["spec.json"] = f"{self.folder / 'spec.json'}: damaged or gone; run `make features`"
        return wrong | self._each_shard(self._entries, read_shard)

    def _each_shard(self, names: Iterable[str], work: Callable[[Path], object]) -> dict[str, str]:
        """Call ``work`` with the path of each shard that is still there; returns what is wrong, by name."""
        wrong = {}
        for name in names:
            try:
                with self._moving_damage_aside(), suppress(FileNotFoundError):
                    work(self.folder / name)
            except DamageError as error:
                wrong[name] = str(error)
        self.refresh()
        return wrong

    @contextmanager
    def _moving_damage_aside(self) -> Iterator[None]:
        try:
            yield
        except DamageError as error:
            with suppress(OSError):
                os.replace(error.path, f"{error.path}.damaged")
            self.refresh()
            raise
