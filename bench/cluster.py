"""Two local Dask workers against one process on the same cores: what does the cluster cost?

    python -m bench.cluster [--images 800] [--rounds 3]

Runs `headstart features` on the same JPEG files with VGG16 at 150×150 (random weights), alone and on a `LocalCluster` of two worker
processes with one core each, whose base is loaded already; rounds are interleaved. Prints images per second and the ratio.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.photos import write_photos

ROOT = Path(__file__).parents[1]
CLUSTER = """
import sys
from dask.distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""
CONFIG = """
[data]
root = "photos"
[base]
weights = "random"
[cache]
shard_images = 64
[heads.ridge]
kind = "sklearn"
estimator = "RidgeClassifier"
"""


def seconds(folder: Path, *options: str) -> float:
    """How long extraction took, as headstart says; start-up is not in it."""
    shutil.rmtree(folder / "artifacts", ignore_errors=True)
    command = [sys.executable, "-m", "pipeline", "features", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    found = re.search(r"images extracted in ([\d.]+) s", done.stderr)
    assert found, done.stderr
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(folder / "photos", arguments.images)
        (folder / "headstart.toml").write_text(CONFIG)
        (folder / "cluster.py").write_text(CLUSTER)
        # One core for each worker: two bases that each take all cores only get in each other's way.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
        cluster = subprocess.Popen(
            [sys.executable, folder / "cluster.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        assert cluster.stdout is not None and cluster.stdin is not None
        address = cluster.stdout.readline().strip()
        seconds(folder, "--on", address)  # the workers load the base
        alone, shared = [], []
        for _ in range(arguments.rounds):
            alone.append(seconds(folder))
            shared.append(seconds(folder, "--on", address))
        cluster.stdin.close()
        cluster.wait(60)
    for what, found in (("one process", alone), ("two workers", shared)):
        print(f"{what}: {arguments.images / statistics.median(found):.1f} images/s")
    print(f"ratio: {statistics.median(a / b for a, b in zip(alone, shared, strict=True)):.3f}")


if __name__ == "__main__":
    main()
