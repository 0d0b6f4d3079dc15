"""A head of the user's own: a function in a file of theirs, trained and kept as any head."""

from pathlib import Path

import pytest
from conftest import CONFIG, Project, write_photos

MINE = """
import keras

def build(shape, classes):
    inputs = keras.Input(shape)
    hidden = keras.layers.GlobalMaxPooling2D()(inputs)
    hidden = keras.layers.Dense(8, activation="relu")(hidden)
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(hidden))

def layers(shape, classes):
    return [keras.layers.Flatten(), keras.layers.Dense(4, activation="tanh")]

def logits(shape, classes):
    return keras.Sequential([keras.layers.Input(shape), keras.layers.Flatten(), keras.layers.Dense(classes)])

def wrong(shape, classes):
    raise RuntimeError("out of ideas")
"""
HEADS = """
[heads.mine]
kind = "keras"
build = "my_heads.py:build"
optimizer = "adam"
learning_rate = 1e-2
epochs = 3
refit = true

[heads.listed]
kind = "keras"
build = "my_heads.py:layers"
epochs = 2

[sweeps.rates]
head = "listed"
grid = { learning_rate = [1e-4, 1e-2] }
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("own")).create(CONFIG + HEADS)
    (project.folder / "my_heads.py").write_text(MINE)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    outcome = project.headstart("features")
    assert outcome.code == 0, outcome.out
    return project


def test_it_is_trained_swept_reported_and_predicts(own: Project) -> None:
    outcome = own.make("sweep", "report")
    assert outcome.code == 0 and outcome.trained == ["listed", "logreg", "mine", "rates", "ridge"], outcome.out
    predicted = own.headstart("predict", "--head", "mine", str(own.photos / "cat"))
    assert predicted.code == 0 and predicted.out.count(": cat (") + predicted.out.count(": dog (") == 20


def test_an_edit_of_the_file_makes_its_heads_stale(own: Project) -> None:
    path = own.folder / "my_heads.py"
    assert own.headstart("heads").code == 0
    path.write_text(MINE.replace("Dense(8", "Dense(9"))
    outcome = own.headstart("heads")
    assert outcome.code == 0 and outcome.trained == ["listed", "mine"], outcome.out
    path.write_text(MINE)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        ("my_heads.py:logits", "expected probabilities, found"),
        ("my_heads.py:wrong", "RuntimeError: out of ideas"),
        ("my_heads.py:nothing", "expected a function 'nothing' in my_heads.py, found none"),
        ("no_heads.py:build", "no_heads.py: cannot be read"),
        ("my_heads", "build: "),
    ],
)
def test_what_is_no_head_is_one_line(own: Project, tmp_path: Path, build: str, message: str) -> None:
    config = own.config.read_text()
    try:
        own.edit('build = "my_heads.py:layers"', f'build = "{build}"')
        outcome = own.headstart("heads", "listed")
    finally:
        own.config.write_text(config)
    assert outcome.code == 1 and message in outcome.out and "Traceback" not in outcome.out, outcome.out
