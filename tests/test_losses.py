"""Focal loss, mixup, L2, max-norm and what the epoch is chosen by: against plain Keras, in a stack and alone."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_together import Split, data, dense, relative, trained

from cache.errors import HeadError
from stages.heads.batches import FeatureBatches
from stages.heads.dense import DenseHead
from stages.heads.head import Rows
from stages.heads.keras_fit import drawn, optimizer
from stages.heads.tuned_spec import FinetuneSpec
from stages.training import stack
from stages.training.member import Member, class_weights
from stages.training.source import InMemory
from stages.training.spec import DenseSpec
from stages.training.together import train_all

PLAIN = [
    (3, {"units": [16], "optimizer": "adam", "loss": "focal", "label_smoothing": 0.1, "class_weight": "balanced"}),
    (2, {"units": [16], "loss": "focal", "label_smoothing": 0.1, "focal_gamma": 3.0}),
    (2, {"units": [], "loss": "focal", "focal_gamma": 0.5, "class_weight": "balanced"}),
    (3, {"units": [16, 8], "l2": 1e-2}),
    (2, {"units": [], "optimizer": "adam", "l2": 0.1}),
    (3, {"units": [16, 8], "optimizer": "sgd", "max_norm": 0.9}),
    (2, {"units": [], "optimizer": "adamw", "max_norm": 0.3}),
    (3, {"units": [8], "optimizer": "adam", "mixup": 0.4, "class_weight": "balanced", "label_smoothing": 0.1}),
    (2, {"units": [8], "mixup": 0.2, "class_weight": "balanced"}),
    (3, {"units": [8], "batch_norm": True, "mixup": 1.0, "loss": "focal", "l2": 1e-3, "max_norm": 1.2, "weight_decay": 1e-2}),
]  # fmt: skip


def plain_keras(spec: DenseSpec, inputs: int, classes: int) -> Any:
    """The head as somebody would write it who has never seen this project, from its initial weights."""
    layers = keras.layers
    small = {
        "kernel_regularizer": keras.regularizers.L2(spec.l2) if spec.l2 else None,
        "kernel_constraint": keras.constraints.MaxNorm(spec.max_norm) if spec.max_norm else None,
    }
    model = keras.Sequential([layers.Input((inputs,))])
    for units in spec.units:
        model.add(layers.Dense(units, use_bias=not spec.batch_norm, **small))
        if spec.batch_norm:
            model.add(layers.BatchNormalization())
        model.add(layers.Activation("relu"))
    last = {} if spec.units else small
    model.add(layers.Dense(1, "sigmoid", **last) if classes == 2 else layers.Dense(classes, "softmax", **last))
    shape = stack.Shape.of(spec, inputs, classes)
    model.set_weights(stack.initial_state([spec], shape).heads([0], shape)[0])
    smoothing = {"label_smoothing": spec.label_smoothing}
    if classes == 2:
        loss: Any = keras.losses.BinaryCrossentropy(**smoothing)
        told: Any = keras.metrics.BinaryCrossentropy(name="log_loss", **smoothing)
        if spec.loss == "focal":
            loss = keras.losses.BinaryFocalCrossentropy(gamma=spec.focal_gamma, **smoothing)
    else:
        loss = keras.losses.CategoricalCrossentropy(**smoothing)
        told = keras.metrics.CategoricalCrossentropy(name="log_loss", **smoothing)
        if spec.loss == "focal":
            loss = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=spec.focal_gamma, **smoothing)
    model.compile(optimizer=optimizer(spec), loss=loss, metrics=["accuracy", told], jit_compile=False)
    return model


def mixed_epoch(spec: DenseSpec, epoch: int, X: np.ndarray, hot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and weighted labels (n, classes) in the order of an epoch of nine batches, mixed where the head asks for it."""
    draw = stack.Draw(spec.seed, epoch, 0)
    order = draw.order(np.arange(len(X), dtype=np.int32), 10, 9)
    partners, shares = draw.mixup(order, spec.mixup) if spec.mixup else (order, np.ones(order.shape))
    there = order.ravel() >= 0
    one, other, share = order.ravel()[there], partners.ravel()[there], shares.ravel()[there][:, None]
    mixed = ((part[one] * share + part[other] * (1 - share)).astype(np.float32) for part in (X, hot))
    return tuple(mixed)  # type: ignore[return-value]


