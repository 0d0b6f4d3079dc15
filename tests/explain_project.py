"""A project with a head of each kind on two layers of a small base, for the tests of what heads look at."""

from pathlib import Path

import keras
from conftest import Project, write_image, write_photos

HEADS = """
[data]
root = "photos"
[base]
name = "file:mine.keras"
input_size = 40
precision = "float32"
preprocess = "tf"
layers = ["first", "second"]
[heads.average]
kind = "sklearn"
estimator = "LogisticRegression"
[heads.flat]
kind = "sklearn"
estimator = "RidgeClassifier"
pool = "flatten+l2"
layers = ["first", "second"]
[heads.largest]
kind = "dense"
units = []
pool = "max"
epochs = 3
[heads.plain]
kind = "dense"
units = []
pool = "flatten"
epochs = 3
layers = ["first"]
[heads.hidden]
kind = "dense"
units = [8]
pool = "avg+l2"
epochs = 3
layers = ["first", "second"]
[heads.own]
kind = "keras"
build = "own.py:build"
epochs = 2
layers = ["second"]
[heads.knn]
kind = "sklearn"
estimator = "KNeighborsClassifier"
[heads.tuned]
kind = "finetune"
head = "averaged"
from = "second"
epochs = 1
[heads.averaged]
kind = "dense"
units = [4]
pool = "avg"
epochs = 1
layers = ["second"]
[heads.scratch]
kind = "cnn"
input_size = 40
filters = [4, 4]
units = [4]
epochs = 1
[heads.whole]
kind = "end_to_end"
layers = ["second"]
pool = "avg"
units = []
epochs = 1
[heads.both]
kind = "ensemble"
heads = ["average", "flat"]
"""
OWN = """
from keras import layers
def build(shape, n_classes):
    return [layers.Conv2D(4, 1, activation="relu"), layers.GlobalAveragePooling2D()]
"""


def explain_project(folder: Path) -> Project:
    """Three classes, and a head of each kind on two layers of a small base."""
    project = Project(folder).create(HEADS)
    write_photos(project.photos, {"cat": 12, "cow": 12, "dog": 12})
    keras.utils.set_random_seed(1)
    inputs = keras.Input((40, 40, 3))
    first = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="first")(inputs)
    second = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="second")(first)
    keras.Model(inputs, second).save(project.folder / "mine.keras")
    (project.folder / "own.py").write_text(OWN)
    write_image(project.folder / "new.png", 91)
    for command in ("features", "heads"):
        outcome = project.headstart(command)
        assert outcome.code == 0, outcome.out
    return project
