"""Heads trained together against the same heads trained alone, and against plain Keras."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.heads.dense import build_core
from stages.heads.keras_fit import loss, optimizer
from stages.training import program, stack, together
from stages.training.member import Member
from stages.training.source import InMemory
from stages.training.spec import DenseSpec
from stages.training.together import Training, train_all

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def data(classes: int = 3, rows: int = 130, inputs: int = 24, seed: int = 0) -> Split:
    """Features (n, d) around one centre a class, labels, and the positions of train and validation; 83 is no multiple of 10."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    X = rng.normal(0, 1, (classes, inputs))[y] + rng.normal(0, 1.5, (rows, inputs))
    return X.astype(np.float32), y, np.arange(83), np.arange(83, rows)


def dense(**options: object) -> DenseSpec:
    return DenseSpec.model_validate({"kind": "dense", "epochs": 3, "learning_rate": 1e-2, "batch_size": 10, **options})


def trained(specs: list[DenseSpec], split: Split, classes: int) -> list[together.Fitted]:
    X, y, train, validation = split
    return train_all([Member(spec, train, validation) for spec in specs], InMemory(X, y), classes)


def relative(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-3)) for a, b in pairs)


PLAIN = [
    (3, {"units": []}),
    (2, {"units": [256], "learning_rate": 2e-5}),
    (3, {"units": [16, 8], "activation": "gelu", "optimizer": "adam"}),
    (3, {"units": [16], "optimizer": "adamw", "weight_decay": 1e-2}),
    (2, {"units": [8], "optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-3, "label_smoothing": 0.2}),
    (3, {"units": [8], "optimizer": "rmsprop", "weight_decay": 1e-2, "label_smoothing": 0.1, "class_weight": "balanced"}),
    (3, {"units": [16, 8], "batch_norm": True, "optimizer": "adam"}),
]  # fmt: skip


@pytest.mark.parametrize(("classes", "options"), PLAIN, ids=[f"{c} {o}" for c, o in PLAIN])
def test_a_stack_trains_what_plain_keras_trains(classes: int, options: dict[str, object]) -> None:
    """The second of two, from the same initial weights, in the same order of batches; the last of nine has 3 rows and not 10."""
    split = X, y, train, validation = data(classes)
    specs = [dense(dropout=0.0, epochs=2, seed=seed, **options) for seed in (3, 4)]
    spec, fitted = specs[-1], trained(specs, split, classes)[-1]
    shape = stack.Shape.of(spec, X.shape[1], classes)
    model = build_core(spec, X.shape[1], classes)
    model.set_weights(stack.initial_state([spec], shape).heads([0], shape)[0])
    model.compile(optimizer=optimizer(spec), loss=loss(spec, classes == 2), metrics=["accuracy"], jit_compile=False)
    targets = y.astype(np.float32)[:, None] if classes == 2 else np.eye(classes, dtype=np.float32)[y]
    weight = None
    if spec.class_weight:
        counts = np.bincount(y[train])
        weight = {i: len(train) / (classes * count) for i, count in enumerate(counts)}
    expected, weights = [], []
    for epoch in range(2):
        order = stack.Draw(spec.seed, epoch, 0).order(train.astype(np.int32), 10, 9).ravel()
        order = order[order >= 0]
        found_rows = model.fit(
            X[order], targets[order], batch_size=10, shuffle=False, class_weight=weight, verbose=0,
            validation_data=(X[validation], targets[validation]),
        ).history  # fmt: skip
        expected.append({name: values[0] for name, values in found_rows.items()})
        weights.append(model.get_weights())
    for ours, theirs in zip(fitted.history, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert fitted.best_epoch is not None
    assert relative(fitted.weights, weights[fitted.best_epoch - 1]) < 1e-4


def test_compiled_where_that_pays_and_the_same_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long trainings of large heads pay for XLA, short ones of small heads do not; what is trained is the same."""
    (small, large) = (stack.Shape.of(dense(units=[units]), inputs, 3) for units, inputs in ((8, 24), (256, 8192)))
    assert together.steps_worth_compiling(large, 20, 1) < 300 < 3000 < together.steps_worth_compiling(small, 20, 1)
    split = data()
    specs = [
        dense(units=[16, 8], batch_norm=True, dropout=0.3, mixup=0.4, l2=1e-3, max_norm=1.0, seed=seed)
        for seed in (1, 2)
    ]
    traced = trained(specs, split, 3)
    monkeypatch.setattr(together, "SECONDS_TO_COMPILE", 0.0)
    before = program.program.cache_info().misses
    for here, there in zip(traced, trained(specs, split, 3), strict=True):
        assert relative(here.weights, there.weights) < 1e-4
        assert here.history[-1] == pytest.approx(there.history[-1], rel=1e-4)
    assert program.program.cache_info().misses == before + 1, "compiled anew, by XLA"


@settings(deadline=None, max_examples=2)
@given(
    seeds=st.lists(st.integers(0, 9), min_size=2, max_size=5),
    optimizer_=st.sampled_from(["rmsprop", "adam", "sgd"]),
    units=st.sampled_from([(), (8,), (8, 6)]),
    classes=st.sampled_from([2, 4]),
)
def test_a_head_in_a_stack_is_the_head_alone(
    seeds: list[int], optimizer_: str, units: tuple[int, ...], classes: int
) -> None:
    """Dropout, rates and all: within 1e-5 after an epoch, 1e-3 in the final validation loss."""
    split = data(classes)
    rates = (1e-2, 3e-3, 1e-3, 1e-4, 1e-2)
    specs = [
        dense(units=list(units), optimizer=optimizer_, seed=seed, learning_rate=rate, dropout=0.1 * place, epochs=8)
        for place, (seed, rate) in enumerate(zip(seeds, rates, strict=False))
    ]
    once = [spec.model_copy(update={"epochs": 1}) for spec in specs]
    for fitted, alone in zip(
        trained(once, split, classes), (trained([s], split, classes)[0] for s in once), strict=True
    ):
        assert relative(fitted.weights, alone.weights) < 1e-5
    for fitted, spec in zip(trained(specs, split, classes), specs, strict=True):
        (alone,) = trained([spec], split, classes)
        assert fitted.history[-1]["val_loss"] == pytest.approx(alone.history[-1]["val_loss"], rel=1e-3)


def test_heads_stop_one_by_one_and_leave_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stops where it would alone; where that is worth compiling for, the others go on without it."""
    monkeypatch.setattr(together, "BYTES_WORTH_COMPILING", 0)
    split = X, y, train, validation = data()
    specs = [
        dense(units=[32], dropout=0.0, optimizer="adam", learning_rate=rate, epochs=40, patience=2, seed=i)
        for i, rate in enumerate((1e-1, 3e-2, 1e-2, 1e-4))
    ]
    training = Training([Member(spec, train, validation) for spec in specs], InMemory(X, y), 3)
    sizes = []
    while training.active:
        training.advance(training.epoch + 1)
        sizes.append(sum(len(each.heads) for each in training._stacks))
    assert sizes[0] == 4 and sizes[-1] == 0 and sizes == sorted(sizes, reverse=True) and len(set(sizes)) > 2
    for spec, fitted in zip(specs, training.fitted, strict=True):
        (alone,) = trained([spec], split, 3)
        assert len(fitted.history) == len(alone.history)
        losses = [row["val_loss"] for row in fitted.history]
        assert fitted.best_epoch == int(np.argmin(losses)) + 1
        assert len(losses) in (fitted.best_epoch + 2, 40)


def test_a_head_that_diverges_leaves_the_others_alone() -> None:
    split = data()
    rates = (1e-2, 1e30)
    fine, wild = trained(
        [dense(units=[8], optimizer="sgd", learning_rate=rate, dropout=0.0) for rate in rates], split, 3
    )
    assert wild.best_epoch is None and not wild.weights
    (alone,) = trained([dense(units=[8], optimizer="sgd", learning_rate=1e-2, dropout=0.0)], split, 3)
    assert relative(fine.weights, alone.weights) < 1e-5


def test_folds_of_their_own_in_one_stack() -> None:
    """Heads that are trained and validated on rows of their own, of which some have a batch less."""
    X, y, *_ = data()
    folds = np.arange(130) % 13
    parts = [(np.flatnonzero(folds > k + 1), np.flatnonzero(folds == k)) for k in range(3)]
    members = [Member(dense(units=[8], optimizer="adam", seed=k), *rows) for k, rows in enumerate(parts)]
    assert len({-(-len(member.train) // 10) for member in members}) > 1
    for member, fitted in zip(members, train_all(members, InMemory(X, y), 3), strict=True):
        (alone,) = train_all([member], InMemory(X, y), 3)
        assert fitted.history[-1]["val_loss"] == pytest.approx(alone.history[-1]["val_loss"], rel=1e-3)
        assert relative(fitted.weights, alone.weights) < 1e-3


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_dropout_drops_its_share_and_keeps_the_mean(share: float) -> None:
    ops = keras.ops
    seeds = ops.convert_to_tensor(np.array([[11, 12]], np.int32))
    drop = ops.convert_to_tensor(np.full((2, 1, 1), share, np.float32))
    masks = []
    for step in range(40):
        kept = ops.convert_to_numpy(program._Dropout(seeds, step, drop)(ops.ones((2, 20, 64)), 0))
        np.testing.assert_allclose(np.unique(kept), [0, 1 / (1 - share)], rtol=1e-6)
        masks.append(kept > 0)
    masks = np.stack(masks)  # (steps, heads, rows, units)
    tolerance = 5 * np.sqrt(share * (1 - share) / masks[:, 0].size)
    assert abs(masks[:, 0].mean() - (1 - share)) < tolerance and abs(masks[:, 1].mean() - (1 - share)) < tolerance
    # Neither steps, nor rows, nor heads have anything to do with one another.
    for a, b in ((masks[:-1], masks[1:]), (masks[:, :, :-1], masks[:, :, 1:]), (masks[:, :1], masks[:, 1:])):
        centred = (a - masks.mean()) * (b - masks.mean())
        assert abs(centred.mean()) < 5 * share * (1 - share) / np.sqrt(centred.size)