@pytest.mark.parametrize(("classes", "options"), PLAIN, ids=[f"{c} {o}" for c, o in PLAIN])
def test_a_stack_trains_what_plain_keras_trains(classes: int, options: dict[str, Any]) -> None:
    """The second of two at once, from the same initial weights, in the same order of batches. What is told is plain cross-entropy."""
    split = X, y, train, validation = data(classes)
    specs = [dense(dropout=0.0, epochs=2, seed=seed, **options) for seed in (3, 4)]
    hot = np.eye(classes, dtype=np.float32)[y]
    spec, fitted = specs[-1], trained(specs, split, classes)[-1]
    model = plain_keras(spec, X.shape[1], classes)
    weighted = hot * class_weights(spec, y[train], classes)
    held = X[validation], hot[validation][:, 1:] if classes == 2 else hot[validation]
    weights = []
    for epoch in range(2):
        rows, targets = mixed_epoch(spec, epoch, X[train], weighted[train])
        weight = targets.sum(axis=1)
        targets = targets / weight[:, None]
        targets = targets[:, 1:] if classes == 2 else targets
        told = model.fit(
            rows, targets, batch_size=10, shuffle=False, sample_weight=weight, validation_data=held, verbose=0
        ).history
        weights.append(model.get_weights())
        ours = fitted.history[epoch]
        assert ours["val_loss"] == pytest.approx(told["val_log_loss"][0], rel=1e-4)
        assert ours["val_accuracy"] == pytest.approx(told["val_accuracy"][0], abs=1e-6)
        if not spec.mixup:
            assert ours["accuracy"] == pytest.approx(told["accuracy"][0], abs=1e-6)
        if not spec.class_weight:
            assert ours["loss"] == pytest.approx(told["log_loss"][0], rel=1e-4)
    assert fitted.best_epoch is not None
    assert relative(fitted.weights, weights[fitted.best_epoch - 1]) < 1e-4


EVERYTHING: dict[str, Any] = {"loss": "focal", "mixup": 0.3, "l2": 1e-3, "max_norm": 0.8}
USED = st.fixed_dictionaries(
    {},
    optional={
        "loss": st.just("focal"), "mixup": st.sampled_from([0.2, 1.0]), "l2": st.just(1e-2), "max_norm": st.just(0.8),
        "dropout": st.just(0.0), "label_smoothing": st.just(0.2), "class_weight": st.just("balanced"),
    },
)  # fmt: skip


@settings(deadline=None, max_examples=2)
@given(
    used=st.lists(USED, min_size=1, max_size=3),
    units=st.sampled_from([[], [8]]),
    classes=st.sampled_from([2, 4]),
)
def test_a_head_in_a_stack_is_the_head_alone(used: list[dict[str, Any]], units: list[int], classes: int) -> None:
    """With others that use all there is, and on fewer rows than they have."""
    X, y, train, validation = data(classes)
    source = InMemory(X, y)
    specs = [dense(units=units, epochs=1, seed=i, **each) for i, each in enumerate([*used, {}, EVERYTHING])]
    members = [Member(spec, train[: 75 + 4 * i], validation) for i, spec in enumerate(specs)]
    for member, fitted in zip(members, train_all(members, source, classes), strict=True):
        (alone,) = train_all([member], source, classes)
        whole = [np.concatenate([each.ravel() for each in one.weights]) for one in (fitted, alone)]
        assert relative(whole[:1], whole[1:]) < 1e-5
        # Sums are taken in another order, and an optimizer that divides by the size of a gradient makes the most of it in a small bias.
        assert relative(fitted.weights, alone.weights) < 1e-4


def test_a_focal_loss_with_gamma_0_is_cross_entropy_and_no_mixup_is_none() -> None:
    split = data()
    nothing = {"loss": "focal", "focal_gamma": 0.0, "mixup": 0.0, "l2": 0.0, "max_norm": 0.0}
    for classes in (2, 3):
        split = data(classes)
        plain, same = (trained([dense(units=[8], **each)], split, classes)[0] for each in ({}, nothing))
        assert relative(same.weights, plain.weights) < 1e-5
        (without,) = trained([dense(units=[8], **nothing | {"loss": "cross_entropy"})], split, classes)
        assert without.history == plain.history


