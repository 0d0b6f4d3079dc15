"""How near is stage one to the bare forward pass, and how far from the tutorials' loop? One run, interleaved, on the same JPEGs.

    python -m bench.extract [--images 320] [--rounds 5] [--name VGG16] [--size 150] [--only int8] [--json FILE]

Contestants: the tutorials' loop (directory iterator, ``predict`` on batches of 20, ``np.zeros`` and ``np.savez``);
``image_dataset_from_directory`` with ``predict`` on batches of 32; ours, files to shards, in each precision and engine that
this machine has, and with three layers in one pass. Beside each of ours stands its ceiling: the bare forward pass of the same
model on batches that are in memory, by Keras's ``predict_on_batch`` on preprocessed float32 or by our own engine on uint8,
whichever is faster. A round runs everyone once; ratios are taken within each round, and their medians are printed.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from bench.photos import write_photos
from cache import FeatureStore
from cache.errors import BaseError
from cache.files import digest_json
from cache.skipped import SkippedImages
from stages.bases import backend
from stages.bases.frozen import FrozenBase
from stages.bases.model import build, preprocessing
from stages.bases.quantise import QuantisedBase
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.data.policy import EXACT
from stages.data.scan import scan
from stages.data.spec import DataSpec
from stages.data.views import View
from stages.extract.decoding import load
from stages.extract.features import LayerStore, Stage, extract
from stages.extract.precision import calibration_images
from stages.extract.spec import CacheSpec

THREE_LAYERS = ["block3_pool", "block4_pool", "block5_pool"]  # of VGG16
KINDS = [
    ("float32", "keras", "exact"),
    ("bfloat16", "keras", "exact"),
    ("bfloat16", "keras", "scaled"),
    ("float32", "openvino", "exact"),
    ("bfloat16", "openvino", "exact"),
    ("int8", "openvino", "exact"),
    ("int8", "openvino", "scaled"),
]


CEILING_IMAGES = 160
# Few hundred images in shards of the default size would all be written after the last batch; in a long run most are written
# while others are computed.
SHARD_IMAGES = 64


@dataclass
class Ours:
    """Stage one with one precision, engine and decoder; files to shards, and its ceiling."""

    base: FrozenBase
    work: Path
    data: DataSpec
    plain: Any  # a Keras model on preprocessed images, or None
    view: View | None = None  # of each image, in its place

    @property
    def name(self) -> str:
        if len(self.base.layers) > 1:
            return f"ours {self.base.precision}, {len(self.base.layers)} layers"
        words = ["ours", self.base.precision, *([self.base.spec.engine] if self.base.spec.engine != "keras" else [])]
        return " ".join([*words, *(["scaled JPEG"] if self.base.spec.decode == "scaled" else [])])

    @property
    def computes(self) -> tuple[str, str]:
        """What its ceiling depends on."""
        return self.base.precision, self.base.spec.engine

    def run(self) -> None:
        folder = self.work / "ours"
        shutil.rmtree(folder / "features", ignore_errors=True)
        manifest = scan(self.data, folder, {})  # remembered from the round before, as `make` remembers it
        layers = {}
        for layer in self.base.layers:
            identity = self.base.spec.identity("bench", "float16", layer, self.view)
            store = FeatureStore(folder / "features" / layer)
            layers[layer] = LayerStore(store, digest_json(identity), identity)
        stage = Stage(
            self.data,
            manifest,
            layers,
            SkippedImages(folder / "skipped.json", EXACT),
            CacheSpec(dir=folder, shard_images=SHARD_IMAGES),
            view=self.view,
        )
        with stage.writing():
            done = extract(stage, self.base, stage.wanted(), {})
        assert done.extracted == len(manifest.by_digest)

    def ceiling(self, pixels: np.ndarray) -> float:
        """Images a second of the faster of the two bare passes."""
        size = self.base.batch_size
        if len(pixels) < size:  # again and again, up to one batch
            pixels = np.resize(pixels, (size, *pixels.shape[1:]))
        batches = [pixels[i : i + size] for i in range(0, len(pixels) // size * size, size)]
        rates = [rate(lambda: [self.base._engine(batch) for batch in batches], len(batches) * size)]
        if self.plain is not None:
            prepared = [preprocessing(self.base.spec)(batch.astype(np.float32)) for batch in batches]
            rates.append(rate(lambda: [self.plain.predict_on_batch(b) for b in prepared], len(batches) * size))
        return max(rates)


def shares(ours: Ours, pixels: np.ndarray, images: int, rounds: int) -> tuple[float, float]:
    """Images a second from files to shards, and as a share of the bare forward pass, taken within each round; medians."""
    rates, found = [], []
    for round_ in range(rounds + 1):  # the first compiles and warms up, and is not counted
        here, bare = rate(ours.run, images), ours.ceiling(pixels)
        if round_:
            rates.append(here)
            found.append(here / bare)
    return statistics.median(rates), statistics.median(found)


def rate(function: Callable[[], object], images: int) -> float:
    start = perf_counter()
    function()
    return images / (perf_counter() - start)


def tutorial(model: Any, folder: Path, count: int, size: int, out: Path) -> None:
    """The loop of F. Chollet's book, section 5.3, as hundreds of notebooks have it."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    with contextlib.redirect_stdout(io.StringIO()):
        generator = ImageDataGenerator(rescale=1.0 / 255).flow_from_directory(
            folder, target_size=(size, size), batch_size=20, class_mode="binary"
        )
    features = np.zeros((count, *model.output_shape[1:]))
    labels = np.zeros(count)
    for i, (inputs, answers) in enumerate(generator):
        found = model.predict(inputs, verbose=0)
        features[i * 20 : i * 20 + len(found)] = found
        labels[i * 20 : i * 20 + len(found)] = answers
        if (i + 1) * 20 >= count:
            break
    np.savez(out / "tutorial.npz", features, labels)


