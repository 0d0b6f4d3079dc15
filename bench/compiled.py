"""When does it pay to let XLA compile what trains a stack of heads? The first epoch and a step of the others, compiled and traced alone.

    python -m bench.compiled [--epochs 10]

Dense heads of several sizes on 2,000 made-up rows, in this process, without what was compiled before. The last column is the number of
steps after which compiling has saved what it took, beside the number that ``stages.training.together`` reckons with.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_XLA_FLAGS", "--tf_xla_persistent_cache_directory=")

import numpy as np

from stages.training import together
from stages.training.member import Member
from stages.training.source import InMemory
from stages.training.spec import DenseSpec

ROWS, VALIDATION = 2000, 400
# Features, units, heads in the stack.
SIZES = (
    (512, [], 1),
    (512, [64], 1),
    (512, [64], 8),
    (1280, [256], 1),
    (8192, [], 1),
    (8192, [16], 1),
    (8192, [256], 1),
)


def timed(source: InMemory, units: list[int], heads: int, epochs: int, xla: bool) -> tuple[float, float]:
    """Seconds of the first epoch, and of a step of the others."""
    specs = [
        DenseSpec.model_validate(
            {"kind": "dense", "units": units, "dropout": 0.3, "epochs": epochs, "patience": epochs, "seed": k}
        )
        for k in range(heads)
    ]
    rows = np.arange(ROWS)
    # steps_worth_compiling is looked at once, when a training begins.
    together.SECONDS_TO_COMPILE = 0.0 if xla else float("inf")
    training = together.Training([Member(spec, rows[VALIDATION:], rows[:VALIDATION]) for spec in specs], source, 2)
    times = [time.perf_counter()]
    for epoch in (1, epochs):
        training.advance(epoch)
        times.append(time.perf_counter())
    steps = -(-(ROWS - VALIDATION) // specs[0].batch_size) * (epochs - 1)
    return times[1] - times[0], (times[2] - times[1]) / steps


def reckoned(inputs: int, units: list[int], heads: int) -> float:
    """The steps after which ``stages.training.together`` compiles."""
    spec = DenseSpec.model_validate({"kind": "dense", "units": units})
    return together.steps_worth_compiling(together.stack.Shape.of(spec, inputs, 2), spec.batch_size, heads)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs
    expected = [reckoned(*size) for size in SIZES]
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, ROWS)
    print(f"{'features, units, heads':26} {'first epoch, s':>20} {'a step, ms':>20} {'pays after':>11} {'reckoned':>9}")
    print(f"{'':26} {'XLA':>10} {'traced':>9} {'XLA':>10} {'traced':>9} {'steps':>11} {'steps':>9}")
    timed(InMemory(rng.normal(0, 1, (ROWS, 16)).astype(np.float16), y), [8], 1, 2, True)  # what starts once
    for (inputs, units, heads), steps in zip(SIZES, expected, strict=True):
        source = InMemory(rng.normal(0, 1, (ROWS, inputs)).astype(np.float16), y)
        (first, step), (traced_first, traced_step) = (timed(source, units, heads, epochs, xla) for xla in (True, False))
        pays = (first - traced_first) / (traced_step - step) if traced_step > step else float("inf")
        name = f"{inputs}, {units}, {heads}"
        print(
            f"{name:26} {first:10.2f} {traced_first:9.2f} {1e3 * step:10.2f} {1e3 * traced_step:9.2f} {pays:11.0f} {steps:9.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
