"""Kill stage one at random moments, again and again, and see what is left.

    python -m bench.faults [--kills 50] [--seed 0]

Each kill is a SIGKILL to a real extraction at a random moment of it, after which another takes over. At the end the rows are
compared with those of a run that was left alone, and the images that went through the base more than once are counted: no more
than a shard's worth for each kill.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from cache import FeatureStore

ROOT = Path(__file__).parents[1]
SHARD = 32
BATCH = 8
CONFIG = f"""
[data]
root = "photos"
[base]
input_size = 32
weights = "random"
precision = "float32"
batch_size = {BATCH}
[cache]
shard_images = {SHARD}
[heads.ridge]
kind = "sklearn"
estimator = "RidgeClassifier"
"""


def write_project(folder: Path, images: int) -> Path:
    rng = np.random.default_rng(0)
    for i in range(images):
        path = folder / "photos" / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    (folder / "headstart.toml").write_text(CONFIG)
    return folder


def start(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, ROOT / "tests" / "counting.py", folder / "headstart.toml", log]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def store_of(folder: Path) -> FeatureStore:
    return FeatureStore(next((folder / "artifacts" / "features").iterdir()))


def kill_once(folder: Path, log: Path, delay: float) -> bool:
    """Whether the run was killed before it had ended; the moment is counted from its first batch."""
    before = log.stat().st_size if log.exists() else 0
    process = start(folder, log)
    while process.poll() is None and (log.stat().st_size if log.exists() else 0) == before:
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    return process.wait() < 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    images = arguments.kills * SHARD * 4  # enough that no run comes to its end before the last kill
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        killed, log = write_project(Path(name) / "killed", images), Path(name) / "log"
        kills = 0
        for i in range(arguments.kills):
            kills += kill_once(killed, log, rng.uniform(0.0, 0.35))
            store = store_of(killed)
            wrong = store.verify()
            print(f"kill {i + 1}: {len(store):,} of {images:,} rows, {len(wrong)} damaged shards", flush=True)
            assert not wrong, wrong
        assert start(killed, log).wait() == 0
        through = sum(map(int, log.read_text().split()))
        whole = Path(name) / "whole"
        whole.mkdir()
        shutil.copytree(killed / "photos", whole / "photos")
        shutil.copy(killed / "headstart.toml", whole)
        assert start(whole, Path(name) / "other.log").wait() == 0
        found, expected = store_of(killed), store_of(whole)
        assert sorted(found.digests()) == sorted(expected.digests())
        a, b = found.read(sorted(found.digests())), expected.read(sorted(found.digests()))
        error = float((np.linalg.norm(a - b, axis=-1) / np.linalg.norm(b, axis=-1)).max())
        left = list((killed / "artifacts").rglob(".tmp-*"))
    print(f"{kills} kills of {images:,} images in shards of {SHARD}")
    print(f"rows: {len(found):,} as in the run that was left alone, largest relative difference {error:.1e}")
    print(
        f"through the base: {through:,}, {(through - images) / max(kills, 1):.1f} twice for each kill (at most {SHARD})"
    )
    print(f"temporary files left: {len(left)}")
    assert images - BATCH * kills <= through <= images + kills * SHARD and not left and error < 1e-2


if __name__ == "__main__":
    main()