def dataset(model: Any, spec: BaseSpec, folder: Path, size: int, out: Path) -> None:
    """What Keras's own guide does today: a tf.data pipeline into one ``predict``."""
    import tensorflow as tf

    with contextlib.redirect_stdout(io.StringIO()):
        images = keras.utils.image_dataset_from_directory(folder, image_size=(size, size), batch_size=32, shuffle=False)
    prepared = images.map(lambda x, y: preprocessing(spec)(x), num_parallel_calls=tf.data.AUTOTUNE)
    np.savez(out / "dataset.npz", model.predict(prepared.prefetch(tf.data.AUTOTUNE), verbose=0))


def contestants(arguments: argparse.Namespace, work: Path, data: DataSpec) -> list[Ours]:
    found: list[Ours] = []
    plain: dict[str, Any] = {}
    for precision, engine, decode in KINDS:
        if arguments.only and precision != arguments.only:
            continue
        if precision == "bfloat16" and backend.precision_for("auto", engine) != "bfloat16":
            print(f"left out: {precision} ({engine}): this machine has no units for it")
            continue
        spec = BaseSpec.model_validate(
            {
                "name": arguments.name, "input_size": arguments.size, "weights": arguments.weights, "precision": precision,
                "engine": engine, "decode": decode, "batch_size": arguments.batch_size, "calibration_images": 64,
            }
        )  # fmt: skip
        weights = Weights(spec, work / "weights")
        try:
            if precision == "int8":
                base = QuantisedBase(spec, weights)
                base.make(calibration_images(scan(data, work / "scan", {}), data.root, spec), print)
            if engine == "keras" and precision not in plain:
                plain[precision] = build(spec, weights, precision)
            found.append(
                Ours(FrozenBase(spec, weights), work, data, plain.get(precision) if engine == "keras" else None)
            )
        except BaseError as error:
            print(f"left out: {precision} ({engine}): {error}")
    if arguments.name == "VGG16" and found:
        spec = found[0].base.spec.model_copy(update={"layers": THREE_LAYERS})
        found.insert(1, Ours(FrozenBase(spec, Weights(spec, work / "weights")), work, data, None))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="VGG16")
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--weights", default="random")
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--only", choices=sorted({kind[0] for kind in KINDS}), help="of ours, this precision alone")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_photos(work / "photos", arguments.images)
        table = run(arguments, work)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n")


def run(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    photos, count, size = work / "photos", arguments.images, arguments.size
    data = DataSpec(root=photos, layout="classes")
    ours = contestants(arguments, work, data)
    spec = ours[0].base.spec
    model = build(spec, Weights(spec, work / "weights"), "float32")
    records = list(scan(data, work / "scan", {}).by_digest.values())
    pixels = np.stack([load(photos / record.path, record.sha256, spec) for record in records])
    runs: dict[str, Callable[[], object]] = {
        "the tutorials' loop": lambda: tutorial(model, photos, count, size, work),
        "image_dataset_from_directory": lambda: dataset(model, spec, photos, size, work),
    }
    runs |= {each.name: each.run for each in ours}
    rates: dict[str, list[float]] = {what: [] for what in runs}
    ceilings: dict[str, list[float]] = {each.name: [] for each in ours}
    for round_ in range(arguments.rounds + 1):  # the first compiles and warms up, and is not counted
        for what, function in runs.items():
            found = rate(function, count)
            if round_:
                rates[what].append(found)
        alone = [each for each in ours if each.base.spec.decode == "exact" and len(each.base.layers) == 1]
        bare = {each.computes: each.ceiling(pixels[:CEILING_IMAGES]) for each in alone}
        for each in ours:
            if round_:
                ceilings[each.name].append(bare[each.computes])
    decode = rate(lambda: [load(photos / r.path, r.sha256, spec) for r in records], count)
    return printed(arguments, rates, ceilings, decode)


def printed(
    arguments: argparse.Namespace, rates: dict[str, list[float]], ceilings: dict[str, list[float]], decode: float
) -> dict[str, Any]:
    first = next(iter(rates))
    print(
        f"{arguments.name} at {arguments.size}×{arguments.size}, {arguments.images} JPEG files of 500×375, "
        f"{arguments.rounds} rounds, {os.cpu_count()} cores; medians of ratios within a round"
    )
    print(f"decoding alone, one thread: {decode:.0f} images/s")
    print(f"{'':32} {'images/s':>9} {'÷ tutorial':>11} {'ceiling':>9} {'÷ ceiling':>10}")
    table: dict[str, Any] = {"arguments": {k: str(v) for k, v in vars(arguments).items()}, "decode": decode, "rows": {}}
    for what, found in rates.items():
        row = {
            "images_per_s": statistics.median(found),
            "to_tutorial": statistics.median(a / b for a, b in zip(found, rates[first], strict=True)),
        }
        words = f"{what:32} {row['images_per_s']:9.1f} {row['to_tutorial']:10.2f}x"
        if what in ceilings:
            row["ceiling"] = statistics.median(ceilings[what])
            row["to_ceiling"] = statistics.median(a / b for a, b in zip(found, ceilings[what], strict=True))
            words += f" {row['ceiling']:9.1f} {row['to_ceiling']:10.3f}"
        print(words)
        table["rows"][what] = row
    return table


if __name__ == "__main__":
    main()
