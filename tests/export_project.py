"""A project of small bases of its own with a head of each kind that can be exported, for the tests of that."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from conftest import Project, write_photos
from PIL import Image

from stages.bases.backend import load_keras

CONFIG = """
[data]
root = "photos"
seed = 1

[bases.tiny]
name = "file:tiny.keras"
input_size = [40, 48]
layers = ["first", "second"]
preprocess = "caffe"
precision = "float32"

[bases.other]
name = "file:other.keras"
input_size = 32
resize = "shortest"
crop = 0.875
scale = "1/255"
precision = "float32"

[cache]
dtype = "float32"
"""
DENSE = 'kind = "dense"\nepochs = 2\nlearning_rate = 1e-2\nunits = [8]\n'
BASELINE = 'kind = "sklearn"\nestimator = '
HEADS = {
    "small": DENSE + 'base = ["tiny", "other"]\npool = "avg"\n',
    "joint": DENSE + 'layers = ["first", "second"]\npool = "avg+l2"\nbatch_norm = true\n',
    "logreg": BASELINE + '"LogisticRegression"\nlayers = ["first", "second"]\npool = "max+l2"\n',
    "ridge": BASELINE + '"RidgeClassifierCV"\nscale = false\n',
    "lda": BASELINE + '"LinearDiscriminantAnalysis"\n',
    "sgd": BASELINE + '"SGDClassifier"\nparams = { loss = "log_loss" }\n',
    "svc": BASELINE + '"LinearSVC"\nbase = "other"\n',
    "mine": 'kind = "keras"\nbuild = "mine.py:build"\nepochs = 2\n',
    "tuned": 'kind = "finetune"\nhead = "small"\nbase = "tiny"\nfrom = "second"\nepochs = 1\n',
    "whole": 'kind = "end_to_end"\nbase = "other"\nunits = [8]\nepochs = 2\nlearning_rate = 1e-2\n',
    "scratch": 'kind = "cnn"\ninput_size = 32\nfilters = [4]\nunits = [4]\nepochs = 1\n',
    "both": 'kind = "ensemble"\nheads = ["small@tiny", "small@other", "logreg", "scratch"]\n',
}
OTHERS = {"knn": BASELINE + '"KNeighborsClassifier"\n', "svm": BASELINE + '"SVC"\n'}
MINE = """import keras
def build(shape, n):
    features = keras.Input(shape)
    x = keras.layers.Dense(n)(keras.layers.GlobalMaxPooling2D()(features))
    return keras.Model(features, keras.layers.Softmax()(x))
"""


def own_base(path: Path, size: tuple[int, int], seed: int) -> None:
    """A base of two convolutions with random weights, of which the second is in groups."""
    keras = load_keras()
    keras.utils.set_random_seed(seed)
    images = x = keras.Input((*size, 3))
    for filters, name, groups in ((8, "first", 1), (16, "second", 2)):
        x = keras.layers.Conv2D(filters, 3, strides=2, activation="relu", groups=groups, name=name)(x)
    keras.Model(images, x).save(path)


def export_project(folder: Path, heads: dict[str, str], classes: int) -> Project:
    """A project whose heads are trained, on photos of sizes above and below those of its bases."""
    project = Project(folder).create(CONFIG + "".join(f"\n[heads.{name}]\n{table}" for name, table in heads.items()))
    write_photos(project.photos, dict.fromkeys(["cat", "dog", "eel"][:classes], 14))
    for i, path in enumerate(sorted(project.photos.rglob("*.png"))):
        if i % 2:
            with Image.open(path) as image:
                larger = image.resize((90 + i, 70 + 2 * i), Image.Resampling.BICUBIC)
            larger.save(path)
    own_base(folder / "tiny.keras", (40, 48), 1)
    own_base(folder / "other.keras", (32, 32), 2)
    (folder / "mine.py").write_text(MINE)
    for step in ("features", "heads"):
        outcome = project.headstart(step)
        assert outcome.code == 0, outcome.out
    return project


def used(folder: Path, *photos: Path) -> list[dict[str, Any]]:
    """What ``use.py``, ten lines at most, says of photos, in a process that can import nothing of headstart."""
    assert len((folder / "use.py").read_text(encoding="utf-8").splitlines()) <= 10
    hidden = dict.fromkeys(("headstart", "pipeline", "stages", "cache"))
    code = f"import runpy, sys; sys.modules.update({hidden!r}); sys.argv = sys.argv[1:]; sys.path.insert(0, {str(folder)!r}); runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-I", "-c", code, str(folder / "use.py"), *map(str, photos)]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def probabilities(told: list[dict[str, Any]]) -> np.ndarray:
    """The probabilities (n, classes) in what ``use.py`` says."""
    return np.array([list(each["probabilities"].values()) for each in told])
