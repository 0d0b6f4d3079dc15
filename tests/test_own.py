"""A head of the user's own: a function in a file of theirs, trained and kept as any head."""

from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG, Project, result, write_photos

from cache.errors import HeadError
from stages.heads.own import KerasHead
from stages.heads.spec import KerasSpec

MINE = r"""
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
    raise RuntimeError("out of \x1b[1mideas\x1b[0m")

def function(shape, classes):
    return lambda features, training=False: keras.ops.ones((1, classes)) / classes

def sigmoids(shape, classes):
    last = keras.layers.Dense(classes, activation="sigmoid", kernel_initializer="zeros")
    return keras.Sequential([keras.layers.Input(shape), keras.layers.Flatten(), last])

def double(features):
    return 2 * features

@keras.saving.register_keras_serializable()
def registered(features):
    return 2 * features

def anonymous(shape, classes):
    return [keras.layers.Flatten(), keras.layers.Dense(4, activation=lambda features: features, name="odd")]

def named(shape, classes):
    return [keras.layers.Flatten(), keras.layers.Dense(4, activation=double, name="odd")]

def known_here_alone(shape, classes):
    return [keras.layers.Flatten(), keras.layers.Dense(4, activation=registered, name="odd")]

def regularised(shape, classes):
    return [keras.layers.Flatten(), keras.layers.Dense(4, kernel_regularizer=lambda w: 0.0, name="odd")]

def a_lambda(shape, classes):
    return [keras.layers.Flatten(), keras.layers.Lambda(double, name="odd")]

def untrainable(shape, classes):
    model = build(shape, classes)
    model.compile = None
    return model

def ending_in(last):
    def make(shape, classes):
        inputs = keras.Input(shape)
        hidden = keras.layers.Dense(classes)(keras.layers.Flatten()(inputs))
        return keras.Model(inputs, last(hidden))
    return make

in_activation = ending_in(keras.layers.Activation("softmax"))
in_softmax = ending_in(keras.layers.Softmax())
in_operation = ending_in(keras.ops.softmax)

def nested(shape, classes):
    inputs = keras.Input(shape)
    hidden = keras.layers.Dense(8)(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.Sequential([keras.layers.Input((8,)), in_softmax((8,), classes)])(hidden))

def one_sigmoid(shape, classes):
    inner = [keras.layers.Input(shape), keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")]
    return keras.Sequential([keras.layers.Input(shape), keras.Sequential(inner)])

def used_twice(shape, classes):
    softmax = keras.layers.Activation("softmax")
    inputs = keras.Input(shape)
    hidden = keras.layers.Dense(classes)(softmax(keras.layers.Flatten()(inputs)))
    return keras.Model(inputs, softmax(hidden))
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

[sweeps.folds]
head = "listed"
cv = 2
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
    assert outcome.code == 0 and outcome.trained == ["folds", "listed", "logreg", "mine", "rates", "ridge"], outcome.out
    assert result(own, "sweeps", "folds")["parts"]["one_epoch"] and result(own, "sweeps", "rates")["parts"].keys() == {
        "schema", "sweep", "head", "bases", "rows",
    }  # fmt: skip
    predicted = own.headstart("predict", "--head", "mine", str(own.photos / "cat"))
    assert predicted.code == 0 and predicted.out.count(": cat (") + predicted.out.count(": dog (") == 20


def test_what_it_says_after_each_epoch_is_what_keras_scores(tmp_path: Path) -> None:
    """And looking changes nothing of its training."""
    (tmp_path / "my_heads.py").write_text(MINE)
    rng = np.random.default_rng(0)
    X, y = rng.normal(0, 1, (40, 2, 2, 6)).astype(np.float32), rng.integers(0, 3, 40)
    spec = KerasSpec(kind="keras", build="my_heads.py:build", epochs=4, learning_rate=1e-2)
    seen: list[float] = []

    def look(head: KerasHead) -> None:
        seen.append(float(-head.predict_log_proba(X[30:])[np.arange(10), y[30:]].mean()))

    watched, alone = (
        KerasHead(spec, ["a", "b", "c"], tmp_path, **more).fit(X[:30], y[:30], X[30:], y[30:])
        for more in ({"each_epoch": look}, {})
    )
    assert seen == pytest.approx([row["val_loss"] for row in watched.history_], rel=1e-4)
    assert watched.history_ == alone.history_


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
        ("my_heads.py:logits", "expected probabilities that sum to 1, found"),
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


def fitted(home: Path, function: str, classes: int) -> tuple[KerasHead, np.ndarray]:
    """A head of ``my_heads.py`` after an epoch on noise, and the noise."""
    (home / "my_heads.py").write_text(MINE)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(24, 2, 2, 4)).astype(np.float32), np.arange(24) % classes
    spec = KerasSpec.model_validate({"kind": "keras", "build": f"my_heads.py:{function}", "epochs": 1})
    return KerasHead(spec, [str(i) for i in range(classes)], home).fit(X, y, X, y), X


@pytest.mark.parametrize(
    ("function", "classes"),
    [
        ("build", 3),
        ("in_activation", 3),
        ("in_softmax", 3),
        ("nested", 3),
        ("one_sigmoid", 2),
        ("in_operation", 3),
        ("used_twice", 3),
    ],
)
def test_log_probabilities_are_those_of_the_probabilities(tmp_path: Path, function: str, classes: int) -> None:
    head, X = fitted(tmp_path, function, classes)
    p = head.predict_proba(X)
    np.testing.assert_allclose(np.exp(head.predict_log_proba(X)), p, atol=2e-6)
    np.testing.assert_array_equal(head.predict_proba(X), p)
    if function in ("in_operation", "used_twice"):  # no logits to be had
        return
    for weights in head._core.weights:
        weights.assign(weights * 1e4)
    sure = head.predict_log_proba(X)
    assert np.isfinite(sure).all() and sure.min() < -1000
    head.save(tmp_path / "model.keras", {"last": (2, 2, 4)})
    loaded = KerasHead.load(tmp_path / "model.keras", head.spec, list(head.classes_))
    np.testing.assert_allclose(loaded.predict_log_proba(X), sure, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("anonymous", r"expected layers and functions of Keras's own, found odd \(Dense\), which could not be read"),
        ("named", r"found odd \(Dense\)"),
        ("known_here_alone", r"found odd \(Dense\)"),
        ("regularised", r"found odd \(Dense\)"),
        ("a_lambda", r"found odd \(Lambda\)"),
        ("function", "expected a Keras model or a list of layers, found function"),
        (
            "sigmoids",
            r"expected probabilities that sum to 1, found 0.5, 0.5, 0.5, 0.5, …, which sum to 4; end in softmax$",
        ),
        ("wrong", r"\(RuntimeError: out of ideas\)"),
        ("untrainable", r"cannot be trained on features \(2, 2, 4\) \(TypeError: "),
    ],
)
def test_what_cannot_be_a_head_says_why_before_it_is_kept(tmp_path: Path, function: str, message: str) -> None:
    with pytest.raises(HeadError, match=message) as caught:
        fitted(tmp_path, function, 8)
    assert str(caught.value).isprintable()


def test_several_layers_are_none_that_it_takes(tmp_path: Path) -> None:
    both = 'layers = ["block4_pool", "block5_pool"]'
    config = (CONFIG + HEADS).replace('weights = "random"', f'weights = "random"\n{both}')
    project = Project(tmp_path / "several").create(config.replace('kind = "keras"', f'kind = "keras"\n{both}'))
    (project.folder / "my_heads.py").write_text(MINE)
    write_photos(project.photos, {"cat": 10, "dog": 10})
    expected = 'takes the features of one layer, found 2 (block4_pool, block5_pool); set layers = ["block5_pool"]'
    assert project.headstart("features").code == 0
    heads, sweep = project.headstart("heads"), project.headstart("sweep")
    assert heads.code == 1 and heads.trained == ["logreg", "ridge"] and heads.out.count(expected) >= 2, heads.out
    assert sweep.code == 1 and not sweep.trained and expected in sweep.out, sweep.out
    assert "unexpected" not in heads.out + sweep.out


def test_features_beyond_memory_are_told_of_memory_alone(own: Project) -> None:
    config = own.config.read_text()
    try:
        own.edit("[cache]", '[cache]\nmemory = "10 kB"')
        own.edit("epochs = 2", "epochs = 4")
        outcome = own.headstart("heads", "listed")
    finally:
        own.config.write_text(config)
    assert outcome.code == 1 and "raise memory in [cache]" in outcome.out and "set pool" not in outcome.out, outcome.out
