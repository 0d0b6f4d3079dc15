"""Heads against plain Keras and plain scikit-learn."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from cache.errors import HeadError
from stages.heads.baselines import SklearnHead
from stages.heads.dense import DenseHead
from stages.heads.pooling import pool_layers
from stages.heads.spec import SklearnSpec
from stages.training.spec import DenseSpec

CLASSIFIERS = {
    "LogisticRegression": {"C": 0.1, "max_iter": 500},
    "LinearSVC": {},
    "RidgeClassifierCV": {"alphas": [0.1, 1.0, 10.0]},
    "KNeighborsClassifier": {"n_neighbors": 3},
    "RandomForestClassifier": {"n_estimators": 20},
    "HistGradientBoostingClassifier": {"max_iter": 20},
}


def data(classes: int = 3, rows: int = 120, shape: tuple[int, ...] = (2, 2, 16), seed: int = 0):
    """Feature maps around one centre a class, and labels; the last third is validation."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    centres = rng.normal(0, 1.0, (classes, *shape))
    X = np.maximum(centres[y] + rng.normal(0, 1.0, (rows, *shape)), 0).astype(np.float32)
    cut = 2 * rows // 3
    return X[:cut], y[:cut], X[cut:], y[cut:]


def dense(**options: object) -> DenseSpec:
    return DenseSpec.model_validate({"kind": "dense", "epochs": 3, "learning_rate": 1e-3, **options})