def test_no_row_is_so_sure_that_a_focal_loss_has_no_gradient() -> None:
    """Of logits beyond what exp holds, right ones and wrong ones."""
    X, y, train, validation = data()
    for classes, gamma in ((2, 2.0), (2, 0.0), (3, 2.0), (3, 0.0), (3, 0.3)):
        _, y, *_ = data(classes)
        specs = [dense(units=[], loss="focal", focal_gamma=gamma, dropout=0.0, epochs=2), dense(units=[], dropout=0.0)]
        for fitted in trained(specs, (X * np.float32(1e4), y, train, validation), classes):
            assert all(np.isfinite(weights).all() for weights in fitted.weights) and fitted.weights


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_mixup_pairs_rows_of_one_batch_and_draws_their_shares(alpha: float) -> None:
    rows = np.arange(100, 183, dtype=np.int32)
    draw = stack.Draw(3, 1, 0)
    order = draw.order(rows, 10, 9)
    partners, shares = draw.mixup(order, alpha)
    np.testing.assert_array_equal(np.sort(partners, axis=1), np.sort(order, axis=1))
    np.testing.assert_array_equal(partners < 0, order < 0)
    assert (shares[order >= 0] <= 1).all() and (shares[order < 0] == 1).all()
    # Of a stack that has more steps than the head: the same.
    longer = draw.mixup(draw.order(rows, 10, 12), alpha)
    np.testing.assert_array_equal(longer[0][:9], partners)
    np.testing.assert_array_equal(longer[1][:9], shares)
    many = np.concatenate([stack.Draw(seed, 0, 0).mixup(order, alpha)[1][order >= 0] for seed in range(100)])
    assert many.mean() == pytest.approx(0.5, abs=0.03)
    assert many.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)  # of Beta(α, α)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_model_of_ones_own_and_one_that_is_fine_tuned_mix_the_same_rows_alike(classes: int) -> None:
    X, y, train, validation = data(classes)
    spec = FinetuneSpec(kind="finetune", head="x", mixup=0.4, class_weight="balanced", batch_size=10, seed=3)
    rows, weights = Rows(X[train].reshape(-1, 4, 6), y[train]), class_weights(spec, y[train], classes)
    own = drawn(rows, None, weights, spec, classes == 2)
    tuned = FeatureBatches(InMemory(X, y), (4, 6), spec, train, validation, classes)
    for epoch in range(2):
        for batch in tuned.training(epoch):
            for found, expected in zip(batch, next(own), strict=True):
                np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6, atol=1e-7)


def noisy() -> Split:
    X, y, train, validation = data(rows=200)
    return X, np.where(np.arange(len(y)) % 3 == 0, (y + 1) % 3, y), train, validation


def test_the_epoch_of_the_highest_accuracy_is_kept_and_patience_counts_on_it() -> None:
    split = noisy()
    options: dict[str, Any] = {"units": [32], "dropout": 0.0, "optimizer": "adam", "epochs": 40, "patience": 4}
    specs = [dense(monitor=monitor, seed=seed, **options) for seed in range(3) for monitor in ("accuracy", "loss")]
    found = trained(specs, split, 3)
    assert any(one.best_epoch != other.best_epoch for one, other in zip(found[::2], found[1::2], strict=True))
    for spec, fitted in zip(specs, found, strict=True):
        values = [row["val_loss"] if spec.monitor == "loss" else -row["val_accuracy"] for row in fitted.history]
        assert fitted.best_epoch == int(np.argmin(np.round(values, 6))) + 1
        assert len(values) in (fitted.best_epoch + 4, 40)


def test_a_head_that_diverges_has_no_epoch_of_highest_accuracy() -> None:
    spec = dense(units=[8], optimizer="sgd", learning_rate=1e30, dropout=0.0, monitor="accuracy")
    (fitted,) = trained([spec], data(), 3)
    assert fitted.best_epoch is None
    with pytest.raises(HeadError, match="training diverged"):
        X, y, train, held = data()
        DenseHead(spec, ["a", "b", "c"]).fit(X[train], y[train], X[held], y[held])
