"""Focal loss, mixup, L2 and max-norm in a head of one's own, in a sweep and in a report."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, Project, result, trials, write_photos
from test_together import data, dense, relative, trained

from stages.heads.own import KerasHead
from stages.heads.spec import KerasSpec
from stages.training import stack

MINE = """
import keras
import numpy as np

def build(shape, classes):
    last = keras.layers.Dense(1, "sigmoid") if classes == 2 else keras.layers.Dense(classes, "softmax")
    model = keras.Sequential([keras.layers.Input(shape), keras.layers.Dense(8, "relu"), last])
    with np.load("FOLDER/weights.npz") as file:
        model.set_weights([file[name] for name in file.files])
    return model
"""


@pytest.mark.parametrize(
    ("classes", "options"),
    [
        (3, {"mixup": 0.4, "loss": "focal", "class_weight": "balanced", "label_smoothing": 0.1}),
        (2, {"mixup": 0.4, "class_weight": "balanced", "monitor": "accuracy"}),
        (3, {"mixup": 0.2, "monitor": "accuracy", "patience": 1}),
    ],
)
def test_a_head_of_ones_own_is_trained_as_a_dense_one(tmp_path: Path, classes: int, options: dict[str, Any]) -> None:
    """In the same order and with the same pairs, from the same initial weights."""
    X, y, train, held = split = data(classes)
    spec = dense(units=[8], dropout=0.0, epochs=4, optimizer="adam", seed=5, **options)
    shape = stack.Shape.of(spec, X.shape[1], classes)
    np.savez(tmp_path / "weights.npz", *stack.initial_state([spec], shape).heads([0], shape)[0])
    (tmp_path / "mine.py").write_text(MINE.replace("FOLDER", str(tmp_path)))
    table = {name: value for name, value in spec.parameters().items() if name in KerasSpec.model_fields}
    own = KerasSpec.model_validate(table | {"kind": "keras", "build": "mine.py:build", "pool": "none"})
    head = KerasHead(own, [str(i) for i in range(classes)], tmp_path).fit(X[train], y[train], X[held], y[held])
    (fitted,) = trained([spec], split, classes)
    assert head.best_epoch_ == fitted.best_epoch and len(head.history_) == len(fitted.history)
    assert relative(head._core.get_weights(), fitted.weights) < 1e-3
    for mine, theirs in zip(head.history_, fitted.history, strict=True):
        assert mine.keys() == theirs.keys()
        for name in ("val_loss", "val_accuracy"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-3)


def test_a_focal_loss_of_ones_own_head_is_told_as_cross_entropy(tmp_path: Path) -> None:
    X, y, train, held = data()
    (tmp_path / "mine.py").write_text("import keras\ndef build(s, c):\n    return [keras.layers.Dense(8, 'relu')]\n")
    spec = KerasSpec.model_validate({"kind": "keras", "build": "mine.py:build", "epochs": 3, "loss": "focal"})
    head = KerasHead(spec, ["a", "b", "c"], tmp_path).fit(X[train], y[train], X[held], y[held])
    kept = -head.predict_log_proba(X[held])[np.arange(len(held)), y[held]].mean()
    assert head.history_[head.best_epoch_ - 1]["val_loss"] == pytest.approx(kept, rel=1e-4)
    assert head.history_[0].keys() == {"loss", "accuracy", "val_loss", "val_accuracy"}


HEADS = """
[heads.small]
kind = "dense"
pool = "avg"
units = [8]
epochs = 6
optimizer = "adam"
learning_rate = 1e-2

[heads.hard]
kind = "dense"
loss = "focal"
focal_gamma = 1.5
mixup = 0.2
l2 = 1e-3
max_norm = 3
monitor = "accuracy"
epochs = 3
refit = true

[sweeps.losses]
head = "small"
strategy = "halving"
factor = 2
grid = { loss = ["cross_entropy", "focal"], focal_gamma = [1.0, 2.0], mixup = [0.0, 0.2], monitor = ["loss", "accuracy"] }

[sweeps.limits]
head = "small"
strategy = "random"
trials = 4
cv = 2
grid = { max_norm = { low = 1, high = 4 }, l2 = { low = 1e-5, high = 1e-1, log = true }, monitor = ["accuracy"] }
"""


def test_they_are_swept_refitted_and_reported(tmp_path: Path) -> None:
    project = Project(tmp_path / "project").create(CONFIG + HEADS)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    outcome = project.make("sweep", "report")
    assert outcome.code == 0 and {"hard", "losses", "limits"} <= set(outcome.trained), outcome.out
    rows = trials(project, "losses")
    # Without a focal loss there is no gamma, and one trial for both: 3 of the losses, times 2 and 2.
    assert sorted(row["focal_gamma"] for row in rows) == ["", "", "", "", *["1.0"] * 4, *["2.0"] * 4]
    assert all(1 <= float(row["max_norm"]) < 4 and "." in row["max_norm"] for row in trials(project, "limits"))
    spec = result(project, "heads", "hard")["spec"]
    assert spec["loss"] == "focal" and spec["max_norm"] == 3.0 and spec["monitor"] == "accuracy"
    page = (project.artifacts / "report" / "index.html").read_text()
    assert "focal loss, γ 1.5 · mixup 0.2 · L2 0.001 · max-norm 3 · epoch by accuracy" in page
    assert "up to date" in project.headstart("heads").out
    project.edit("focal_gamma = 1.5\n", "")
    assert "focal_gamma 1.5 → 2.0" in project.headstart("status").out
    project.edit('loss = "focal"\n', "")
    assert 'loss "focal" → "cross_entropy", focal_gamma 1.5 → 2.0' in project.headstart("status").out
