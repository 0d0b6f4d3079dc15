"""One HDF5 shard: written whole, read whole, checked each time. The only importer of h5py.

A shard is never appended to. It is made in memory, written under a temporary name, synced, read back and renamed,
so that a shard that exists is whole, and a full disk is an ordinary error and not one from inside HDF5. Every dataset
carries the XXH3 checksum of its content, and the file one over its attributes: SHA-256 would be the bottleneck of
reading (about 1.5 GB/s against memory speed).
"""

import io
import json
import os
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from cache.errors import DamageError, SchemaError
from cache.files import atomic_path, canonical_json
from cache.table import ShardTable

SCHEMA = 1
CHECKSUM = "xxh3_128"
CHUNK_BYTES = 1 << 20
DENSE = 0.3  # the share of values other than zero from which zstd gains by the shuffle, measured
ZSTD = "32015"  # the number of the filter in HDF5's registry
# In the order in which they are checksummed. Older shards have no seconds.
ATTRIBUTES = ("schema_version", "key", "spec", "class_names", "precision", "device", "versions", "drift", "seconds")

Compression = Literal["zstd", "lzf", "none"]
_T = TypeVar("_T")


@dataclass(frozen=True)
class ShardInfo:
    """What the attributes of a shard say: base key, its spec, and what really computed the features.

    ``drift`` is how far features computed then were from those already stored, see ``stages.extract.drift``; empty where nothing
    was compared. ``seconds`` is how long the rows took to extract, decoding included.
    """

    key: str
    spec: dict[str, Any]
    precision: str
    device: str
    versions: dict[str, str]
    drift: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def write_shard(
    path: Path, features: NDArray[Any], table: ShardTable, info: ShardInfo, compression: Compression = "zstd"
) -> None:
    """Write ``features`` (n, …) and their table as the shard ``path``, atomically.

    Raises ValueError where the lengths differ and DamageError where the file does not read back as written.
    """
    if not len(features) == len(table.sha256) == len(table.labels) == len(table.paths):
        raise ValueError(f"{path.name}: features, sha256, labels and paths differ in length")
    features = np.ascontiguousarray(features)
    with _new_shard(path, table, info) as file:
        dataset = file.create_dataset("features", data=features, **_layout(features, compression))
        dataset.attrs[CHECKSUM] = _checksum(features)


def relabel_shard(path: Path, table: ShardTable) -> None:
    """Give a shard other labels, paths and class names; the compressed features are copied as they stand.

    Raises DamageError where they are not what was written.
    """
    read_shard(path)
    with h5py.File(path, "r", locking="best-effort") as old, _new_shard(path, table, _read_info(old)) as new:
        old.copy("features", new)


def drop_rows(path: Path, unwanted: Set[str]) -> None:
    """Rewrite a shard without the rows of the contents ``unwanted``, or remove it where no other is left.

    Raises DamageError where it is damaged.
    """
    features, table = read_shard(path)
    kept = {row: record for row, record in enumerate(table.records()) if record.sha256 not in unwanted}
    if not kept:
        path.unlink()
        return
    rest = ShardTable.of(list(kept.values()), table.class_names)
    write_shard(path, features[list(kept)], rest, read_info(path), _compression_of(path))


@contextmanager
def _new_shard(path: Path, table: ShardTable, info: ShardInfo) -> Iterator[h5py.File]:
    """A shard without features yet; when the block has written them, it takes its place at ``path``."""
    image = io.BytesIO()
    # Format 1.10 puts checksums on HDF5's own structures, so that a flipped bit there is noticed too.
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        yield file
        _write_table(file, table)
        _write_attributes(file, table, info)
    with atomic_path(path) as temporary:
        temporary.write_bytes(image.getbuffer())
        read_shard(temporary)


def read_table_and_key(path: Path) -> tuple[ShardTable, str]:
    """The table of a shard and its base key, checked. Raises DamageError for a damaged file, SchemaError for another schema."""
    return _guarded(path, lambda file: (_read_table(file), str(file.attrs["key"])))


def read_info(path: Path) -> ShardInfo:
    """The attributes of a shard, checked. Raises DamageError for a damaged file, SchemaError for another schema."""
    return _guarded(path, lambda file: (_read_table(file), _read_info(file))[1])


def read_shard(path: Path, out: NDArray[Any] | None = None) -> tuple[NDArray[Any], ShardTable]:
    """Features (n, …) as stored, and the table, both checked. Raises DamageError for a damaged file.

    They are read into ``out`` where its shape and dtype are theirs, which spares the copy.
    """

    def read(file: h5py.File) -> tuple[NDArray[Any], ShardTable]:
        table = _read_table(file)
        dataset = file["features"]
        fits = out is not None and (out.shape, out.dtype) == (dataset.shape, dataset.dtype)
        features = out if out is not None and fits else np.empty(dataset.shape, dataset.dtype)
        dataset.read_direct(features)
        if len(features) != len(table.sha256):
            raise ValueError("features and sha256 differ in length")
        _check(dataset, _checksum(features))
        return features, table

    return _guarded(path, read)


def _compression_of(path: Path) -> Compression:
    with h5py.File(path, "r", locking="best-effort") as file:
        filters = file["features"]._filters
        return "zstd" if ZSTD in filters else "lzf" if "lzf" in filters else "none"