def plain_dense256(X, y, X_validation, y_validation, seed: int) -> list[float]:
    """The classic head as a book would write it."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.layers.Input(X.shape[1:]),
            keras.layers.Flatten(),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.RMSprop(learning_rate=2e-5),
        loss="binary_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    history = model.fit(X, y, validation_data=(X_validation, y_validation), epochs=4, batch_size=20, verbose=0)
    return list(history.history["val_loss"])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("estimator", [None, *CLASSIFIERS, "GaussianNB"])
def test_log_probabilities_are_those_of_the_probabilities(classes: int, estimator: str | None) -> None:
    X, y, X_held, y_held = data(classes)
    names = ["a", "b", "c"][:classes]
    if estimator is None:
        head = DenseHead(dense(units=[8]), names).fit(X, y, X_held, y_held)
    else:
        spec = SklearnSpec.model_validate(
            {"kind": "sklearn", "estimator": estimator, "params": CLASSIFIERS.get(estimator, {})}
        )
        head = SklearnHead(spec, names).fit(X, y, X_held, y_held)
    logs, p = head.predict_log_proba(X_held), head.predict_proba(X_held)
    np.testing.assert_allclose(np.exp(logs), p, atol=2e-6)
    np.testing.assert_allclose(np.exp(logs).sum(axis=1), 1, atol=1e-9)
    if estimator is None:
        head._core.layers[-1].kernel.assign(head._core.layers[-1].kernel * 1e4)
        sure = head.predict_log_proba(X_held)
        assert np.isfinite(sure).all() and sure.min() < -1000 and head.predict_proba(X_held).max() > 1 - 1e-6


def test_dense256_reaches_the_validation_loss_of_a_plain_keras_script() -> None:
    """With other draws of weights, batches and dropout; from the same ones it is the same head (test_together)."""
    split = data(classes=2, rows=600, shape=(4, 4, 64))
    spec = dense(units=[256], dropout=0.5, optimizer="rmsprop", learning_rate=2e-5, epochs=4, batch_size=20)
    ours = np.mean([final_loss(spec.model_copy(update={"seed": seed}), split) for seed in range(3)])
    plain = np.mean([plain_dense256(*split, seed=seed)[-1] for seed in range(3)])
    assert ours == pytest.approx(plain, abs=0.04)


def final_loss(spec: DenseSpec, split) -> float:
    return DenseHead(spec, ["cat", "dog"]).fit(*split).history_[-1]["val_loss"]


def test_the_same_seed_gives_the_same_head_and_another_another() -> None:
    split = data()
    first, again, other = (
        DenseHead(dense(seed=seed), ["a", "b", "c"]).fit(*split).predict_proba(split[2]) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("pool", ["flatten", "avg", "max", "flatten+l2", "avg+l2"])
def test_the_saved_model_takes_the_bases_features_and_predicts_what_the_head_does(
    tmp_path: Path, pool: str, classes: int
) -> None:
    split = data(classes)
    names = ["a", "b", "c"][:classes]
    head = DenseHead(dense(pool=pool, units=[8], batch_norm=True), names).fit(*split)
    path = tmp_path / "model.keras"
    head.save(path, {"last": (2, 2, 16)})
    plain = keras.saving.load_model(path, safe_mode=True).predict(split[2], verbose=0)
    plain = np.hstack([1 - plain, plain]) if classes == 2 else plain
    expected = head.predict_proba(split[2])
    np.testing.assert_allclose(plain, expected, atol=1e-5)
    np.testing.assert_allclose(DenseHead.load(path, head.spec, names).predict_proba(split[2]), expected, atol=1e-6)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("pool", ["avg", "avg+l2", "max"])
@pytest.mark.parametrize("shape", [(16,), (5, 16)])
def test_features_that_are_vectors_or_tokens(tmp_path: Path, shape: tuple[int, ...], pool: str) -> None:
    split = data(shape=shape)
    head = DenseHead(dense(pool=pool), ["a", "b", "c"]).fit(*split)
    head.save(tmp_path / "model.keras", {"last": shape})
    plain = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True).predict(split[2], verbose=0)
    np.testing.assert_allclose(plain, head.predict_proba(split[2]), atol=1e-5)
    loaded = DenseHead.load(tmp_path / "model.keras", head.spec, ["a", "b", "c"])
    np.testing.assert_allclose(loaded.predict_proba(split[2]), head.predict_proba(split[2]), atol=1e-6)


def test_the_weights_of_the_best_epoch_are_kept_and_patience_stops() -> None:
    X, y, X_validation, y_validation = data(rows=90)
    y = np.where(np.arange(len(y)) % 3 == 0, (y + 1) % 3, y)  # wrong labels, to overfit to
    split = X, y, X_validation, y_validation
    spec = dense(units=[64], dropout=0.0, optimizer="adam", learning_rate=3e-2, epochs=60, patience=3)
    head = DenseHead(spec, ["a", "b", "c"]).fit(*split)
    losses = [row["val_loss"] for row in head.history_]
    assert head.best_epoch_ == int(np.argmin(losses)) + 1
    assert len(losses) == head.best_epoch_ + 3 < 60
    p = head.predict_proba(split[2])
    kept = -np.log(p[np.arange(len(p)), split[3]]).mean()
    assert kept == pytest.approx(min(losses), abs=1e-4)


@pytest.mark.parametrize("name", ["rmsprop", "adam", "adamw", "sgd"])
def test_every_optimizer_learns_with_weight_decay_and_smoothing(name: str) -> None:
    split = data(rows=240)
    spec = dense(
        optimizer=name, learning_rate=1e-2, weight_decay=1e-3, label_smoothing=0.1, units=[], dropout=0.0, epochs=8
    )
    head = DenseHead(spec, ["a", "b", "c"]).fit(*split)
    assert (head.predict_proba(split[2]).argmax(axis=1) == split[3]).mean() > 0.8


def test_label_smoothing_keeps_probabilities_from_the_ends() -> None:
    split = data(rows=240)
    options = {"units": [], "dropout": 0.0, "optimizer": "adam", "learning_rate": 3e-2, "epochs": 30}
    sharp, smooth = (
        DenseHead(dense(label_smoothing=amount, **options), ["a", "b", "c"])
        .fit(*split)
        .predict_proba(split[0])
        .max(axis=1)
        .mean()
        for amount in (0.0, 0.3)
    )
    assert smooth < sharp - 0.05


def test_balanced_class_weights_lift_the_rare_class() -> None:
    X, y, X_validation, y_validation = data(classes=2, rows=600)
    keep = (y == 0) | (np.arange(len(y)) % 12 == 0)
    options = {"units": [], "dropout": 0.0, "optimizer": "adam", "learning_rate": 3e-3, "epochs": 4}
    plain, balanced = (
        DenseHead(dense(class_weight=weight, **options), ["a", "b"]).fit(X[keep], y[keep], X_validation, y_validation)
        for weight in (None, "balanced")
    )
    rare = X_validation[y_validation == 1]
    assert balanced.predict_proba(rare)[:, 1].mean() > plain.predict_proba(rare)[:, 1].mean() + 0.05


def test_a_rate_that_diverges_is_one_clear_line() -> None:
    spec = dense(optimizer="sgd", learning_rate=1e30, units=[8], dropout=0.0)
    with pytest.raises(HeadError, match=r"training diverged.*lower learning_rate"):
        DenseHead(spec, ["a", "b", "c"]).fit(*data())


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_baselines_fit_predict_and_come_back_from_skops(tmp_path: Path, name: str, classes: int) -> None:
    split = data(classes, rows=150)
    names = ["a", "b", "c"][:classes]
    spec = SklearnSpec.model_validate({"kind": "sklearn", "estimator": name, "params": CLASSIFIERS[name]})
    head = SklearnHead(spec, names).fit(*split)
    p = head.predict_proba(split[2])
    assert p.shape == (50, classes)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert (p.argmax(axis=1) == split[3]).mean() > 0.7
    assert head.history_[0].keys() >= {"loss", "accuracy", "val_loss", "val_accuracy"}
    head.save(tmp_path / "model.skops", {"last": (2, 2, 16)})
    np.testing.assert_array_equal(SklearnHead.load(tmp_path / "model.skops", spec, names).predict_proba(split[2]), p)


def test_a_baseline_equals_plain_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y, X_validation, y_validation = data()
    exact = {"tol": 1e-7, "max_iter": 5000}
    spec = SklearnSpec.model_validate({"kind": "sklearn", "estimator": "LogisticRegression", "params": exact})
    ours = SklearnHead(spec, ["a", "b", "c"]).fit(X, y, X_validation, y_validation).predict_proba(X_validation)
    plain = make_pipeline(StandardScaler(), LogisticRegression(**exact)).fit(X.mean(axis=(1, 2)), y)
    np.testing.assert_allclose(ours, plain.predict_proba(X_validation.mean(axis=(1, 2))), atol=5e-4)


def test_scaling_can_be_left_out() -> None:
    split = data()
    spec = SklearnSpec.model_validate({"kind": "sklearn", "estimator": "KNeighborsClassifier", "scale": False})
    head = SklearnHead(spec, ["a", "b", "c"]).fit(*split)
    assert [name for name, _ in head._pipeline.steps] == ["kneighborsclassifier"]


def test_unknown_names_are_told_with_what_is_near_or_with_all() -> None:
    split = data()
    spec = SklearnSpec.model_validate({"kind": "sklearn", "estimator": "LogisticRegresion"})
    with pytest.raises(HeadError, match=r"no such classifier \(did you mean 'LogisticRegression'\?\)$"):
        SklearnHead(spec, ["a", "b", "c"]).fit(*split)
    spec = SklearnSpec.model_validate({"kind": "sklearn", "estimator": "Nope"})
    with pytest.raises(HeadError, match=r"no such classifier; there are AdaBoostClassifier, "):
        SklearnHead(spec, ["a", "b", "c"]).fit(*split)
    spec = SklearnSpec.model_validate({"kind": "sklearn", "estimator": "LinearSVC", "params": {"c": 1}})
    with pytest.raises(HeadError, match=r"params.c: LinearSVC has no such parameter \(did you mean 'C'\?\)"):
        SklearnHead(spec, ["a", "b", "c"]).fit(*split)
    spec = SklearnSpec.model_validate({"kind": "sklearn", "estimator": "LinearSVC", "params": {"C": -1.0}})
    with pytest.raises(HeadError, match="cannot be fitted: The 'C' parameter of LinearSVC must be"):
        SklearnHead(spec, ["a", "b", "c"]).fit(*split)


def test_a_model_file_with_foreign_types_is_not_loaded(tmp_path: Path) -> None:
    import skops.io

    skops.io.dump(Path, tmp_path / "model.skops")
    spec = SklearnSpec.model_validate({"kind": "sklearn", "estimator": "LinearSVC"})
    with pytest.raises(HeadError, match="expected types of scikit-learn, found pathlib"):
        SklearnHead.load(tmp_path / "model.skops", spec, ["a", "b"])


def test_l2_scales_the_layers_side_by_side_once() -> None:
    rng = np.random.default_rng(0)
    maps, vectors = rng.normal(size=(4, 2, 2, 3)).astype("f"), rng.normal(size=(4, 5)).astype("f")
    maps[0], vectors[0] = 0, 0
    scaled = pool_layers([maps, vectors], "avg+l2")
    plain = pool_layers([maps, vectors], "avg")
    np.testing.assert_allclose(np.linalg.norm(scaled[1:], axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(scaled[1:] * np.linalg.norm(plain[1:], axis=1, keepdims=True), plain[1:], rtol=1e-5)
    assert not scaled[0].any()
    # A head that is asked with pooled features pools them again.
    np.testing.assert_allclose(pool_layers([scaled], "avg+l2"), scaled, rtol=1e-6)
