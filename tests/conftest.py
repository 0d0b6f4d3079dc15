"""What the tests share: small folders of real image files, and headstart run as a user runs it."""

import csv
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import warm
from hypothesis import HealthCheck, settings
from PIL import Image

from cache import FeatureStore, Manifest
from stages.data.scan import scan
from stages.data.spec import DataSpec

ROOT = Path(__file__).parents[1]
HEADSTART = [sys.executable, "-m", "pipeline"]

# A shell that runs the tests in the background starts them with Ctrl-C ignored, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What `make test` tells the makes below it, and of how many columns a terminal is that nobody looks at.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "COLUMNS"):
    os.environ.pop(name, None)
# What trains a head here runs for milliseconds, and compiling it takes a second, half of which is for code that runs quicker.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# How long an example takes says how busy the machine is. Where CI is set, Hypothesis draws the same examples each time, here too.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


CONFIG = """
[data]
root = "photos"
seed = 1

[base]
name = "VGG16"
input_size = 32
weights = "random"
precision = "float32"
batch_size = 8

[cache]
shard_images = 16

[heads.logreg]
kind = "sklearn"
estimator = "LogisticRegression"

[heads.ridge]
kind = "sklearn"
estimator = "RidgeClassifierCV"
"""


# With a dense head that is quick to train.
SMALL = (
    CONFIG
    + """
[heads.small]
kind = "dense"
pool = "avg"
units = [8]
epochs = 6
dropout = 0.0
optimizer = "adam"
learning_rate = 1e-2
"""
)


# And with sweeps of it.
SWEEPS = (
    SMALL
    + """
[sweeps.width]
head = "small"
grid = { units = [[], [8]], learning_rate = [1e-4, 1e-2] }

[sweeps.strength]
head = "logreg"
cv = 3
refit = true
grid = { params = { C = [0.01, 0.1, 1.0] } }

[sweeps.noise]
head = "small"
cv = 2
repeats = 3

[sweeps.fast]
head = "small"
strategy = "halving"
factor = 2
repeats = 2
grid = { units = [[], [8]], pool = ["avg", "flatten"], learning_rate = [1e-4, 1e-2] }
"""
)


def write_image(path: Path, seed: int, size: tuple[int, int] = (24, 20), mode: str = "RGB") -> Path:
    """A small image of noise around a colour, the same for the same seed; the format follows the suffix."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(40, 216, 3)
    pixels = np.clip(colour + rng.normal(0, 20, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def write_photos(root: Path, classes: dict[str, int], first: int = 0) -> None:
    """``classes`` maps a folder's name to its number of images; reds differ from one class to the next."""
    seed = first
    for shade, (name, count) in enumerate(classes.items()):
        for i in range(count):
            path = write_image(root / name / f"{name}{i}.png", seed)
            pixels = np.asarray(Image.open(path)).copy()
            pixels[..., 0] = np.clip(pixels[..., 0] // 4 + 90 * shade, 0, 255)
            Image.fromarray(pixels).save(path)
            seed += 1


@dataclass
class Outcome:
    """What a run printed and how it ended."""

    code: int
    out: str

    @property
    def extracted(self) -> int:
        """Images that went through the base."""
        return sum(int(n) for n in re.findall(r"(\d+) images extracted", self.out))

    @property
    def trained(self) -> list[str]:
        """Heads that were trained."""
        return sorted(re.findall(r"^trained: (\S+)", self.out, re.MULTILINE))

    @property
    def reported(self) -> bool:
        """Whether the report was written."""
        return "report: written" in self.out


def pytest_configure(config: pytest.Config) -> None:
    """What XLA has compiled serves all processes of this run, which get the folder through their environment."""
    if "TF_XLA_FLAGS" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="xla")
        os.environ["TF_XLA_FLAGS"] = f"--tf_xla_persistent_cache_directory={folder.name}"
        config.add_cleanup(folder.cleanup)