def _guarded(path: Path, read: Callable[[h5py.File], _T]) -> _T:
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            version = file.attrs.get("schema_version")
            if version is not None and int(version) != SCHEMA:
                raise SchemaError(
                    f"{path}: expected a shard of schema {SCHEMA}, found schema {int(version)}; "
                    "read it with the headstart that wrote it, or extract again into another cache.dir"
                )
            if "features" in file and ZSTD in file["features"]._filters:
                import hdf5plugin  # noqa: F401  (brings zstd to HDF5)
            return read(file)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        # HDF5 gives a reason of its own for a file that does not hold what it should, and an errno for everything else:
        # too many open files, another process that holds it, a disk that does not answer. Those shards may be whole.
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"{path}: damaged shard ({reason}); run `make features` to extract its images again"
        raise DamageError(path, message) from error


def shape_of(path: Path) -> tuple[int, ...]:
    """Shape (n, …) of the features of a shard. Raises DamageError for a damaged file."""
    return _guarded(path, lambda file: tuple(file["features"].shape))


def dtype_of(path: Path) -> str:
    """The dtype of the features of a shard, such as "float16". Raises DamageError for a damaged file."""
    return _guarded(path, lambda file: str(file["features"].dtype))


def _layout(features: NDArray[Any], compression: Compression) -> dict[str, Any]:
    if compression == "none":
        return {}  # contiguous: HDF5 reads it straight into the caller's array
    chunks = (max(1, min(len(features), CHUNK_BYTES // max(1, features[0].nbytes))), *features.shape[1:])
    # The byte shuffle pays for dense features; behind a ReLU most are zero, and long runs of zeros pack better whole.
    bits = features.view(f"u{features.itemsize}")  # counted several times as fast as float16
    shuffle = np.count_nonzero(bits) > DENSE * features.size
    if compression == "zstd":
        import hdf5plugin

        # Level 1: on convolutional features higher levels are slower and no smaller.
        return {**hdf5plugin.Zstd(clevel=1), "shuffle": shuffle, "chunks": chunks}
    return {"compression": "lzf", "shuffle": shuffle, "chunks": chunks}


def _write_table(file: h5py.File, table: ShardTable) -> None:
    text = h5py.string_dtype("utf-8")
    columns: dict[str, NDArray[Any] | list[bytes]] = {
        "sha256": np.array([digest.encode("ascii") for digest in table.sha256], "S64"),
        "labels": np.array(table.labels, np.int64),
        "paths": [path.encode("utf-8", "surrogateescape") for path in table.paths],
    }
    for name, values in columns.items():
        dataset = file.create_dataset(name, data=values, dtype=text if name == "paths" else None)
        dataset.attrs[CHECKSUM] = _checksum(values)


def _write_attributes(file: h5py.File, table: ShardTable, info: ShardInfo) -> None:
    values = {"schema_version": SCHEMA, "class_names": table.class_names, **vars(info)}
    for name in ATTRIBUTES:
        value = values[name]
        file.attrs[name] = canonical_json(value) if isinstance(value, dict | list) else value
    file.attrs[CHECKSUM] = _checksum_of_attributes(file)


def _read_table(file: h5py.File) -> ShardTable:
    if str(file.attrs[CHECKSUM]) != _checksum_of_attributes(file):
        raise ValueError("the checksum of its attributes does not match")
    paths = [bytes(path) for path in file["paths"][:]]
    sha256 = file["sha256"][:]
    labels = file["labels"][:]
    for name, values in (("paths", paths), ("sha256", sha256), ("labels", labels)):
        _check(file[name], _checksum(values))
    if not len(paths) == len(sha256) == len(labels):
        raise ValueError("paths, sha256 and labels differ in length")
    return ShardTable(
        sha256=[digest.decode("ascii") for digest in sha256],
        labels=labels.tolist(),
        paths=[path.decode("utf-8", "surrogateescape") for path in paths],
        class_names=json.loads(file.attrs["class_names"]),
    )


def _read_info(file: h5py.File) -> ShardInfo:
    return ShardInfo(
        key=str(file.attrs["key"]),
        spec=json.loads(file.attrs["spec"]),
        precision=str(file.attrs["precision"]),
        device=str(file.attrs["device"]),
        versions=json.loads(file.attrs["versions"]),
        drift=json.loads(file.attrs["drift"]),
        seconds=float(file.attrs.get("seconds", 0.0)),
    )


def _checksum(values: NDArray[Any] | list[bytes]) -> str:
    if isinstance(values, list):
        return xxhash.xxh3_128(b"\0".join(values)).hexdigest()
    digest = xxhash.xxh3_128(f"{values.dtype.str}{values.shape}".encode())
    digest.update(values.reshape(-1).view(np.uint8).data if values.size else b"")
    return digest.hexdigest()


def _checksum_of_attributes(file: h5py.File) -> str:
    values = [str(file.attrs[name]) for name in ATTRIBUTES if name in file.attrs]
    return xxhash.xxh3_128(canonical_json(values).encode()).hexdigest()


def _check(dataset: h5py.Dataset, found: str) -> None:
    if str(dataset.attrs[CHECKSUM]) != found:
        raise ValueError(f"the checksum of {dataset.name.lstrip('/')} does not match")
