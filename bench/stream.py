"""Features that memory does not hold: a head on rows streamed from the shards, against the same head with all rows in memory.

    python -m bench.stream [--rows 100000] [--memory 1000000000] [--epochs 3] [--seeds 3]

Made-up features (4, 4, 512) of one folder for each class in shards of 500 rows, in the order of digests and in that of paths, class
after class, as earlier versions wrote them; one hidden layer of 64 units on all 8,192. Streamed comes first, so that the peak of the
process is that of streaming; for both orders the bench prints the ratio of the speeds and of the best validation losses.

Losses are means over heads that differ in their seed alone, and are trained together: from one seed to another they differ by several
per cent, which is more than what is looked for. Blocks of many shards hold both classes in any order; shards of one class each cost most
where a block holds few of them, as with --rows 15000 --memory 60000000.
"""

import argparse
import os
import resource
import tempfile
from pathlib import Path
from statistics import fmean
from time import perf_counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bench.sweep import write_features
from stages.heads.dataset import Dataset
from stages.training.member import Member
from stages.training.program import program
from stages.training.spec import DenseSpec
from stages.training.together import train_all


def peak() -> float:
    """Of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def trained(data: Dataset, epochs: int, seeds: int) -> tuple[float, list[float]]:
    """Seconds, with reading and compiling, and the best validation loss of a head of each seed."""
    program.cache_clear()
    spec = DenseSpec(kind="dense", units=[64], dropout=0.0, optimizer="adam", learning_rate=1e-4, epochs=epochs)
    specs = [spec.model_copy(update={"seed": seed}) for seed in range(seeds)]
    start = perf_counter()
    source = data.source("flatten", ("last",))
    found = train_all([Member(each, data.rows("train"), data.rows("validation")) for each in specs], source, 2)
    return perf_counter() - start, [min(row["val_loss"] for row in fitted.history) for fitted in found]


def in_words(losses: list[float]) -> str:
    return f"validation loss {fmean(losses):.4f} ({min(losses):.4f} to {max(losses):.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--memory", type=int, default=1_000_000_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    limit = f"limit {arguments.memory / 1e9:.2f} GB"
    with tempfile.TemporaryDirectory() as name:
        stores = {
            order: write_features(Path(name) / order, arguments.rows, apart=0.02, by_path=order == "paths")
            for order in ("digests", "paths")
        }
        import keras  # counts as start-up

        print(
            f"keras {keras.__version__}, {arguments.rows:,} rows, {arguments.epochs} epochs, {arguments.seeds} seeds, {limit}"
        )
        streamed: dict[str, tuple[float, list[float]]] = {}
        for order, whole in stores.items():
            small = Dataset(whole.manifest, whole.stores, arguments.memory)
            assert not small.fits("flatten")
            before = peak()
            seconds, one = streamed[order] = trained(small, arguments.epochs, arguments.seeds)
            print(f"by {order}, streamed: {seconds:6.1f} s, {in_words(one)}, peak {before:.2f} GB → {peak():.2f} GB")
        for order, whole in stores.items():
            large = Dataset(whole.manifest, whole.stores, 10**15)
            seconds, other = trained(large, arguments.epochs, arguments.seeds)
            print(f"by {order}, in memory: {seconds:5.1f} s, {in_words(other)}, peak {peak():.2f} GB")
            ratio = fmean(streamed[order][1]) / fmean(other)
            print(
                f"by {order}: speed {seconds / streamed[order][0]:.2f}, validation loss {ratio:.4f} of that in memory"
            )


if __name__ == "__main__":
    main()
