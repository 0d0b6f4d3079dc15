"""``FeatureStore``: the features of one base, in shards, addressed by the content of the image.

A notebook can use it without TensorFlow::

    from cache import FeatureStore
    store = FeatureStore("artifacts/features/vgg16-block5_pool-150-0123456789ab")
    X = store.read(store.digests())          # (n, 4, 4, 512)
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import CacheError
from cache.files import canonical_json, lock, read_json, remove_temporaries, write_if_changed, write_text
from cache.manifest import ImageRecord, Manifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cache.shard import Compression, ShardInfo

INDEX_VERSION = 1


@dataclass(frozen=True)
class ShardEntry:
    """What the index remembers of one shard, so that a no-op opens none: its table and the file's stat."""

    size: int
    mtime_ns: int
    sha256: list[str]
    labels: list[int]
    paths: list[str]
    class_names: list[str]


class FeatureStore:
    """Features by SHA-256 of the image file, in the shards of one folder.

    Opening one reads its index (a memo of the shards' tables, made anew from the shards where it does not
    match them) and imports neither h5py nor NumPy until rows are read.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.damaged: dict[str, str] = {}
        self._entries: dict[str, ShardEntry] = {}
        self._rows: dict[str, tuple[str, int]] = {}
        self.refresh()

    @property
    def spec(self) -> dict[str, Any]:
        """The spec that the base key was made of. Raises CacheError where the store has none."""
        path = self.folder / "spec.json"
        if not path.exists():
            raise CacheError(f"{self.folder}: expected a feature store, found no spec.json; run `make features`")
        spec = read_json(path, "the spec of a feature store")
        assert isinstance(spec, dict)
        return spec

    def create(self, spec: dict[str, Any]) -> None:
        """Make the folder and write its spec."""
        write_if_changed(self.folder / "spec.json", canonical_json(spec) + "\n")

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

        return [read_info(path) for path in self.shards()]

    def refresh(self) -> None:
        """Look at the shards again. A shard that cannot be read is listed in ``damaged`` and holds nothing."""
        remembered = self._load_index()
        self._entries, self.damaged = {}, {}
        changed = False
        for path in sorted(self.folder.glob("shard-*.h5")):
            status = path.stat()
            entry = remembered.pop(path.name, None)
            if entry is None or (entry.size, entry.mtime_ns) != (status.st_size, status.st_mtime_ns):
                changed = True
                try:
                    entry = _entry(path)
                except CacheError as error:
                    self.damaged[path.name] = str(error)
                    continue
            self._entries[path.name] = entry
        self._rows = {
            digest: (name, row) for name, entry in self._entries.items() for row, digest in enumerate(entry.sha256)
        }
        if changed or remembered:
            self._save_index()

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
        from cache.shard import ShardTable, write_shard

        for record in records:
            if record.sha256 in self._rows:
                raise CacheError(f"{record.path}: is in the store {self.folder} already")
        numbers = [int(path.stem.removeprefix("shard-")) for path in self.folder.glob("shard-*.h5")]
        path = self.folder / f"shard-{max(numbers, default=-1) + 1:05d}.h5"
        ids = {name: i for i, name in enumerate(classes)}
        table = ShardTable(
            sha256=[record.sha256 for record in records],
            labels=[ids.get(record.label, -1) for record in records],
            paths=[record.path for record in records],
            class_names=list(classes),
        )
        write_shard(path, features, table, info, compression)
        status = path.stat()
        self._entries[path.name] = ShardEntry(status.st_size, status.st_mtime_ns, **asdict(table))
        self._rows |= {digest: (path.name, row) for row, digest in enumerate(table.sha256)}
        self._save_index()
        return path

    def read(
        self, digests: Iterable[str], transform: "Callable[[NDArray[Any]], NDArray[Any]] | None" = None
    ) -> "NDArray[np.float32]":
        """Features of ``digests``, in that order, as float32 (n, …).

        ``transform`` is applied to each shard's rows before they are kept (pooling, say), so that memory
        holds no more than the result and one shard. Raises CacheError for a content that is not there and
        for a damaged shard, which is moved aside so that the next extraction replaces it.
        """
        import numpy as np

        from cache.shard import read_shard

        wanted = list(digests)
        if absent := self.missing(wanted):
            raise CacheError(f"{self.folder}: lacks {len(absent)} of {len(wanted)} images; run `make features`")
        by_shard: dict[str, list[tuple[int, int]]] = {}
        for position, digest in enumerate(wanted):
            name, row = self._rows[digest]
            by_shard.setdefault(name, []).append((position, row))
        out: NDArray[np.float32] | None = None
        for name in sorted(by_shard):
            try:
                features, table = read_shard(self.folder / name)
            except CacheError:
                self._set_aside(name)
                raise
            if table.sha256 != self._entries[name].sha256:
                raise CacheError(f"{self.folder / name}: changed while it was read; run again")
            positions, rows = map(list, zip(*by_shard[name], strict=True))
            values = features if rows == list(range(len(features))) else features[rows]
            values = values if transform is None else transform(values.astype(np.float32))
            if out is None:
                out = np.empty((len(wanted), *values.shape[1:]), np.float32)
            out[positions] = values
        return np.empty((0,), np.float32) if out is None else out

    def writing(self) -> Any:
        """Hold the store for one writer, and clear what killed writers left."""
        return _Writing(self)

    def outdated(self, manifest: Manifest) -> list[str]:
        """The shards whose labels, paths or class names no longer agree with the manifest."""
        return [name for name, entry in self._entries.items() if not _agrees(entry, manifest)]

    def relabel(self, manifest: Manifest) -> int:
        """Rewrite the shards that disagree with the manifest; nothing is extracted. Returns how many."""
        from cache.shard import ShardTable, relabel_shard

        names = self.outdated(manifest)
        for name in names:
            table = ShardTable(**_table_from(self._entries[name], manifest))
            relabel_shard(self.folder / name, table)
        if names:
            self.refresh()
        return len(names)

    def discard_damaged(self) -> int:
        """Move the shards that cannot be read aside, so that their images count as missing. Returns how many."""
        names = list(self.damaged)
        for name in names:
            self._set_aside(name)
        return len(names)

    def verify(self) -> dict[str, str]:
        """Read every shard whole and check it; returns what is wrong, by name of the shard."""
        from cache.shard import read_shard

        wrong = dict(self.damaged)
        for path in self.shards():
            try:
                read_shard(path)
            except CacheError as error:
                wrong[path.name] = str(error)
        return wrong

    def _set_aside(self, name: str) -> None:
        with suppress(OSError):
            os.replace(self.folder / name, self.folder / f"{name}.damaged")
        self.refresh()

    def _load_index(self) -> dict[str, ShardEntry]:
        try:
            stored = json.loads((self.folder / "index.json").read_bytes())
            if stored["version"] != INDEX_VERSION:
                return {}
            return {name: ShardEntry(**entry) for name, entry in stored["shards"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _save_index(self) -> None:
        """The index is a memo: a folder that cannot be written costs time, not correctness."""
        shards = {name: asdict(entry) for name, entry in self._entries.items()}
        with suppress(OSError):
            write_text(self.folder / "index.json", canonical_json({"version": INDEX_VERSION, "shards": shards}))


class _Writing:
    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._lock = lock(store.folder)

    def __enter__(self) -> None:
        self._lock.__enter__()
        remove_temporaries(self._store.folder)
        self._store.refresh()

    def __exit__(self, *details: Any) -> None:
        self._lock.__exit__(*details)


def _entry(path: Path) -> ShardEntry:
    from cache.shard import read_table

    status = path.stat()
    return ShardEntry(status.st_size, status.st_mtime_ns, **asdict(read_table(path)))


def _agrees(entry: ShardEntry, manifest: Manifest) -> bool:
    wanted = _table_from(entry, manifest)
    return all(getattr(entry, name) == values for name, values in wanted.items())


def _table_from(entry: ShardEntry, manifest: Manifest) -> dict[str, Any]:
    """The table that a shard should have: what the manifest says, and for images it no longer has, what stood."""
    ids = {name: i for i, name in enumerate(manifest.classes)}
    labels, paths = [], []
    for digest, label, path in zip(entry.sha256, entry.labels, entry.paths, strict=True):
        record = manifest.by_digest.get(digest)
        old_name = entry.class_names[label] if label >= 0 else ""
        labels.append(ids.get(record.label if record else old_name, -1))
        paths.append(record.path if record else path)
    return {"sha256": entry.sha256, "labels": labels, "paths": paths, "class_names": list(manifest.classes)}
