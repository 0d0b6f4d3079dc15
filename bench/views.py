"""Augmented views: what they cost against the bare forward pass, and what they do to the accuracy on photographs.

    apt install tuxpaint-stamps-default dataset-fashion-mnist
    python -m bench.views [--only speed|accuracy] [--seeds 3] [--views 2 4 8] [--images 128] [--rounds 3]

Speed: views of JPEG files of 500×375 a second, from files to shards, over what the same base computes in memory; the median of rounds.
Accuracy: on the test images of two data sets, eight kinds of photographs and ten of clothes (40 training images each), features of the
packaged MobileNetV2 at 160×160; heads without views, and with so many of each recipe. For each, the mean over seeds (of the split and of
the heads), how it differs from the same head without views, and the standard error of that difference over seeds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench import fashion
from bench.extract import CEILING_IMAGES, Ours, shares
from bench.photos import write_photos
from bench.stamps import write_stamps
from stages.bases.frozen import FrozenBase
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.data.scan import scan
from stages.data.spec import DataSpec
from stages.data.views import RECIPES, Recipe, View
from stages.extract.decoding import load

RECIPES_TRIED = ("tutorial", "mild", "crop")
CLOTHES = 70  # of each kind, of which 40 are for training
BASES = {
    "VGG16": {"input_size": 150, "weights": "packaged", "precision": "float32"},
    "MobileNetV2": {"input_size": 224, "weights": "packaged", "precision": "float32"},
}
DATA = """
[data]
root = "{root}"
seed = {seed}
validation = 0.14
test = 0.29
[views]
recipe = "{recipe}"
seed = {seed}
"""
BASE = """
[bases.v{views}]
name = "MobileNetV2"
input_size = 160
weights = "packaged"
views = {views}
"""
HEADS = """
[heads.logreg-{views}]
kind = "sklearn"
estimator = "LogisticRegression"
params = {{ C = 0.01, max_iter = 1000 }}
base = "v{views}"
views = {on}
[heads.dense256-{views}]
kind = "dense"
pool = "avg"
learning_rate = 1e-3
epochs = 30
base = "v{views}"
views = {on}
seed = {seed}
"""


def speed(images: int, rounds: int) -> None:
    """Print views a second, and the share of the bare forward pass, for each base."""
    print(f"{'base':14} {'recipe':10} {'views/s':>9} {'of the bare pass':>17}")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_photos(work / "photos", images)
        data = DataSpec(root=work / "photos", layout="classes")
        for base, table in BASES.items():
            spec = BaseSpec.model_validate({"name": base} | table)
            frozen = FrozenBase(spec, Weights(spec, work / "weights"))
            records = list(scan(data, work / "scan", {}).by_digest.values())
            pixels = np.stack([load(data.root / each.path, each.sha256, spec) for each in records[:CEILING_IMAGES]])
            for recipe in (None, *RECIPES_TRIED):
                view = View(Recipe(**RECIPES[recipe]), 0, 1) if recipe else None
                ours = Ours(frozen, work, data, None, view)
                per_second, share = shares(ours, pixels, len(records), rounds)
                print(f"{base:14} {recipe or 'none':10} {per_second:9.1f} {share:17.2f}", flush=True)


def scores(folder: Path, recipe: str, seed: int, views: list[int]) -> dict[str, float]:
    """Test accuracy of each head, by its name and the number of views."""
    tables = [DATA.format(root="photos", seed=seed, recipe=recipe)]
    tables += [BASE.format(views=n) for n in (0, *views)]
    tables += [HEADS.format(views=n, on=str(bool(n)).lower(), seed=seed) for n in (0, *views)]
    config = folder / "bench.toml"
    config.write_text("".join(tables))
    for step in ("features", "heads"):
        subprocess.run(
            [sys.executable, "-m", "pipeline", step, "--config", config], check=True, stdout=subprocess.DEVNULL
        )
    found = {}
    for path in sorted(folder.glob("artifacts/heads/*/result.json")):
        found[path.parent.name] = json.loads(path.read_text())["metrics"]["test"]["accuracy"]
    return found


def accuracy(seeds: int, views: list[int]) -> None:
    """Print what views do to the accuracy on each data set."""
    with tempfile.TemporaryDirectory() as name:
        for data in ("stamps", "clothes"):
            folder = Path(name) / data
            if data == "stamps":
                images = write_stamps(folder / "photos")
            else:
                fashion.write_some(folder / "photos", CLOTHES)
                images = CLOTHES * len(fashion.NAMES)
            print(
                f"\n{data}: {images} images\n{'head':10} {'recipe':10} {'views':>5} {'accuracy':>9} {'difference':>11} {'± error':>8}"
            )
            by_recipe = {
                recipe: [scores(folder, recipe, seed, views) for seed in range(seeds)] for recipe in RECIPES_TRIED
            }
            for head in ("logreg", "dense256"):
                for recipe, each in by_recipe.items():
                    for n in (0, *views) if recipe == RECIPES_TRIED[0] else views:
                        differences = [one[f"{head}-{n}"] - one[f"{head}-0"] for one in each]
                        mean = statistics.mean(one[f"{head}-{n}"] for one in each)
                        error = statistics.stdev(differences) / seeds**0.5 if seeds > 1 else float("nan")
                        told = f"{mean:9.3f} {statistics.mean(differences):+11.3f} {error:8.3f}"
                        print(f"{head:10} {recipe if n else '':10} {n:5} {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=["speed", "accuracy"])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--views", type=int, nargs="+", default=[2, 4, 8])
    arguments = parser.parse_args()
    if arguments.only != "accuracy":
        speed(arguments.images, arguments.rounds)
    if arguments.only != "speed":
        accuracy(arguments.seeds, arguments.views)


if __name__ == "__main__":
    main()
