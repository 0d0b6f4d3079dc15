"""What five ways of training gain and cost on the same photographs: accuracy on test, against seconds and images read.

    apt install tuxpaint-stamps-default dataset-fashion-mnist
    python -m bench.methods [--base MobileNetV2|VGG16] [--data stamps|clothes] [--seeds 3]

From scratch (with augmentation on the fly), frozen, frozen with four cached views, fine-tuned from the cache (the last block, without
views and with them), and end to end (the same block trained, augmentation on the fly). Weights are the packaged ones. For each, over
seeds of the split and of the heads: the mean accuracy on test, how it differs from the frozen base, the standard error of that difference,
the seconds of training and of the extraction that it needs (of what a fine-tuned head begins with, too), and the images that were decoded
in training. Seconds are those of this machine; what counts is how they stand to each other.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import fashion
from bench.stamps import write_stamps
from pipeline.commands.report import report_data
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph
from stages.report.board import leaderboard
from stages.report.methods import KINDS, describe_methods

CLOTHES = 70  # of each kind
BASES = {
    "MobileNetV2": ("block_15_add", "out_relu", 160),
    "VGG16": ("block4_pool", "block5_pool", 150),
}
METHODS = (
    KINDS["cnn"],
    "frozen",
    "frozen + views",
    KINDS["finetune"],
    f"{KINDS['finetune']}, views",
    KINDS["end_to_end"],
)
CONFIG = """
[data]
root = "photos"
seed = {seed}
validation = 0.14
test = 0.29
[views]
seed = {seed}
[base]
name = "{base}"
layers = ["{before}", "{last}"]
input_size = {size}
weights = "packaged"
views = 4
"""
HEAD = """
[heads.{name}]
kind = "{kind}"
seed = {seed}
"""
DENSE = 'pool = "avg"\nlearning_rate = 1e-3\nepochs = 60\npatience = 8\n'
TUNE = "from = 1\nlearning_rate = 1e-5\nepochs = 20\npatience = 4\n"
# Each with its method; a fine-tuned one begins with one that stands before it.
HEADS = {
    "scratch": (METHODS[0], "cnn", "views = true\nepochs = 40\npatience = 8\n"),
    "frozen": (METHODS[1], "dense", DENSE),
    "viewed": (METHODS[2], "dense", DENSE + "views = true\n"),
    "tuned": (METHODS[3], "finetune", TUNE + 'head = "frozen"\n'),
    "tuned-viewed": (METHODS[4], "finetune", TUNE + 'head = "viewed"\nviews = true\n'),
    "whole": (METHODS[5], "end_to_end", TUNE.replace("1e-5", "1e-4") + 'pool = "avg"\nviews = true\n'),
}


def measured(folder: Path, base: str, seed: int) -> dict[str, tuple[float, float, int]]:
    """For each method, accuracy on test, seconds, and images read. They share one cache."""
    before, last, size = BASES[base]
    config = folder / "bench.toml"
    tables = [HEAD.format(name=name, kind=kind, seed=seed) + rest for name, (_, kind, rest) in HEADS.items()]
    config.write_text(CONFIG.format(seed=seed, base=base, before=before, last=last, size=size) + "".join(tables))
    for step in ("features", "heads"):
        subprocess.run(
            [sys.executable, "-m", "pipeline", step, "--config", config], check=True, stdout=subprocess.DEVNULL
        )
    data = report_data(load_graph(load_config(config)))
    found = {}
    for name, (method, *_) in HEADS.items():
        # The report's table has the best head of each method: here one of this, with what it needs, beside one of another.
        needed = json.loads((config.parent / "artifacts" / "heads" / name / "result.json").read_text()).get("needs", {})
        shown = {name, *needed, "frozen" if name == "scratch" else "scratch"}
        board = leaderboard([head for head in data.heads if head.name in shown], data.metric, {})
        (row,) = [each for each in describe_methods(board, data.bases, data.metric, None) if each.best.name == name]
        assert row.extraction is not None
        accuracy = row.best.result["metrics"]["test"]["accuracy"]
        found[method] = accuracy, row.seconds + row.extraction, row.images
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", choices=list(BASES), default="MobileNetV2")
    parser.add_argument("--data", choices=["stamps", "clothes"], default="stamps")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.data == "stamps":
            images = write_stamps(folder / "photos")
        else:
            fashion.write_some(folder / "photos", CLOTHES)
            images = CLOTHES * len(fashion.NAMES)
        print(
            f"{arguments.data}: {images} images, {arguments.base} at {BASES[arguments.base][2]}, {arguments.seeds} seeds"
        )
        print(f"{'method':34} {'accuracy':>9} {'difference':>11} {'± error':>8} {'seconds':>8} {'images read':>12}")
        runs = [measured(folder, arguments.base, seed) for seed in range(arguments.seeds)]
    for method in METHODS:
        each = [run[method] for run in runs]
        differences = [run[method][0] - run["frozen"][0] for run in runs]
        error = statistics.stdev(differences) / len(runs) ** 0.5 if len(runs) > 1 else float("nan")
        accuracy, seconds, read = (statistics.mean(column) for column in zip(*each, strict=True))
        told = f"{accuracy:9.3f} {statistics.mean(differences):+11.3f} {error:8.3f} {seconds:8.0f} {read:12,.0f}"
        print(f"{method:34} {told}", flush=True)


if __name__ == "__main__":
    main()
