"""Does memory grow with the number of images? Peak resident memory of `headstart features` on few and on many, in one run.

    python -m bench.memory [--few 1000] [--many 50000]

Both runs are processes of their own, from an empty cache, with a small base (MobileNetV3Small at 32×32, random weights) so that
what is measured is the pipeline and not the network. Prints the ratio, and what a process that only imports and builds the base takes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
CONFIG = """
[data]
root = "photos"
[base]
name = "MobileNetV3Small"
input_size = 32
weights = "random"
[heads.ridge]
kind = "sklearn"
estimator = "RidgeClassifier"
"""


def write_images(folder: Path, count: int) -> None:
    """Small JPEG files, all different, in two classes."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "ab"[i % 2] / f"{i:06d}.jpg")


def peak(folder: Path, *command: str) -> float:
    """Peak resident memory of a command in MB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--many", type=int, default=50_000)
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for count in (arguments.few, arguments.many):
            project = Path(name) / str(count)
            write_images(project / "photos", count)
            (project / "headstart.toml").write_text(CONFIG)
            found[count] = peak(project, "-m", "pipeline", "features")
        build = (
            "from pathlib import Path; from pipeline.config.load import load_config; from stages.bases.frozen import FrozenBase;"
            "from stages.bases.weights import Weights; spec = load_config(Path('headstart.toml')).bases['base'];"
            "base = FrozenBase(spec, Weights(spec, Path('weights')));"
            "import numpy; base(numpy.zeros((32, 32, 32, 3), 'uint8'))"
        )
        idle = peak(Path(name) / str(arguments.few), "-c", build)
    print(f"the base, built and run once: {idle:,.0f} MB")
    for count, megabytes in found.items():
        print(f"{count:,} images: {megabytes:,.0f} MB at the peak")
    print(f"ratio: {found[arguments.many] / found[arguments.few]:.3f}")


if __name__ == "__main__":
    main()
