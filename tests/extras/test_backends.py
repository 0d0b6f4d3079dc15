"""TensorFlow, JAX and PyTorch under Keras give the same features, in float32 and from the same configuration."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Project, write_photos

from cache import FeatureStore

NAMES = ("VGG16", "ResNet50", "MobileNetV2", "EfficientNetV2B0", "ConvNeXtTiny")
PACKAGED = ("MobileNetV2", "EfficientNetLite0")  # which are built here, and not by keras.applications
KINDS = [(name, "random", 32) for name in NAMES] + [(name, "packaged", 96) for name in PACKAGED]
CONFIG = '[data]\nroot = "photos"\n[heads.ridge]\nkind = "sklearn"\nestimator = "RidgeClassifier"\n' + "\n".join(
    f'[bases.{name}-{weights}]\nname = "{name}"\ninput_size = {size}\nweights = "{weights}"\nprecision = "float32"\nbatch_size = 8'
    for name, weights, size in KINDS
)


def extracted(folder: Path, backend: str) -> dict[tuple[str, int], tuple[np.ndarray, str]]:
    """Features by base and input size, in order of the images' contents, and the backend that the shards name."""
    project = Project(folder).create(CONFIG)
    write_photos(project.photos, {"cat": 6, "dog": 6})
    outcome = project.headstart("features", env={"KERAS_BACKEND": backend})
    assert outcome.code == 0 and outcome.extracted == 12 * len(KINDS), outcome.out
    found = {}
    for path in (project.artifacts / "features").iterdir():
        store = FeatureStore(path)
        (info, *_) = store.info()
        found[store.spec["base"], store.spec["input_size"][0]] = (
            store.read(sorted(store.digests())),
            info.versions["backend"],
        )
    return found


@pytest.fixture(scope="module")
def tensorflow(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], tuple[np.ndarray, str]]:
    return extracted(tmp_path_factory.mktemp("tensorflow"), "tensorflow")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_same_features_within_a_thousandth(
    tmp_path: Path, tensorflow: dict[tuple[str, int], tuple[np.ndarray, str]], backend: str
) -> None:
    found = extracted(tmp_path, backend)
    assert found.keys() == tensorflow.keys() == {(name, size) for name, _, size in KINDS}
    for name, (features, used) in found.items():
        expected, _ = tensorflow[name]
        assert used == backend
        assert np.linalg.norm(features - expected) <= 1e-3 * np.linalg.norm(expected), name


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_head_trains_on_every_backend(tmp_path: Path, backend: str) -> None:
    text = CONFIG[: CONFIG.index("[heads")] + '[base]\ninput_size = 32\nweights = "random"\n'
    project = Project(tmp_path).create(text + '[heads.small]\nkind = "dense"\nunits = [8]\nepochs = 2\n')
    write_photos(project.photos, {"cat": 12, "dog": 12})
    for step in ("features", "heads", "report"):
        outcome = project.headstart(step, env={"KERAS_BACKEND": backend})
        assert outcome.code == 0, outcome.out
    result = json.loads((project.artifacts / "heads" / "small" / "result.json").read_text())
    assert result["versions"]["backend"] == backend


TRAIN = """
import sys
import numpy as np
from stages.training.spec import DenseSpec
from stages.training.member import Member
from stages.training.source import InMemory
from stages.training.together import train_all
rng = np.random.default_rng(0)
y = rng.integers(0, 3, 90)
X = (rng.normal(0, 1, (3, 20))[y] + rng.normal(0, 1.5, (90, 20))).astype(np.float32)
options = [
    {"units": [], "optimizer": "sgd"}, {"units": [8], "dropout": 0.3}, {"units": [8], "dropout": 0.6, "class_weight": "balanced"},
    {"units": [8], "dropout": 0.2, "loss": "focal", "mixup": 0.3, "l2": 1e-2, "max_norm": 0.8}, {"units": [], "loss": "focal", "monitor": "accuracy"},
    {"units": [8, 6], "optimizer": "adamw", "batch_norm": True, "activation": "gelu"},
]
specs = [DenseSpec.model_validate({"kind": "dense", "epochs": 3, "learning_rate": 1e-2, "seed": i, **each}) for i, each in enumerate(options)]
members = [Member(spec, np.arange(61 + i), np.arange(70, 90)) for i, spec in enumerate(specs)]
fitted = train_all(members, InMemory(X, y), 3)
np.savez(sys.argv[1], *[np.concatenate([w.ravel() for w in each.weights]) for each in fitted])
"""


def test_stacked_heads_are_the_same_on_every_backend(tmp_path: Path) -> None:
    """Initial weights, batches and dropout are drawn by NumPy and by a hash, and not by the backend."""
    found = {}
    for backend in ("tensorflow", "jax", "torch"):
        path = tmp_path / f"{backend}.npz"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": backend}
        subprocess.run([sys.executable, "-c", TRAIN, str(path)], env=environment, check=True, timeout=150)
        with np.load(path) as file:
            found[backend] = [file[name] for name in file.files]
    for backend in ("jax", "torch"):
        for weights, expected in zip(found[backend], found["tensorflow"], strict=True):
            assert np.linalg.norm(weights - expected) <= 1e-4 * np.linalg.norm(expected), backend


def test_openvino_says_what_it_converts_from(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from stages.bases.frozen import FrozenBase; from stages.bases.spec import BaseSpec;"
        "from stages.bases.weights import Weights;"
        "spec = BaseSpec(weights='random', engine='openvino', input_size=32);"
        "FrozenBase(spec, Weights(spec, Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0 and "converts the base from TensorFlow, found KERAS_BACKEND=jax" in done.stderr
