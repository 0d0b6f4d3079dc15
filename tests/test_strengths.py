"""Baselines that share a decomposition or a path, against scikit-learn one by one."""

import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stages.heads import fitting, strengths
from stages.heads.fitting import fit_all
from stages.heads.spec import SklearnSpec
from stages.heads.strengths import Shared, on_path
from stages.sweeps.folds import Fold
from stages.sweeps.measure import Measure
from stages.sweeps.scoring import Scored, score_all

STRENGTHS = [1e-3, 1e-1, 1.0, 30.0, 1000.0]


def rows(n: int, d: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    X = rng.normal(0, 0.6, (classes, d))[y] + rng.normal(0, 1.0, (n, d))
    return np.maximum(X, 0).astype(np.float32), y


def spec(estimator: str, scale: bool = True, **params: object) -> SklearnSpec:
    return SklearnSpec.model_validate({"kind": "sklearn", "estimator": estimator, "params": params, "scale": scale})


def scored(specs: list[SklearnSpec], X: np.ndarray, y: np.ndarray, folds: list[Fold]) -> list[list[Scored]]:
    """Each baseline on each fold, all rows of which count."""
    held = np.sort(np.concatenate([rows for _, rows in folds]))
    return score_all(specs, X, Measure(folds, y, 3, held), ["a", "b", "c"], lambda rows: Shared(X[rows], y[rows]))


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


@pytest.mark.parametrize("estimator", ["RidgeClassifier", "LogisticRegression"])
@pytest.mark.parametrize(
    ("n", "d", "classes"), [(150, 20, 2), (150, 20, 4), (40, 90, 3), (120, 2100, 2), (120, 2100, 5)]
)
def test_a_fit_is_the_same_alone_and_in_company(estimator: str, n: int, d: int, classes: int) -> None:
    X, y = rows(n, d, classes)
    name = strengths.STRENGTH[estimator]
    specs = [spec(estimator, **{name: strength}) for strength in [*STRENGTHS, 0.5, 2.0, 5.0, 9.0]]
    alone = [fit_all([each], Shared(X, y))[0] for each in specs]
    for company in (2, 3, 5, 9):
        for some in (slice(company), slice(-company, None)):
            for fit, expected in zip(fit_all(specs[some], Shared(X, y)), alone[some], strict=True):
                np.testing.assert_allclose(fit.pipeline[-1].coef_, expected.pipeline[-1].coef_, rtol=0, atol=1e-6)
                np.testing.assert_allclose(
                    fit.pipeline.decision_function(X), expected.pipeline.decision_function(X), atol=1e-5
                )
                assert fit.warnings == expected.warnings


@pytest.mark.parametrize(
    ("estimator", "params", "wrong"),
    [
        ("RidgeClassifier", {"alpha": -1.0}, "'alpha'"),
        ("RidgeClassifier", {"alpha": float("nan")}, "'alpha'"),
        ("LogisticRegression", {"C": "a"}, "'C'"),
        ("LogisticRegression", {"C": 0.0}, "'C'"),
        ("LogisticRegression", {"max_iter": -5}, "'max_iter'"),
        ("LogisticRegression", {"max_iter": 2.5}, "'max_iter'"),
        ("LogisticRegression", {"tol": -1}, "'tol'"),
    ],
)
def test_a_bad_parameter_is_its_own_problem_in_scikit_learns_words(
    estimator: str, params: dict[str, object], wrong: str
) -> None:
    X, y = rows(60, 8, 3)
    good = [spec(estimator), spec(estimator, **{strengths.STRENGTH[estimator]: 2.0})]
    fits = fit_all([good[0], spec(estimator, **params), spec(estimator, **params), good[1]], Shared(X, y))
    assert [bool(fit.problem) for fit in fits] == [False, True, True, False]
    assert f"cannot be fitted: The {wrong} parameter of {estimator} must be" in fits[1].problem


@pytest.mark.parametrize(("n", "d"), [(150, 20), (40, 90)])
def test_ridge_without_a_penalty_is_least_squares_of_the_lowest_norm(n: int, d: int) -> None:
    X, y = rows(n, d, 3)
    X[:, 3], X[:, 4] = 1.0, X[:, 5]
    (fit,) = fit_all([spec("RidgeClassifier", False, alpha=0.0)], Shared(X, y))
    targets = np.where(y[:, None] == np.arange(3), 1.0, -1.0)
    expected = np.linalg.pinv(X - X.mean(axis=0, dtype=np.float64)) @ (targets - targets.mean(axis=0))
    np.testing.assert_allclose(fit.pipeline[-1].coef_.T, expected, atol=1e-5)


def test_probabilities_that_are_not_finite_are_a_problem() -> None:
    X, y = rows(60, 8, 3)
    X[:, 3] = 1.0
    fold = np.arange(40), np.arange(40, 60)
    with np.errstate(all="ignore"):
        (bad,), (good,) = scored([spec("GaussianNB", var_smoothing=0.0), spec("GaussianNB")], X, y, [fold])
    assert bad.problem.startswith("GaussianNB: expected finite probabilities, found others in 20 of 20 rows")
    assert not good.problem


def test_what_differs_in_a_seed_that_changes_nothing_is_fitted_once() -> None:
    X, y = rows(90, 16, 3)
    fold = np.arange(60), np.arange(60, 90)
    kinds = [
        spec("KNeighborsClassifier"),
        spec("LogisticRegression"),
        spec("ExtraTreesClassifier", n_estimators=3, random_state=1),
        spec("ExtraTreesClassifier", n_estimators=3),
    ]
    specs = [each.model_copy(update={"seed": seed}) for each in kinds for seed in range(3)]
    found = [each for (each,) in scored(specs, X, y, [fold])]
    alone = [each for spec in specs for ((each,),) in [scored([spec], X, y, [fold])]]
    losses = [each.outcomes.log_p.tolist() for each in found]
    assert losses == [each.outcomes.log_p.tolist() for each in alone]
    assert [each.seconds > 0 for each in found] == [True, False, False] * 3 + [True] * 3
    assert losses[-1] != losses[-2]


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
    monkeypatch.setattr(fitting, "SECONDS_WORTH_A_PROCESS", 0.0)
    for fit, expected in zip(fit_all(specs, Shared(X, y)), alone, strict=True):
        np.testing.assert_allclose(fit.pipeline.predict_proba(X), expected, atol=1e-6)


def test_scores_over_folds_are_those_of_plain_fits() -> None:
    X, y = rows(90, 16, 3)
    folds = [(np.flatnonzero(np.arange(90) % 3 != k), np.flatnonzero(np.arange(90) % 3 == k)) for k in range(3)]
    specs = [spec("RidgeClassifier", alpha=alpha) for alpha in STRENGTHS]
    measure = Measure(folds, y, 3, np.arange(90))
    for alpha, found in zip(STRENGTHS, scored(specs, X, y, folds), strict=True):
        right = [plain(RidgeClassifier(alpha=alpha), True).fit(X[t], y[t]).predict(X[v]) == y[v] for t, v in folds]
        score = measure.score([measure.joined([fold.outcomes for fold in found])])
        assert score.accuracy == pytest.approx(np.concatenate(right).mean(), abs=0.02)


def test_a_line_search_that_fails_says_so_unless_float32_tells_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two functions that go up wherever they say down, the second by no more than rounding of its value may be."""

    def objective(at: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lowest = np.array([1.0, 1e6])[which]
        return lowest * (1 + 5e-7 * (at[:, 0] != 1.0)), np.array([[0.5], [1e-3]])[which]

    at, iterations, converged, steepest = strengths.minimise(objective, np.ones((2, 1)), 1e-4, 50)
    assert at.tolist() == [[1.0], [1.0]] and iterations.tolist() == [1, 1]
    assert converged.tolist() == [False, True] and steepest.tolist() == [0.5, 1e-3]
    monkeypatch.setattr(strengths, "HALVINGS", 0)
    X, y = rows(60, 8, 3)
    (fit,) = fit_all([spec("LogisticRegression")], Shared(X, y))
    (line,) = fit.warnings
    assert re.fullmatch(
        r"ConvergenceWarning: stopped after 1 iterations, as no step went down, with a gradient of \S+ where tol = 1.0e-04, "
        "before it converged",
        line,
    )


def test_a_path_that_converges_warns_of_nothing() -> None:
    X, y = rows(90, 16, 3)
    fits = fit_all([spec("LogisticRegression", C=c, max_iter=2000) for c in STRENGTHS], Shared(X, y))
    assert [fit.warnings for fit in fits] == [[]] * len(STRENGTHS)
