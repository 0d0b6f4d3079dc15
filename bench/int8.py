"""What int8 costs: the error of the features, and the accuracy of three heads beside float32's, with intervals.

    apt install dataset-fashion-mnist
    python -m bench.int8 [FOLDER]

The packaged VGG16 extracts the images of `bench.fashion` (2,000 for training, 500 for validation, 1,000 for testing) in float32
and bfloat16 through Keras and in int8 through OpenVINO; each cache is given the same three heads. Prints the relative error of the
features, the heads' test accuracies, and on how many test images int8's head and float32's disagree in who is right, with the
p-value of McNemar's exact test.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from bench.fashion import write_photos
from cache import FeatureStore

BASES = {
    "float32": 'precision = "float32"',
    "bfloat16": 'precision = "bfloat16"',
    "int8": 'engine = "openvino"\nprecision = "int8"',
}
HEADS = """
[heads.logreg]
kind = "sklearn"
estimator = "LogisticRegression"
params = { C = 0.01, max_iter = 1000 }

[heads.ridge]
kind = "sklearn"
estimator = "RidgeClassifierCV"
params = { alphas = [1.0, 10.0, 100.0, 1000.0, 10000.0] }

[heads.dense256]
kind = "dense"
units = [256]
learning_rate = 1e-4
epochs = 15
"""


def configuration() -> str:
    bases = "".join(f'[bases.{name}]\nweights = "packaged"\n{options}\n' for name, options in BASES.items())
    names = json.dumps(list(BASES))
    return f'[data]\nroot = "photos"\n[cache]\ndir = "int8"\n{bases}' + HEADS.replace(
        "\nkind", f"\nbase = {names}\nkind"
    )


def features(folder: Path) -> dict[str, np.ndarray]:
    """Features by precision, rows in order of the images' contents."""
    found = {}
    for path in sorted((folder / "int8" / "features").iterdir()):
        store = FeatureStore(path)
        found[store.spec["precision"]] = store.read(sorted(store.digests()))
    return found


def right(folder: Path, head: str) -> dict[str, bool]:
    """For each test image whether the head is right."""
    with open(folder / "int8" / "heads" / head / "predictions.csv", newline="", encoding="utf-8") as file:
        return {r["path"]: r["true"] == r["predicted"] for r in csv.DictReader(file) if r["split"] == "test"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("artifacts/fashion"), help="where images and results go"
    )
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "photos" / "test").exists():
        write_photos(folder / "photos")
    (folder / "int8.toml").write_text(configuration())
    for step in ("features", "heads"):
        subprocess.run([sys.executable, "-m", "pipeline", step, "--config", folder / "int8.toml"], check=True)
    rows = features(folder)
    exact = rows.pop("float32")
    print()
    for name, found in rows.items():
        errors = np.linalg.norm((found - exact).reshape(len(exact), -1), axis=1)
        errors /= np.linalg.norm(exact.reshape(len(exact), -1), axis=1)
        print(
            f"{name}: relative error of an image's features: median {np.median(errors):.4f}, largest {errors.max():.4f}"
        )
    print(f"\n{'head':12} " + " ".join(f"{name:>22}" for name in BASES) + "   int8 and float32 differ on")
    for head in ("logreg", "ridge", "dense256"):
        words = []
        for name in BASES:
            result = json.loads((folder / "int8" / "heads" / f"{head}@{name}" / "result.json").read_text())
            low, high = result["metrics"]["test"]["accuracy_interval"]
            words.append(f"{result['metrics']['test']['accuracy']:.3f} [{low:.3f}, {high:.3f}]".rjust(22))
        one, other = (right(folder, f"{head}@{name}") for name in ("float32", "int8"))
        gained = sum(other[path] and not one[path] for path in one)
        lost = sum(one[path] and not other[path] for path in one)
        p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        print(f"{head:12} {' '.join(words)}   {lost} lost, {gained} gained of {len(one):,} (p = {p:.2f})")


if __name__ == "__main__":
    main()
