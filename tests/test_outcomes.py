"""What is kept of each row of a trial: its scores are those of the head, without label smoothing, copies of an image once."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Project, result, trials, write_photos
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.heads import rowwise
from stages.heads.calibration import log_softmax
from stages.heads.metrics import scores
from stages.heads.scored import METRICS
from stages.training.outcomes import Outcomes
from stages.training.program import _outcomes


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 120),
    classes=st.integers(2, 8),
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_scores_from_outcomes_are_those_of_the_log_probabilities(
    n: int, classes: int, seed: int, sharpness: float
) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    # As float32, in which outcomes are kept: rounding would change ties.
    logs = log_softmax(sharpness * rng.normal(size=(n, classes))).astype(np.float32).astype(np.float64)
    expected = scores(y, logs, [str(i) for i in range(classes)], intervals=True)
    found = Outcomes.of(y, logs, whole=True)
    for metric in METRICS:
        value, interval = (each(metric, y, found, classes) for each in (rowwise.score, rowwise.interval))
        told = expected[f"{metric}_interval"]
        assert value == (None if expected[metric] is None else pytest.approx(expected[metric], abs=1e-6)), metric
        assert interval == (None if told is None else pytest.approx(tuple(told), abs=1e-5)), metric
    plain = Outcomes.of(y, logs)
    assert plain.logs is None and rowwise.told("auc", plain, classes) == (classes == 2)
    assert all(rowwise.told(metric, plain, classes) for metric in METRICS if metric != "auc")


@pytest.mark.parametrize("classes", [2, 5])
def test_the_program_says_of_each_row_what_its_logits_do(classes: int) -> None:
    import keras

    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 40)
    logits = rng.normal(0, 30, (3, 40, 1 if classes == 2 else classes)).astype(np.float32)
    tensors = keras.ops.convert_to_tensor(logits), keras.ops.convert_to_tensor(y.astype(np.int32))
    found = [keras.ops.convert_to_numpy(each) for each in _outcomes(*tensors, classes > 2)]
    for k in range(3):
        expected = Outcomes.of(y, log_softmax(logits[k]), classes > 2)
        np.testing.assert_array_equal(found[0][k], expected.predicted)
        np.testing.assert_allclose(found[1][k], expected.log_p, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found[2][k], expected.rank)
        if expected.logs is not None:
            np.testing.assert_allclose(found[3][k], expected.logs, rtol=1e-5, atol=1e-5)


def test_trials_are_ranked_by_the_plain_log_loss_and_a_copy_counts_once(tmp_path: Path) -> None:
    """As the winner's head is scored: with label smoothing the loss in training is another."""
    text = (
        SMALL.replace(
            "[heads.small]", '[heads.other]\nkind = "sklearn"\nestimator = "RidgeClassifier"\n\n[heads.small]'
        )
        + """
[sweeps.smooth]
head = "small"
grid = { label_smoothing = [0.0, 0.4], learning_rate = [1e-2, 3e-3] }

[sweeps.alpha]
head = "other"
grid = { params = { alpha = [1.0, 100.0] } }
"""
    ).replace('root = "photos"', 'root = "photos"\nlayout = "splits"')
    project = Project(tmp_path).create(text)
    write_photos(project.photos / "train", {"cat": 20, "dog": 20})
    write_photos(project.photos / "validation", {"cat": 12, "dog": 12}, first=500)
    for name in "abc":
        copy = project.photos / "validation" / "cat" / f"{name}.png"
        copy.write_bytes((project.photos / "validation" / "cat" / "cat3.png").read_bytes())
    outcome = project.make("features", "heads", "sweep")
    assert outcome.code == 0, outcome.out
    for name in ("smooth", "alpha"):
        winner, head = result(project, "sweeps", name)["winner"], result(project, "heads", name)
        expected = head["metrics"]["validation"]
        assert expected["n"] == 24 and expected["copies"] == 3
        assert winner["log_loss"] == pytest.approx(expected["log_loss"], rel=1e-3)
        assert winner["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-6)
        assert winner["accuracy_interval"] == pytest.approx(expected["accuracy_interval"], abs=1e-6)
    rows = trials(project, "smooth")
    assert [(-float(row["accuracy"]), float(row["loss"])) for row in rows] == sorted(
        (-float(row["accuracy"]), float(row["loss"])) for row in rows
    )
    parts = result(project, "sweeps", "smooth")["parts"]
    assert parts["plain_log_loss"] and parts["copies_once"]
    assert "plain_log_loss" not in result(project, "sweeps", "alpha")["parts"]
    # Without smoothing and copies a sweep has the key that it always had.
    for name in "abc":
        (project.photos / "validation" / "cat" / f"{name}.png").unlink()
    project.edit("label_smoothing = [0.0, 0.4]", "label_smoothing = [0.0]")
    assert project.make("heads", "sweep").code == 0
    found = result(project, "sweeps", "smooth")["parts"]
    assert found.keys() == {"schema", "sweep", "head", "bases", "rows"}
