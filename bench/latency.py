"""How long from an edit to its row? A head is edited, and `make report` is run, or `headstart watch` runs; and `headstart predict`.

    python -m bench.latency [--images 2000] [--rounds 3] [--only CASE …] [--folder FOLDER]

A project of so many images with made-up features of VGG16, (4, 4, 512), whose classes overlap. In each round a head is edited, and the
command is timed as it is; then it is edited once more, and timed by its parts (bench/parts.py), which costs some time itself. Medians.
Seconds of the processor, of all cores together, are printed, too: they say more on a machine that others use.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cache.shard import ShardInfo
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph

ROOT = Path(__file__).parents[1]
CONFIG = """
[data]
root = "photos"
[base]
name = "VGG16"
input_size = 150
weights = "random"
precision = "float32"
[heads.pooled]
kind = "dense"
pool = "avg"
units = [64]
learning_rate = 1e-3
[heads.dense256]
kind = "dense"
pool = "flatten"
units = [256]
dropout = 0.5
[heads.logreg]
kind = "sklearn"
estimator = "LogisticRegression"
params = { C = 0.01, max_iter = 1000 }
"""
# The head that is edited, and what is written in the place of what, in the n-th edit.
EDITS: dict[str, tuple[str, Callable[[int], str]]] = {
    "pooled dense head, other units": ("units = [64]", lambda n: f"units = [{64 + 4 * n}]"),
    "pooled dense head, another rate": ("learning_rate = 1e-3", lambda n: f"learning_rate = {1e-3 + 1e-5 * n:.6f}"),
    "dense256 on 8,192 features, another dropout": ("dropout = 0.5", lambda n: f"dropout = {0.5 - 0.01 * n:.2f}"),
    "baseline, another strength": ("C = 0.01", lambda n: f"C = {0.01 + 0.001 * n:.3f}"),
}
PREDICT = "predict of one image"
PREDICT_TWO = "predict of two images"
WATCH = "watch: "
SECONDS = 300


class Project:
    """A project that is up to date, and what edits it and runs commands in it."""

    def __init__(self, folder: Path, images: int) -> None:
        self.folder, self.edits = folder, 0
        self.parts = folder / "parts.jsonl"
        self.config = folder / "headstart.toml"
        self._write_photos(images)
        self.config.write_text(CONFIG)
        shutil.copy(ROOT / "Makefile", folder)
        for name in ("requirements.lock", "requirements-weights.lock", "pyproject.toml", "installed"):
            (folder / name).touch()
        for name, module in (("plain", "pipeline"), ("timed", f"bench.parts {self.parts}")):
            (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
            (folder / name).chmod(0o755)
        graph = load_graph(load_config(self.config))
        self._fill(graph)
        self.make("plain")

    def _write_photos(self, images: int) -> None:
        rng = np.random.default_rng(0)
        for i in range(images + 2):
            name = f"photos/{'cats' if i % 2 else 'dogs'}/{i}.jpg" if i < images else f"new{i - images}.jpg"
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(path)

    def _fill(self, graph: object) -> None:
        (layer,) = next(iter(graph.bases.values())).layers  # type: ignore[attr-defined]
        records = list(graph.manifest.by_digest.values())  # type: ignore[attr-defined]
        rng = np.random.default_rng(0)
        centres = rng.normal(0, 0.05, (2, 4, 4, 512))
        info = ShardInfo(layer.key, layer.identity, "float32", "CPU", {})
        layer.store.create(layer.identity)
        with layer.store.writing():
            for start in range(0, len(records), 512):
                rows = records[start : start + 512]
                y = np.array([record.label == "cats" for record in rows], int)
                features = np.maximum(centres[y] + rng.normal(-0.5, 1, (len(rows), 4, 4, 512)), 0)
                layer.store.append(features.astype(np.float16), rows, graph.manifest.classes, info, "zstd")  # type: ignore[attr-defined]

    def edit(self, case: str) -> None:
        """Another value than ever before."""
        old, new = EDITS[case]
        self.edits += 1
        self.config.write_text(CONFIG.replace(old, new(self.edits)))

    def restore(self) -> None:
        """The configuration as it was, trained again."""
        self.config.write_text(CONFIG)
        self.make("plain")

    def make(self, program: str) -> tuple[float, float]:
        return self.run("make", "report", "SETUP=installed", f"HEADSTART={self.folder / program}")

    def run(self, *command: str) -> tuple[float, float]:
        """Seconds that a command takes, and those of the processor."""
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=self.folder, env=environment(), check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.perf_counter() - start, used


class Watching:
    """A process that watches a project."""

    def __init__(self, project: Project, program: str) -> None:
        self._log, self._seen = project.folder / "watch.log", 0
        with open(self._log, "w") as log:
            command = [str(project.folder / program), "watch", "--port", "0"]
            self._process = subprocess.Popen(command, cwd=project.folder, env=environment(), stdout=log, stderr=log)
        self.until("waiting for edits")

    def until(self, words: str) -> float:
        """Wait for these words; the seconds of the processor by then."""
        end = time.monotonic() + SECONDS
        while words not in self._log.read_text()[self._seen :]:
            if time.monotonic() > end or self._process.poll() is not None:
                raise SystemExit(f"{words!r} was not said: {self._log.read_text()}")
            time.sleep(0.005)
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def after(self, project: Project, case: str) -> tuple[float, float]:
        """Seconds from an edit to its row, and those of the processor."""
        self._seen = len(self._log.read_text())
        before = self.until("")
        start = time.perf_counter()
        project.edit(case)
        used = self.until("up to date after") - before
        seconds = time.perf_counter() - start
        self.until("waiting for edits")
        return seconds, used

    def end(self) -> None:
        self._process.terminate()  # Ctrl-C is ignored by what a shell started in the background
        self._process.wait()


def environment() -> dict[str, str]:
    """As users have it: what Python compiles is kept."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": str(ROOT)}


