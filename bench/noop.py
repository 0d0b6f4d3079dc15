"""What does a no-op cost? `headstart status` and `make report` on many images, against `git status` on the same tree.

    python -m bench.noop [--images 25000] [--rounds 7] [--folder FOLDER]

Writes a tree of small files, fills the cache with made-up features, trains a head and writes the report; then runs the three
commands in turn, all in one run, and prints medians, ratios and where the time of `headstart status` goes.
The images are never decoded, as a no-op never does.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cache.shard import ShardInfo
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph

ROOT = Path(__file__).parents[1]
SCRIPT = Path(sys.executable).parent / "headstart"
CLASSES = 10
CONFIG = """
[data]
root = "photos"
[base]
weights = "random"
[heads.ridge]
kind = "sklearn"
estimator = "RidgeClassifier"
"""


def build(folder: Path, images: int) -> None:
    """A project that is up to date, and a git repository of the same images with everything committed."""
    for i in range(CLASSES):
        (folder / "photos" / f"class{i}").mkdir(parents=True)
    for i in range(images):
        (folder / "photos" / f"class{i % CLASSES}" / f"image_{i:07d}.jpg").write_bytes(b"image %d" % i)
    (folder / "headstart.toml").write_text(CONFIG)
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("requirements.lock", "pyproject.toml", "installed"):
        (folder / name).touch()
    time.sleep(2.1)  # younger files are racy, for git's index as for ours, and would be read again
    graph = load_graph(load_config(folder / "headstart.toml"))
    fill(graph)
    for step in ("heads", "report"):
        run([SCRIPT, step], folder)
    photos = folder / "photos"
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"]):
        run(["git", *command], photos)


def fill(graph: object) -> None:
    """Made-up features for every image, through the store's own writer."""
    (base,) = next(iter(graph.bases.values())).layers  # type: ignore[attr-defined]
    base.store.create(base.identity)
    records = list(graph.manifest.by_digest.values())  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    info = ShardInfo(base.key, base.identity, "float32", "CPU", {})
    with base.store.writing():
        for start in range(0, len(records), 512):
            rows = records[start : start + 512]
            features = rng.normal(size=(len(rows), 1, 1, 16)).astype(np.float16)
            base.store.append(features, rows, graph.manifest.classes, info, "none")  # type: ignore[attr-defined]


def run(command: list[object], folder: Path) -> float:
    start = time.perf_counter()
    subprocess.run([str(word) for word in command], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=25_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        build(folder, arguments.images)
        commands: dict[str, tuple[list[object], Path]] = {
            "git status": (["git", "status"], folder / "photos"),
            "headstart status": ([SCRIPT, "status"], folder),
            "make report": (["make", "report", "SETUP=installed", f"HEADSTART={SCRIPT}"], folder),
            "headstart --help": ([SCRIPT, "--help"], folder),
        }
        times: dict[str, list[float]] = {what: [] for what in commands}
        for _ in range(arguments.rounds):
            for what, (command, where) in commands.items():
                times[what].append(run(command, where))
        git = statistics.median(times["git status"])
        print(f"{arguments.images:,} images, median of {arguments.rounds}")
        for what, values in times.items():
            median = statistics.median(values)
            print(f"  {what:18} {median:7.3f} s   {median / git:5.1f} × git status")
        profile(folder)


def profile(folder: Path) -> None:
    """The functions of our own that `headstart status` spends most of its time in."""
    code = (
        "import cProfile, pstats, sys\nsys.argv = ['headstart', 'status']\nfrom pipeline.cli import app\n"
        "p = cProfile.Profile()\np.enable()\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\np.disable()\n"
        "s = pstats.Stats(p, stream=sys.stderr)\ns.sort_stats('cumulative').print_stats('cache/|stages/|pipeline/', 14)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    start = next(i for i, line in enumerate(lines) if "cumtime" in line)
    print("what dominates `headstart status` (under the profiler, which slows it):")
    print("\n".join(f"  {line}" for line in lines[start:] if line.strip()))


if __name__ == "__main__":
    main()
