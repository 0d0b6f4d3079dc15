"""Heads that are trained on augmented views: one is drawn for each image and epoch, or all weigh as one image."""

import hashlib
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler

from cache import FeatureStore, ImageRecord, Manifest
from cache.shard import ShardInfo
from stages.heads import stream
from stages.heads.dataset import Dataset
from stages.heads.fitting import fit_all, shared
from stages.heads.own import KerasHead
from stages.heads.spec import KerasSpec, SklearnSpec
from stages.training.member import Fitted, Member
from stages.training.source import InMemory
from stages.training.spec import DenseSpec
from stages.training.stack import NOTHING, Draw
from stages.training.together import train_all

VIEWS, CLASSES, SHAPE = 3, ("cat", "cow", "dog"), (2, 2, 8)


def write(folder: Path, apart: float, rows: int = 240, signal: float = 0.4) -> Dataset:
    """Made-up features, 4 of 5 images for training, with views that are ``apart`` from them."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, len(CLASSES), rows)
    X = (signal * rng.standard_normal((len(CLASSES), *SHAPE))[y] + rng.standard_normal((rows, *SHAPE))).astype(
        np.float32
    )
    records = [
        ImageRecord(f"{i}.jpg", hashlib.sha256(str(i).encode()).hexdigest(), CLASSES[label], "train" if i % 5 else "validation")
        for i, label in enumerate(y)
    ]  # fmt: skip
    train = [i for i, record in enumerate(records) if record.split == "train"]
    stores = []
    for number in range(VIEWS + 1):
        store = FeatureStore(folder / str(number))
        store.create({})
        noise = rng.standard_normal(X.shape).astype(np.float32) * (apart if number else 0)
        for some in np.array_split(train if number else range(rows), 4):
            store.append((X + noise)[some], [records[i] for i in some], CLASSES, ShardInfo("", {}, "", "", {}), "none")
        stores.append(store)
    return Dataset(Manifest("photos", CLASSES, tuple(records)), {"last": stores[0]}, views={"last": stores[1:]})


def dense(**options: object) -> DenseSpec:
    given = {"kind": "dense", "units": [16], "dropout": 0.0, "learning_rate": 1e-3, "epochs": 12, "optimizer": "adam"}
    return DenseSpec.model_validate(given | options)


def trained(data: Dataset, spec: DenseSpec) -> Fitted:
    source = data.source(spec.pool, ("last",), spec.views)
    (found,) = train_all([Member(spec, data.rows("train"), data.rows("validation"))], source, len(CLASSES))
    return found


def test_views_that_are_the_image_train_the_head_that_the_images_train(tmp_path: Path) -> None:
    data = write(tmp_path, apart=0.0)
    plain, viewed = trained(data, dense(epochs=3)), trained(data, dense(epochs=3, views=True))
    for one, other in zip(plain.weights, viewed.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_views_keep_a_head_from_learning_its_rows_by_heart(tmp_path: Path) -> None:
    data = write(tmp_path, apart=1.0)
    plain, viewed = (trained(data, dense(epochs=40, learning_rate=1e-2, views=on)) for on in (False, True))
    assert 2 * plain.history[-1]["loss"] < viewed.history[-1]["loss"]


def test_each_view_is_drawn_as_often_and_anew_in_each_epoch() -> None:
    views = np.stack([np.arange(50), *(np.arange(50) + 50 * k for k in range(1, 4))], axis=1).astype(np.int32)
    seen = []
    for epoch in range(200):
        draw = Draw(seed=3, epoch=epoch, block=0)
        order = draw.order(np.arange(50, dtype=np.int32), 8, 7)
        found = draw.views(order, views)
        assert ((found == NOTHING) == (order == NOTHING)).all() and (found[order >= 0] % 50 == order[order >= 0]).all()
        seen.append(found[order >= 0] // 50)
    assert np.bincount(np.concatenate(seen)) / 10_000 == pytest.approx([0.25] * 4, abs=0.02)
    assert not np.array_equal(seen[0], seen[1])


def test_rows_and_views_are_where_the_table_says(tmp_path: Path) -> None:
    data = write(tmp_path, apart=1.0)
    X = data.X("flatten", ("last",), views=True)
    np.testing.assert_array_equal(X[: len(data.records)], data.X("flatten", ("last",)))
    for row in (*data.rows("train")[:5], *data.rows("validation")[:5]):
        record = data.records[int(row)]
        for number, place in enumerate(data.view_places[row]):
            store = data.views["last"][number - 1] if number and record.split == "train" else data.stores["last"]
            np.testing.assert_array_equal(X[place], store.read([record.sha256]).ravel())
    # A block that is trained on holds them; one that is scored on does not.
    source = data.source("flatten", ("last",), views=True)
    rows = data.rows("train")[::3]
    (block,) = source.blocks(rows, 0)
    assert block.views is not None and block.X.shape[0] == len(rows) * (VIEWS + 1)
    np.testing.assert_array_equal(np.asarray(block.X)[block.views], X[data.view_places[rows]])
    assert (np.asarray(block.y)[block.views] == data.y[rows][:, None]).all()
    (scored,) = source.blocks(rows, None)
    assert scored.views is None and scored.X.shape[0] == len(rows)


def test_streamed_blocks_hold_the_views_of_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LEAST_ROWS", 1)
    whole = write(tmp_path, apart=1.0)
    data = Dataset(whole.manifest, whole.stores, 60 * 5 * 2 * (VIEWS + 1) * 32, whole.views)
    source = data.source("flatten", ("last",), views=True)
    assert not source.whole
    X, rows = whole.X("flatten", ("last",), views=True), data.rows("train", "validation")
    blocks = list(source.blocks(rows, 0))
    assert len(blocks) > 2 and len({block.X.shape for block in blocks}) == 1
    for block in blocks:
        assert block.views is not None
        np.testing.assert_allclose(
            np.asarray(block.X)[block.views], X[whole.view_places[block.positions]], rtol=1e-3, atol=1e-3
        )
        assert (np.asarray(block.y)[block.views] == data.y[block.positions][:, None]).all()
    np.testing.assert_array_equal(np.sort(np.concatenate([block.positions for block in blocks])), rows)
    streamed, memory = (
        min(row["val_loss"] for row in trained(each, dense(views=True)).history) for each in (data, whole)
    )
    assert streamed == pytest.approx(memory, rel=0.1)


def spec_of(estimator: str, **options: object) -> SklearnSpec:
    return SklearnSpec.model_validate({"kind": "sklearn", "estimator": estimator, "views": True, **options})


def fitted(data: Dataset, spec: SklearnSpec, views: bool = True) -> NDArray[np.float64]:
    """What is decided of the validation rows."""
    X = data.X("flatten", ("last",), views)
    (fit,) = fit_all([spec], shared(data, X, data.rows("train"), views))
    assert not fit.problem, fit.problem
    found = getattr(fit.pipeline, "decision_function", getattr(fit.pipeline, "predict_proba", None))
    return np.asarray(found(X[data.rows("validation")]))


@pytest.mark.parametrize(
    "estimator, params",
    [
        ("LogisticRegression", {"C": 0.3, "tol": 1e-6}),
        ("LogisticRegression", {"C": 0.3, "tol": 1e-6, "solver": "newton-cg"}),  # not along a path
        ("RidgeClassifier", {"alpha": 7.0}),
        ("LinearDiscriminantAnalysis", {}),  # takes no weights
        ("GaussianNB", {}),
        ("SVC", {"C": 0.5}),
    ],
)
def test_an_image_with_its_views_weighs_as_one(tmp_path: Path, estimator: str, params: dict[str, object]) -> None:
    data = write(tmp_path, apart=0.0)
    spec = spec_of(estimator, params=params)
    np.testing.assert_allclose(fitted(data, spec), fitted(data, spec, views=False), rtol=2e-2, atol=2e-2)


def test_they_are_what_scikit_learn_fits_with_weights(tmp_path: Path) -> None:
    data = write(tmp_path, apart=1.0)
    X = data.X("flatten", ("last",), views=True)
    places, images = data.with_views(data.rows("train"))
    rows = StandardScaler().fit(X[places])
    weights = np.full(len(places), 1 / (VIEWS + 1))
    for spec, plain in (
        (spec_of("LogisticRegression", params={"C": 0.3}), LogisticRegression(C=0.3, tol=1e-8, max_iter=1000)),
        (spec_of("RidgeClassifier", params={"alpha": 7.0}), RidgeClassifier(alpha=7.0)),
    ):
        plain.fit(rows.transform(X[places]), data.y[images], sample_weight=weights)
        expected = plain.decision_function(rows.transform(X[data.rows("validation")]))
        np.testing.assert_allclose(fitted(data, spec), expected, rtol=2e-2, atol=2e-2)


def test_an_estimators_own_folds_keep_views_together(tmp_path: Path) -> None:
    """Labels that say nothing, and views that are nearly copies: apart, they would be told from one another."""
    data = write(tmp_path, apart=0.02, signal=0.0)
    X = data.X("flatten", ("last",), views=True)
    for folds in ({}, {"cv": 4}):
        spec = spec_of("LogisticRegressionCV", params={"Cs": [100.0], "max_iter": 500, "scoring": "accuracy", **folds})
        (fit,) = fit_all([spec], shared(data, X, data.rows("train"), True))
        estimator = fit.pipeline[-1]
        scores = (
            np.concatenate([np.ravel(each) for each in estimator.scores_.values()])
            if isinstance(estimator.scores_, dict)
            else np.ravel(estimator.scores_)
        )
        assert scores.mean() < 0.5
        assert estimator.cv == folds.get("cv")  # not the rows of this fit


def test_a_head_of_ones_own_draws_what_a_dense_head_draws(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def build(shape, classes):\n    return []\n")
    data = write(tmp_path, apart=1.0)
    X, validation = data.X("flatten", ("last",), views=True), data.rows("validation")
    rows = data.to_train(X, data.rows("train"), True)
    given = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1e-2, "epochs": 2, "batch_size": 10, "views": True}
    spec = KerasSpec.model_validate({"kind": "keras", "build": "mine.py:build", **given})
    own = KerasHead(spec, CLASSES, tmp_path, views=rows.views)
    own.fit(rows.X, rows.y, X[validation], data.y[validation])
    other = trained(data, dense(units=[], **given))
    # Other initial weights, the same rows: what batches change is of one size, epoch by epoch.
    assert [row["loss"] for row in own.history_] == pytest.approx([row["loss"] for row in other.history], rel=0.5)
    assert own.history_[-1].keys() == other.history[-1].keys()


def test_memory_counts_views(tmp_path: Path) -> None:
    whole = write(tmp_path, apart=1.0)
    data = Dataset(whole.manifest, whole.stores, 4 * 4 * 240 * 32 + 1, whole.views)
    assert data.fits("flatten", ("last",)) and not data.fits("flatten", ("last",), views=True)
    assert isinstance(data.source("flatten", ("last",)), InMemory)
    assert not data.source("flatten", ("last",), views=True).whole
