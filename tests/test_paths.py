"""Baselines that share a decomposition or a path, against scikit-learn one by one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stages import baselines
from stages.baselines import fit_all, score_all
from stages.paths import Shared, on_path
from stages.specs import SklearnSpec

STRENGTHS = [1e-3, 1e-1, 1.0, 30.0, 1000.0]


def rows(n: int, d: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    X = rng.normal(0, 0.6, (classes, d))[y] + rng.normal(0, 1.0, (n, d))
    return np.maximum(X, 0).astype(np.float32), y


def spec(estimator: str, scale: bool = True, **params: object) -> SklearnSpec:
    return SklearnSpec.model_validate({"kind": "sklearn", "estimator": estimator, "params": params, "scale": scale})


def plain(estimator: object, scale: bool) -> object:
    return make_pipeline(*([StandardScaler()] if scale else []), estimator)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("n", "d"), [(150, 20), (40, 90)])
def test_a_ridge_path_is_scikit_learns_ridge(n: int, d: int, classes: int, scale: bool) -> None:
    X, y = rows(n, d, classes)
    others, _ = rows(60, d, classes, seed=1)
    specs = [spec("RidgeClassifier", scale, alpha=alpha) for alpha in STRENGTHS]
    for alpha, fit in zip(STRENGTHS, fit_all(specs, Shared(X, y)), strict=True):
        expected = plain(RidgeClassifier(alpha=alpha), scale).fit(X.astype(np.float64), y)
        np.testing.assert_allclose(
            fit.pipeline.decision_function(others), expected.decision_function(others), rtol=1e-3, atol=1e-3
        )
        np.testing.assert_array_equal(fit.pipeline.predict(others), expected.predict(others))
        np.testing.assert_array_equal(fit.pipeline.classes_, expected.classes_)


def objective(pipeline: object, X: np.ndarray, y: np.ndarray, c: float) -> float:
    """What logistic regression minimises."""
    p = pipeline.predict_proba(X).astype(np.float64)[np.arange(len(y)), y]
    return c * -np.log(np.maximum(p, 1e-300)).sum() + (pipeline[-1].coef_.astype(np.float64) ** 2).sum() / 2


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("n", "d"), [(150, 20), (40, 90)])
def test_a_logistic_path_is_scikit_learns_within_its_tolerance(n: int, d: int, classes: int) -> None:
    X, y = rows(n, d, classes)
    others, _ = rows(60, d, classes, seed=1)
    specs = [spec("LogisticRegression", C=c, max_iter=2000, tol=1e-7) for c in STRENGTHS[::-1]]
    for c, fit in zip(STRENGTHS[::-1], fit_all(specs, Shared(X, y)), strict=True):
        expected = plain(LogisticRegression(C=c, max_iter=2000, tol=1e-7, random_state=0), True).fit(X, y)
        assert objective(fit.pipeline, X, y, c) <= objective(expected, X, y, c) * (1 + 1e-3)
        # In float32 the solver stops some way off, the further the less is regularised: no further than scikit-learn's own.
        exact = plain(LogisticRegression(C=c, max_iter=9000, tol=1e-9), True).fit(X.astype(np.float64), y)
        away = [
            np.abs(each.predict_proba(others) - exact.predict_proba(others)).max() for each in (fit.pipeline, expected)
        ]
        assert away[0] <= max(3 * away[1], 5e-3)
        assert fit.pipeline[-1].get_params() == expected[-1].get_params()


def test_what_is_not_on_a_path_is_fitted_by_scikit_learn() -> None:
    X, y = rows(80, 12, 3)
    specs = [
        spec("RidgeClassifier", alpha=1.0, solver="svd"),
        spec("RidgeClassifier", alpha=2.0, solver="svd"),
        spec("KNeighborsClassifier", n_neighbors=3),
        spec("LogisticRegression", C=-1.0),
        spec("LogisticRegression", C=1.0),
    ]
    assert [on_path(each) for each in specs] == [False, False, False, True, True]
    fits = fit_all(specs, Shared(X, y))
    assert [bool(fit.problem) for fit in fits] == [False, False, False, True, False]
    assert "'C' parameter" in fits[3].problem
    expected = plain(RidgeClassifier(alpha=2.0, solver="svd"), True).fit(X, y)
    np.testing.assert_allclose(fits[1].pipeline.decision_function(X), expected.decision_function(X), atol=1e-5)


def test_what_takes_long_goes_over_the_cores_and_comes_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows(700, 500, 3)  # more than the megabyte from which joblib maps arrays into memory
    specs = [spec("ExtraTreesClassifier", scale=i % 2 == 0, n_estimators=5, max_depth=i + 2) for i in range(4)]
    alone = [fit.pipeline.predict_proba(X) for fit in fit_all(specs, Shared(X, y))]
    monkeypatch.setattr(baselines, "SECONDS_WORTH_A_PROCESS", 0.0)
    for fit, expected in zip(fit_all(specs, Shared(X, y)), alone, strict=True):
        np.testing.assert_allclose(fit.pipeline.predict_proba(X), expected, atol=1e-6)


def test_scores_over_folds_are_those_of_plain_fits() -> None:
    X, y = rows(90, 16, 3)
    folds = [(np.flatnonzero(np.arange(90) % 3 != k), np.flatnonzero(np.arange(90) % 3 == k)) for k in range(3)]
    specs = [spec("RidgeClassifier", alpha=alpha) for alpha in STRENGTHS]
    for alpha, scored in zip(STRENGTHS, score_all(specs, X, y, folds, ["a", "b", "c"]), strict=True):
        right = [plain(RidgeClassifier(alpha=alpha), True).fit(X[t], y[t]).predict(X[v]) == y[v] for t, v in folds]
        assert scored.accuracy == pytest.approx(np.concatenate(right).mean(), abs=0.02)
