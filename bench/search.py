"""How quick is the exact search for like images, beside the reading of the bytes, and beside scikit-learn's?

    python -m bench.search [--rows 1000000] [--features 512] [--stored 100000]

Made-up rows of length 1 in float16, as ``headstart similar`` holds them in memory. Timed, the best of five: reading all of their bytes
(a sum of them as whole numbers of 64 bits, in as many threads as there are cores), which no search can do without; a search for the
10 rows nearest to one query; and scikit-learn's ``NearestNeighbors(algorithm="brute", metric="cosine")``, which takes no float16, on the
same rows as float32 where memory holds them, else on a tenth of them, times ten. Both find the same rows, or the bench ends with an error.

Then the whole command, on a project of so many ``stored`` images with made-up feature maps of 2×2 places: ``headstart similar`` in a
process of its own, asked for an image of the data; the first call, which averages all features and keeps that, and the best of
three later ones.
There are no image files, so that no time goes into looking for them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np
from sklearn.neighbors import NearestNeighbors

from cache.files import digest_text, sha256_file
from cache.manifest import ImageRecord, Manifest
from cache.shard import ShardInfo
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph
from stages.search.nearest import lengths_of, nearest

K = 10
AT_ONCE = 10_000


def made_up(n: int, d: int) -> np.ndarray:
    """Rows around 100 places, as features lie around those of their classes."""
    rng = np.random.default_rng(0)
    places = rng.standard_normal((100, d), np.float32)
    rows = np.empty((n, d), np.float16)
    for start in range(0, n, AT_ONCE):
        part = np.maximum(
            places[rng.integers(0, 100, min(AT_ONCE, n - start))]
            + rng.standard_normal((min(AT_ONCE, n - start), d), np.float32),
            0,
        )
        rows[start : start + AT_ONCE] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def best(work: Callable[[], object], times: int = 5) -> float:
    """Seconds of the quickest of some runs."""
    found = []
    for _ in range(times):
        start = perf_counter()
        work()
        found.append(perf_counter() - start)
    return min(found)


def read(rows: np.ndarray) -> None:
    """All bytes once, in as many threads as there are cores."""
    words = rows.reshape(-1).view(np.uint64)
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        list(threads.map(np.sum, np.array_split(words, os.cpu_count() or 1)))


def stored(folder: Path, n: int, d: int) -> Path:
    """A project with made-up features of n images, of which one is there as a file; that file."""
    asked = folder / "asked.jpg"
    asked.write_bytes(b"never decoded, as its features are known")
    (folder / "headstart.toml").write_text('[data]\nroot = "photos"\n[base]\nweights = "random"\n')
    digests = [sha256_file(asked), *(digest_text(str(i)) for i in range(1, n))]
    records = tuple(ImageRecord(f"{i:07}.jpg", digest, f"class{i % 10}", "train") for i, digest in enumerate(digests))
    classes = tuple(f"class{i}" for i in range(10))
    config = load_config(folder / "headstart.toml")
    Manifest("folders", classes, records, root="photos").save(config.cache.dir / "manifest.json")
    graph = load_graph(config)
    (base,) = next(iter(graph.bases.values())).layers
    assert base.store is not None and base.key is not None
    base.store.create(base.identity)
    info = ShardInfo(base.key, base.identity, "float32", "CPU", {})
    rng = np.random.default_rng(0)
    with base.store.writing():
        for start in range(0, n, 512):
            rows = records[start : start + 512]
            maps = np.maximum(rng.standard_normal((len(rows), 2, 2, d), np.float32), 0).astype(np.float16)
            base.store.append(maps, rows, classes, info)
    return asked


def whole_command(n: int, d: int) -> None:
    """Print what the first and later calls of ``headstart similar`` take."""
    with tempfile.TemporaryDirectory() as name:
        asked = stored(Path(name), n, d)
        command = [Path(sys.executable).parent / "headstart", "similar", asked.name]

        def call() -> None:
            subprocess.run(command, cwd=name, check=True, capture_output=True)

        first, later = best(call, 1), best(call, 3)
    print(f"headstart similar, {n:,} images with maps of 2 × 2 × {d}")
    print(f"  the first call          {first:7.3f} s")
    print(f"  a later one             {later:7.3f} s   {later / first:5.2f} of that")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--stored", type=int, default=100_000)
    arguments = parser.parse_args()
    n, d = arguments.rows, arguments.features
    rows = made_up(n, d)
    query = rows[n // 3].astype(np.float32) + 0.01
    lengths = lengths_of(rows)
    bound, search = best(lambda: read(rows)), best(lambda: nearest(query, rows, K, lengths))
    print(f"{n:,} rows × {d} features, float16 ({rows.nbytes / 1e9:.1f} GB), {os.cpu_count()} cores")
    print(f"  reading the bytes       {bound:7.3f} s")
    print(f"  search                  {search:7.3f} s   {search / bound:5.1f} of that")
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    share = 1 if 3 * 4 * n * d < free else 10
    some = rows[: n // share].astype(np.float32)
    theirs = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(some)
    seconds = best(lambda: theirs.kneighbors(query[None]), 3) * share
    print(
        f"  scikit-learn, float32   {seconds:7.3f} s   {seconds / search:5.1f} times the search"
        + (f" (a tenth of the rows, times {share})" if share > 1 else "")
    )
    distance, position = theirs.kneighbors(query[None])
    ours = nearest(query, rows[: len(some)], K)
    if not np.allclose(np.sort(1 - distance[0]), np.sort(ours.similarity), atol=1e-5):
        raise SystemExit(f"different rows were found: {position[0]} and {ours.position}")
    whole_command(arguments.stored, d)


if __name__ == "__main__":
    main()
