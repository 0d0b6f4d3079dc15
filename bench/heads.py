"""Heads trained together against plain ``keras.Model.fit`` one after another, and wide heads against the memory's bandwidth.

    python -m bench.heads [--rounds 3] [--rows 2000] [--epochs 30] [--alone 3] [--json FILE]

Both sides train on the same features, in batches of 20, with validation and its scores after every epoch, and pay for
building and compiling. Of each group ``--alone`` heads are trained by Keras, and their time is multiplied up to the group.
A round runs everyone once; ratios are taken within each round, and their medians are printed.

The bound of a wide head: each step must read its weights once forward, and read and write weights and slots of the optimizer
once to update them; the time for that at the copying bandwidth that this machine shows in the same round.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from stages.heads.dense import build_core
from stages.heads.keras_fit import loss, optimizer
from stages.training.member import Member
from stages.training.program import program
from stages.training.source import InMemory
from stages.training.spec import DenseSpec
from stages.training.stack import Shape
from stages.training.together import train_all

GROUPS = [
    ("64 linear heads, 512 features", 64, 512, []),
    ("32 heads with 64 hidden units, 512 features", 32, 512, [64]),
    ("8 × dense256, 8,192 features", 8, 8192, [256]),
    ("one dense256, 8,192 features", 1, 8192, [256]),
]
VALIDATION = 500


def features(rows: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) of two classes that overlap, zero for the most part, as behind a ReLU; and labels."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows + VALIDATION)
    centres = rng.normal(0, 3 / np.sqrt(inputs), (2, inputs))
    return np.maximum(centres[y] + rng.normal(-0.5, 1, (len(y), inputs)), 0).astype(np.float32), y


def plain(specs: list[DenseSpec], X: np.ndarray, y: np.ndarray, rows: int) -> float:
    """The loop that people write."""
    targets = y.astype(np.float32)[:, None]
    for spec in specs:
        keras.utils.set_random_seed(spec.seed)
        model = build_core(spec, X.shape[1], 2)
        model.compile(optimizer=optimizer(spec), loss=loss(spec, single=True), metrics=["accuracy"])
        validation = (X[rows:], targets[rows:])
        history = model.fit(
            X[:rows], targets[:rows], validation_data=validation, epochs=spec.epochs, batch_size=20, verbose=0
        )
    return float(history.history["val_loss"][-1])


def ours(specs: list[DenseSpec], X: np.ndarray, y: np.ndarray, rows: int) -> float:
    """Compiled anew each time, as in a new process."""
    program.cache_clear()
    members = [Member(spec, np.arange(rows), np.arange(rows, len(y))) for spec in specs]
    return train_all(members, InMemory(X, y), 2)[-1].history[-1]["val_loss"]


def seconds(function: Callable[[], object]) -> float:
    start = perf_counter()
    function()
    return perf_counter() - start


def bandwidth() -> float:
    """Bytes a second, read and written, of copying an array that no cache holds."""
    source = np.ones(64_000_000, np.float32)
    target = np.empty_like(source)
    np.copyto(target, source)
    return 2 * source.nbytes / min(seconds(lambda: np.copyto(target, source)) for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--alone", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, epochs = arguments.rows, arguments.epochs
    print(
        f"{rows} rows, batches of 20, {epochs} epochs, {arguments.rounds} rounds, {os.cpu_count()} cores; medians of ratios"
    )
    print(f"{'':44} {'Keras, s':>9} {'ours, s':>8} {'Keras ÷ ours':>13} {'of the bound':>13}")
    table = {}
    for name, count, inputs, units in GROUPS:
        X, y = features(rows, inputs)
        specs = [
            DenseSpec(
                kind="dense", units=units, dropout=0.5 if units else 0.0, epochs=epochs, seed=k,
                learning_rate=float(np.geomspace(1e-5, 1e-3, count)[k]),
            )
            for k in range(count)
        ]  # fmt: skip
        few = min(arguments.alone, count)
        slow, fast, shares = [], [], []
        for _ in range(arguments.rounds):
            slow.append(seconds(partial(plain, specs[:few], X, y, rows)) * count / few)
            fast.append(seconds(partial(ours, specs, X, y, rows)))
            size = Shape.of(specs[0], inputs, 2).bytes // 2
            bound = count * epochs * -(-rows // 20) * 5 * size / bandwidth()
            shares.append(bound / fast[-1])
        ratio = statistics.median(a / b for a, b in zip(slow, fast, strict=True))
        share = statistics.median(shares) if inputs > 1000 else None
        table[name] = {
            "keras_s": statistics.median(slow),
            "ours_s": statistics.median(fast),
            "ratio": ratio,
            "of_bound": share,
        }
        of_bound = f"{share:13.2f}" if share else ""
        print(
            f"{name:44} {statistics.median(slow):9.1f} {statistics.median(fast):8.1f} {ratio:12.1f}x {of_bound}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
