"""How small and how quick is the cache? Against plain HDF5, .npy and .npz, on real features, in one run.

    python -m bench.store STORE [--rounds 5]

STORE is a folder under artifacts/features that was really extracted. Its rows are written as shards in each compression and in the
other formats, as float16, and read back into one float16
array, and into one float32 array; rounds are interleaved. Prints bytes per image, rates against
uncompressed HDF5, and the share of the machine's memory bandwidth (a copy of an array of the same size, bytes read and written)
that loading reaches. Files are in the page cache when they are read: this is the cost of the format, not of the disk.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache import FeatureStore, ImageRecord
from cache.shard import read_info, read_shard

ROWS = 512
MINIMUM = 4096


def load(store: FeatureStore) -> NDArray[np.float16]:
    """Real rows, repeated up to a size at which rates mean something."""
    rows = np.concatenate([read_shard(path)[0] for path in store.shards()]).astype(np.float16)
    return np.concatenate([rows] * -(-MINIMUM // len(rows)))[: max(MINIMUM, len(rows))]


class Ours:
    """A feature store in one compression."""

    def __init__(self, folder: Path, compression: str, source: FeatureStore) -> None:
        self.folder, self.compression = folder, compression
        self.info, self.spec = read_info(source.shards()[0]), source.spec

    def write(self, X: NDArray[np.float16]) -> None:
        store = FeatureStore(self.folder)
        store.create(self.spec)
        with store.writing():
            for start in range(0, len(X), ROWS):
                rows = [
                    ImageRecord(f"{i}.jpg", f"{i:064x}", "a", "train") for i in range(start, min(start + ROWS, len(X)))
                ]
                store.append(X[start : start + ROWS], rows, ["a"], self.info, self.compression)  # type: ignore[arg-type]

    def read(self, dtype: str = "float16") -> NDArray[Any]:
        store = FeatureStore(self.folder)
        return store.read(store.digests(), dtype=dtype)


class Plain:
    """One file, by a function that writes and one that reads."""

    def __init__(
        self, folder: Path, name: str, write: Callable[..., None], read: Callable[[Path], NDArray[np.float16]]
    ) -> None:
        self.folder, self.path, self._write, self._read = folder, folder / name, write, read

    def write(self, X: NDArray[np.float16]) -> None:
        self.folder.mkdir()
        self._write(self.path, X)

    def read(self, dtype: str = "float16") -> NDArray[Any]:
        return self._read(self.path).astype(dtype, copy=False)


def write_hdf5(path: Path, X: NDArray[np.float16]) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=X)


def read_hdf5(path: Path) -> NDArray[np.float16]:
    with h5py.File(path) as file:
        return np.asarray(file["features"][:])


def read_npz(path: Path) -> NDArray[np.float16]:
    with np.load(path) as file:
        return np.asarray(file["X"])


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def bandwidth(X: NDArray[np.float16]) -> float:
    """Bytes read and written a second by a copy into memory that is mapped already."""
    out = np.empty_like(X)
    out[:] = 0
    return 2 * X.nbytes / min(timed(lambda: np.copyto(out, X)) for _ in range(5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("store", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    source = FeatureStore(arguments.store)
    X = load(source)
    writes: dict[str, list[float]] = {}
    reads: dict[str, list[float]] = {}
    wide: dict[str, list[float]] = {}
    sizes: dict[str, float] = {}
    for round_ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as name:
            at = Path(name)
            kinds: dict[str, Ours | Plain] = {
                "HDF5, uncompressed": Plain(at / "h5", "x.h5", write_hdf5, read_hdf5),
                ".npy": Plain(at / "npy", "x.npy", np.save, np.load),
                ".npz": Plain(at / "npz", "x.npz", lambda path, X: np.savez(path, X=X), read_npz),
                ".npz, compressed": Plain(
                    at / "npzc", "x.npz", lambda path, X: np.savez_compressed(path, X=X), read_npz
                ),
                "ours, zstd": Ours(at / "zstd", "zstd", source),
                "ours, lzf": Ours(at / "lzf", "lzf", source),
                "ours, none": Ours(at / "none", "none", source),
            }
            for what, kind in kinds.items():
                writes.setdefault(what, []).append(timed(lambda kind=kind: kind.write(X)))  # type: ignore[misc]
                reads.setdefault(what, []).append(timed(kind.read))
                wide.setdefault(what, []).append(timed(lambda kind=kind: kind.read("float32")))  # type: ignore[misc]
                sizes[what] = sum(p.stat().st_size for p in kind.folder.rglob("*") if p.is_file()) / len(X)
                if round_ == 0:
                    np.testing.assert_array_equal(kind.read()[:64], X[:64])
    peak = bandwidth(X)
    zeros = 100 * float((X == 0).mean())
    print(
        f"{len(X):,} rows of {X.shape[1:]} from {arguments.store.name}, {zeros:.0f}% zeros; medians of {arguments.rounds}"
    )
    print(f"memory bandwidth (copy, read and written): {peak / 1e9:.1f} GB/s")
    print(f"{'':20} {'bytes/image':>12} {'size':>6} {'write':>7} {'read':>7} {'float32':>8} {'of peak bandwidth':>18}")
    first = "HDF5, uncompressed"
    for what in sizes:
        write, read = statistics.median(writes[what]), statistics.median(reads[what])
        share = (X.nbytes / read) / peak
        print(
            f"{what:20} {sizes[what]:12,.0f} {sizes[what] / sizes[first]:6.2f} {statistics.median(writes[first]) / write:6.2f}x "
            f"{statistics.median(reads[first]) / read:6.2f}x {statistics.median(wide[first]) / statistics.median(wide[what]):7.2f}x "
            f"{share:18.3f}"
        )


if __name__ == "__main__":
    main()
