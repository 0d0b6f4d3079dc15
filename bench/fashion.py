"""How good are the packaged weights of both bases, and are they better than random ones? Fashion-MNIST, written out as JPEG files.

    apt install dataset-fashion-mnist
    python -m bench.fashion [FOLDER]

Writes 200 images a class for training, 50 for validation and 100 for testing, at 150×150 in the layout `splits`, then runs
`headstart features`, `heads` and `report` for the three of them, and prints the test accuracy of each head with its
interval. The images are grey-scale clothes of 28×28 pixels, scaled up.
"""

import argparse
import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SOURCE = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
# Split → file, and which images of each class.
PER_CLASS = {"train": ("train", 0, 200), "validation": ("train", 200, 250), "test": ("t10k", 0, 100)}
CONFIG = """
[data]
root = "photos"

[bases.vgg]
weights = "packaged"

[bases.mobile]
name = "MobileNetV2"
input_size = 160
weights = "packaged"

[bases.random]
weights = "random"

[heads.logreg]
kind = "sklearn"
base = ["vgg", "mobile", "random"]
estimator = "LogisticRegressionCV"     # its strength chosen in train, by five folds
params = { Cs = [0.001, 0.01, 0.1, 1.0], cv = 5, scoring = "accuracy", max_iter = 1000 }

[heads.ridge]
kind = "sklearn"
base = ["vgg", "mobile", "random"]
estimator = "RidgeClassifierCV"
params = { alphas = [1.0, 10.0, 100.0, 1000.0, 10000.0] }

[heads.dense256]
kind = "dense"
base = ["vgg", "mobile", "random"]
units = [256]
learning_rate = 1e-4
epochs = 15
"""


def write_photos(folder: Path) -> None:
    """In the layout ``splits``, as many of each class as ``PER_CLASS`` says."""
    for split, which in PER_CLASS.items():
        _write(folder / split, *which)


def write_some(folder: Path, count: int) -> None:
    """In the layout ``classes``, so many of each class."""
    _write(folder, "train", 0, count)


def _write(folder: Path, prefix: str, first: int, last: int) -> None:
    with gzip.open(SOURCE / f"{prefix}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(SOURCE / f"{prefix}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    for label, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in np.flatnonzero(labels == label)[first:last]:
            large = Image.fromarray(images[i]).resize((150, 150), Image.Resampling.BICUBIC).convert("RGB")
            large.save(folder / name / f"{i}.jpg", quality=95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("artifacts/fashion"), help="where images and results go"
    )
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "photos" / "test").exists():
        write_photos(folder / "photos")
    (folder / "headstart.toml").write_text(CONFIG)
    for step in ("features", "heads", "report"):
        subprocess.run([sys.executable, "-m", "pipeline", step, "--config", folder / "headstart.toml"], check=True)
    print(f"\n{'head':20} {'test accuracy':>14}   95% interval")
    for path in sorted(folder.glob("artifacts/heads/*/result.json")):
        result = json.loads(path.read_text())
        low, high = result["metrics"]["test"]["accuracy_interval"]
        print(f"{result['head']:20} {result['metrics']['test']['accuracy']:14.3f}   {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