def pytest_collection_finish() -> None:
    """What the tests import stays until they end: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


SLOW = re.compile(r"\b(Project|keras|load_keras|subprocess|train_all)\b")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in files that speak of whole projects, of Keras or of processes are slow; none is listed by hand."""
    for item in items:
        if SLOW.search(_source(item.path)):
            item.add_marker("slow")


@cache
def _source(path: Path) -> str:
    return path.read_text()


@cache
def server() -> warm.Server:
    """That of this process."""
    return warm.Server()


class Project:
    """A folder with the Makefile, a configuration and photos, in which make and headstart are run for real."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = folder / "photos"
        self.artifacts = folder / "artifacts"
        self.config = folder / "headstart.toml"

    def create(self, config: str = CONFIG) -> "Project":
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "Makefile", self.folder)
        for name in ("requirements.lock", "requirements-weights.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder)
        self.config.write_text(config)
        return self

    def make(self, *arguments: str, env: dict[str, str] | None = None, cold: bool = False) -> Outcome:
        """make, for real; its recipes run in this process, or ``cold`` in processes of their own."""
        (self.folder / "installed").touch()
        program = Path(sys.executable).parent / "headstart" if cold or env else server().client
        return self._run(["make", *arguments, "SETUP=installed", f"HEADSTART={program}"], env)

    def headstart(self, *arguments: str, env: dict[str, str] | None = None, cold: bool = False) -> Outcome:
        """A command in this process, or ``cold`` in a process of its own."""
        if cold or env:
            return self._run([*HEADSTART, *arguments], env)
        code, out, error = warm.run(arguments, self.folder, {})
        return Outcome(code, (out + error).decode(errors="backslashreplace"))

    def _run(self, command: list[str], env: dict[str, str] | None) -> Outcome:
        # The checkout stands in front, so that the tests test it and not another installation.
        full = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        done = subprocess.run(
            command, cwd=self.folder, env=full, capture_output=True, errors="backslashreplace", timeout=150
        )
        return Outcome(done.returncode, done.stdout + done.stderr)

    def edit(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))


def store_of(project: Project) -> FeatureStore:
    """The store of a project that has one."""
    (folder,) = (project.artifacts / "features").iterdir()
    return FeatureStore(folder)


def stores(project: Project) -> dict[str, FeatureStore]:
    """The stores of a project, by layer."""
    found = [FeatureStore(path) for path in (project.artifacts / "features").iterdir()]
    return {store.spec["layer"]: store for store in found}


def trials(project: Project, name: str) -> list[dict[str, str]]:
    """The rows of a sweep's table."""
    with open(project.artifacts / "sweeps" / name / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def result(project: Project, *names: str) -> dict:
    """The result in a folder of the artifacts."""
    return json.loads(project.artifacts.joinpath(*names, "result.json").read_text())


def look(root: Path, **options: object) -> Manifest:
    """The manifest of a folder of images, scanned with these options."""
    spec = DataSpec.model_validate({"root": root, "seed": 1, **options})
    return scan(spec, root.parent / "cache", {})


def splits(manifest: Manifest) -> dict[str, str]:
    """The split of each image."""
    return {record.path: record.split for record in manifest.records}


def failed(outcome: Outcome) -> str:
    """The line of an error, which must be the only one that speaks of it."""
    assert outcome.code == 1 and "Traceback" not in outcome.out, outcome.out
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("headstart: ")]
    return line


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that `make report` has brought up to date. Copy it before changing anything."""
    project = Project(tmp_path_factory.mktemp("built") / "project").create()
    write_photos(project.photos, {"cat": 20, "dog": 20})
    outcome = project.make("report")
    assert outcome.code == 0, outcome.out
    assert outcome.extracted == 40
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """A copy of the built project, with other inodes and, where not preserved, other times."""
    shutil.copytree(built.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


@pytest.fixture
def empty(tmp_path: Path) -> Callable[[str], Project]:
    """A project with a configuration and no photos yet."""
    return lambda config=CONFIG: Project(tmp_path / "new").create(config)
