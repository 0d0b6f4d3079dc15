"""Features that memory does not hold: a head on rows streamed from the shards, against the same head with all rows in memory.

    python -m bench.stream [--rows 100000] [--memory 1000000000] [--epochs 3] [--by-path]

Made-up features (4, 4, 512) in shards of 500 rows; one hidden layer of 64 units on all 8,192. Streamed comes first, so that the
peak of the process is that of streaming; with ``--by-path`` each shard holds one class, as shards did that were written in the
order of paths, where they now are in that of digests; the bench prints the ratio of the speeds and of the final validation losses.
"""

import argparse
import os
import resource
import tempfile
from pathlib import Path
from time import perf_counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bench.sweep import write_features
from stages.heads.dataset import Dataset
from stages.training.member import Fitted, Member
from stages.training.program import program
from stages.training.spec import DenseSpec
from stages.training.together import train_all


def peak() -> float:
    """Of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def trained(data: Dataset, epochs: int) -> tuple[float, Fitted]:
    """Seconds, with reading and compiling, and the head."""
    program.cache_clear()
    spec = DenseSpec(kind="dense", units=[64], dropout=0.0, optimizer="adam", learning_rate=1e-4, epochs=epochs)
    start = perf_counter()
    source = data.source("flatten", ("last",))
    (fitted,) = train_all([Member(spec, data.rows("train"), data.rows("validation"))], source, 2)
    return perf_counter() - start, fitted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--memory", type=int, default=1_000_000_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--by-path", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        whole = write_features(Path(name) / "store", arguments.rows, apart=0.02, by_path=arguments.by_path)
        small = Dataset(whole.manifest, whole.stores, arguments.memory)
        assert not small.fits("flatten")
        import keras  # counts as start-up

        before = peak()
        streamed, one = trained(small, arguments.epochs)
        print(
            f"keras {keras.__version__}, {arguments.rows:,} rows, {arguments.epochs} epochs, limit {arguments.memory / 1e9:.1f} GB"
        )
        print(
            f"streamed: {streamed:6.1f} s, validation loss {one.best_loss:.4f}, peak {before:.2f} GB → {peak():.2f} GB"
        )
        in_memory, other = trained(Dataset(whole.manifest, whole.stores, 10**15), arguments.epochs)
        print(f"in memory: {in_memory:5.1f} s, validation loss {other.best_loss:.4f}, peak {peak():.2f} GB")
        print(
            f"speed {in_memory / streamed:.2f}, validation loss {one.best_loss / other.best_loss:.4f} of that in memory"
        )


if __name__ == "__main__":
    main()
