"""Fine-tuning block5 of VGG16 from the cache against ``keras.Model.fit`` end to end, with the same trainable layers.

    python -m bench.finetune [--rounds 3] [--images 160] [--size 150] [--json FILE]

Both train the same dense256 and the same three convolutions in batches of 20, and score a quarter as many images after each epoch. An
epoch of one is followed by an epoch of the other; the first of each, which compiles, does not count. What is in memory beforehand are
decoded images on Keras's side, so that it pays nothing for reading files, and activations on ours; we pay for our checkpoints.
Keras's model is compiled with ``jit_compile=False``, which on a CPU is faster than what it does by itself.

The bound is arithmetic: multiplications of convolutions and dense layers, forward, and backward for the layers that are trained. The
gradient for the input of the first of these is needed by nobody.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from stages.bases.model import build
from stages.bases.parts import Tail, found_tail, part_between
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.heads.batches import FeatureBatches
from stages.heads.checkpoint import Checkpoint
from stages.heads.dense import DenseHead
from stages.heads.epochs import train
from stages.heads.keras_fit import optimizer
from stages.heads.tuned import finetuned, images_of, prepared
from stages.heads.tuned_spec import FinetuneSpec
from stages.progress import SILENT
from stages.training.source import InMemory
from stages.training.spec import DenseSpec

SPEC = {"kind": "finetune", "head": "dense256", "learning_rate": 1e-5}


def work(layers: Sequence[Any]) -> list[int]:
    """Multiplications for one image, forward, of each layer."""
    found = []
    for layer in layers:
        kernel = getattr(layer, "kernel", None)
        places = prod(layer.output.shape[1:-1]) if kernel is not None and len(kernel.shape) == 4 else 1
        found.append(places * prod(kernel.shape) if kernel is not None else 0)
    return found


def bound(base: Any, tail: Tail, dense: int, train: int, held: int) -> float:
    """How many times as much Keras has to multiply in an epoch."""
    names = [layer.name for layer in base.layers]
    behind = names.index(tail.before) + 1
    each = work(base.layers)
    whole, part = sum(each) + dense, sum(each[behind:]) + dense
    back = 2 * part - next(value for value in each[behind:] if value)
    return (train * (whole + back) + held * whole) / (train * (part + back) + held * part)


class Turns:
    """A ``Progress`` that has an epoch of Keras run after each of ours, and notes the seconds of both."""

    def __init__(self, theirs: Any) -> None:
        self.theirs, self.seconds, self.start = theirs, [], 0.0  # type: ignore[var-annotated]

    def say(self, line: str) -> None:
        print(line, flush=True)

    def task(self, what: str, total: int, unit: str = "images") -> Any:
        self.start = perf_counter()
        return SILENT.task(what, total)

    def show(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        ours, start = perf_counter() - self.start, perf_counter()
        self.theirs()
        self.seconds.append((ours, perf_counter() - start))
        print(f"ours {ours:.1f} s, Keras {self.seconds[-1][1]:.1f} s an epoch", flush=True)
        self.start = perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, held = arguments.images, arguments.images // 4
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (rows + held, arguments.size, arguments.size, 3), np.uint8)
    y = rng.integers(0, 2, len(images))
    spec = BaseSpec.model_validate({"weights": "random", "input_size": arguments.size})
    weights = Weights(spec, Path("nowhere"))
    base = build(spec, weights, "float32")
    tail = found_tail(base, spec, "block5_conv1", "block5_pool")
    width = prod(base.output_shape[1:])
    ratio = bound(base, tail, 256 * width, rows, held)

    def head() -> DenseHead:
        return DenseHead(DenseSpec(kind="dense"), ["a", "b"]).begin(width)

    tune = FinetuneSpec.model_validate(SPEC | {"from": "block5_conv1", "epochs": arguments.rounds + 1})
    ours = finetuned(base, tail, head())
    another = build(spec, weights, "float32")
    pixels = images_of(spec.input_size)
    # Dropout of the head is active, so this is not ``from_pixels``, which is for a head that is in use.
    features = part_between(another, None, tail.before)(prepared(pixels, spec), training=False)
    theirs = keras.Model(pixels, finetuned(another, tail, head())(features))
    theirs.compile(optimizer(tune), "binary_crossentropy", metrics=["accuracy"], jit_compile=False)
    first, last = images[:rows], images[rows:]
    target = y[:, None].astype(np.float32)

    def keras_epoch() -> None:
        theirs.fit(first, target[:rows], validation_data=(last, target[rows:]), batch_size=20, verbose=0)

    before = part_between(base, None, tail.before)
    activations = [
        np.array(before(images[i : i + 32].astype(np.float32) - 120.0, training=False))
        for i in range(0, len(images), 32)
    ]
    source = InMemory(np.concatenate(activations).reshape(len(images), -1), y)
    batches = FeatureBatches(source, tail.shape, tune, np.arange(rows), np.arange(rows, len(y)), 2)
    same, others = (sum(prod(each.shape) for each in model.trainable_variables) for model in (ours, theirs))
    assert same == others
    print(
        f"VGG16 at {arguments.size}, {rows} training and {held} validation images, {same:,} trained weights, {os.cpu_count()} cores"
    )
    turns = Turns(keras_epoch)
    with tempfile.TemporaryDirectory() as folder:
        train(ours, tune, batches, Checkpoint(Path(folder) / "checkpoint.npz", "key"), turns, "ours")
    timed = turns.seconds[1:]
    found = [b / a for a, b in timed]
    table = {
        "ours_s": statistics.median(a for a, _ in timed),
        "keras_s": statistics.median(b for _, b in timed),
        "ratio": statistics.median(found),
        "bound": ratio,
    }
    print(
        f"seconds an epoch: {table['ours_s']:.1f} from the cache, {table['keras_s']:.1f} end to end: {table['ratio']:.1f} times "
        f"({min(found):.1f} to {max(found):.1f}); by arithmetic {ratio:.1f} times"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