Measured = tuple[float, float, float, dict[str, float]]


def measured(project: Project, case: str) -> Measured:
    """Seconds of the command as it is, those of the processor, seconds of it by parts, and these."""
    if case in EDITS:
        runs = {name: lambda name=name: project.make(name) for name in ("plain", "timed")}
    else:
        images = [f"new{i}.jpg" for i in range(2 if case == PREDICT_TWO else 1)]
        runs = {
            name: lambda name=name: project.run(str(project.folder / name), "predict", "--head", "pooled", *images)
            for name in ("plain", "timed")
        }
    seconds = {}
    for name, run in runs.items():
        if case in EDITS:
            project.edit(case)
        project.parts.unlink(missing_ok=True)
        seconds[name] = run()
    found: dict[str, float] = defaultdict(float)
    for line in project.parts.read_text().splitlines():
        for part, value in json.loads(line).items():
            found[part] += value
    found["make, and ends of processes"] = seconds["timed"][0] - sum(found.values())
    return *seconds["plain"], seconds["timed"][0], found


def watched(project: Project, case: str, rounds: int) -> list[Measured]:
    """The same of `headstart watch`, of which one process for all rounds is timed as it is, and one by its parts."""
    project.restore()
    found = {}
    for program in ("plain", "timed"):
        project.parts.unlink(missing_ok=True)
        watching = Watching(project, program)
        found[program] = [watching.after(project, case) for _ in range(rounds)]
        watching.end()
    lines = [json.loads(line) for line in project.parts.read_text().splitlines()]
    parts = lines[1 : 1 + rounds]  # the first is of the start, the last of the whole process
    for (seconds, _), each in zip(found["timed"], parts, strict=True):
        each["until the edit is seen"] = seconds - sum(each.values())
    return [(*plain, timed[0], each) for plain, timed, each in zip(*found.values(), parts, strict=True)]


def show(case: str, rounds: Sequence[Measured]) -> None:
    """Medians, the largest parts first."""
    plain, used, timed = (statistics.median(each[i] for each in rounds) for i in range(3))
    print(f"{case}: {plain:.2f} s, of the processor {used:.2f} s (by its parts, {timed:.2f} s)")
    names = dict.fromkeys(name for *_, found in rounds for name in found)
    medians = {name: statistics.median(found.get(name, 0.0) for *_, found in rounds) for name in names}
    for name, value in sorted(medians.items(), key=lambda pair: -pair[1]):
        if value >= 0.01:
            print(f"  {name:32} {value:6.2f}")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of the cases to run")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    cases = [
        case
        for case in (*EDITS, PREDICT, PREDICT_TWO, *(f"{WATCH}{edit}" for edit in EDITS))
        if not arguments.only or any(case.startswith(each) for each in arguments.only)
    ]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        project = Project(Path(name), arguments.images)
        print(f"{arguments.images:,} images, medians of {arguments.rounds}, {os.cpu_count()} cores", flush=True)
        for case in cases:
            if case.startswith(WATCH):
                show(case, watched(project, case.removeprefix(WATCH), arguments.rounds))
                continue
            project.restore()  # or the first edit would have the head of the case before trained, too
            show(case, [measured(project, case) for _ in range(arguments.rounds)])


if __name__ == "__main__":
    main()
