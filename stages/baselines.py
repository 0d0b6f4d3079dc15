"""Baselines: any scikit-learn classifier by name, on pooled features, standardised unless told otherwise."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.dataset import pool_features
from stages.metrics import EPSILON, log_probabilities, log_softmax, scores
from stages.specs import SklearnSpec
from stages.table import nearest

if TYPE_CHECKING:
    from stages.paths import Shared

# Where most classifiers live, the likeliest first: importing all of scikit-learn to find one costs a second.
MODULES = ("linear_model", "svm", "neighbors", "discriminant_analysis", "naive_bayes", "neural_network", "ensemble")
# The parameter that a path goes along, for the estimators that have one.
STRENGTH = {"RidgeClassifier": "alpha", "LogisticRegression": "C"}
# Starting processes and importing scikit-learn in them takes about as long.
SECONDS_WORTH_A_PROCESS = 2.0


def classifier(spec: SklearnSpec) -> Any:
    """The estimator that the spec names, with its parameters. Raises HeadError that lists what there is."""
    kind = _class_named(spec.estimator)
    try:
        estimator = kind()
    except TypeError as error:
        raise HeadError(
            f"estimator {spec.estimator!r}: cannot be made from params alone ({error}); choose another"
        ) from error
    params = estimator.get_params(deep=False)
    for name in spec.params:
        if name not in params:
            raise HeadError(
                f"params.{name}: {spec.estimator} has no such parameter{nearest(name, params)}; there are {', '.join(params)}"
            )
    seed = {"random_state": spec.seed} if "random_state" in params else {}
    return estimator.set_params(**seed | spec.params)


def _class_named(name: str) -> Any:
    from sklearn.base import ClassifierMixin

    for module in MODULES:
        found = getattr(import_module(f"sklearn.{module}"), name, None)
        if isinstance(found, type) and issubclass(found, ClassifierMixin):
            return found
    from sklearn.utils import all_estimators

    known = dict(all_estimators(type_filter="classifier"))
    if name not in known:
        raise HeadError(
            f"estimator {name!r}: scikit-learn has no such classifier{nearest(name, known)}; there are {', '.join(known)}"
        )
    return known[name]


@dataclass(frozen=True)
class Fit:
    """A fitted pipeline with its warnings and seconds; or the problem, where it could not be fitted."""

    pipeline: Any
    warnings: list[str]
    seconds: float
    problem: str = ""


def fit_all(specs: Sequence[SklearnSpec], shared: "Shared") -> list[Fit]:
    """Fit baselines on the same rows. Those that differ in their strength alone share a decomposition or a path; of the
    others, once one has taken long, the rest go over the cores through joblib, which maps the features into memory.

    A fit is the same alone and in any company.
    """
    from stages.paths import fit_path, on_path

    found: dict[int, Fit] = {}
    paths: dict[str, list[int]] = {}
    for i, spec in enumerate(specs):
        if on_path(spec):
            try:
                classifier(spec)._validate_params()  # what ``fit`` begins with
            except ValueError as error:
                found[i] = _failed(spec, error)
                continue
            others = {name: value for name, value in spec.params.items() if name != STRENGTH[spec.estimator]}
            paths.setdefault(repr((spec.estimator, spec.scale, sorted(others.items()))), []).append(i)
    for places in paths.values():
        start = perf_counter()
        try:
            fitted = fit_path([specs[i] for i in places], shared)
        except ValueError:
            continue  # about the rows: scikit-learn says what is wrong with them
        seconds = (perf_counter() - start) / len(places)
        found |= {i: Fit(*each, seconds) for i, each in zip(places, fitted, strict=True)}
    return [found[i] for i in range(len(specs))] if len(found) == len(specs) else _others(specs, shared, found)


def _others(specs: Sequence[SklearnSpec], shared: "Shared", found: dict[int, Fit]) -> list[Fit]:
    import joblib

    todo = [i for i in range(len(specs)) if i not in found]
    while todo:
        i = todo.pop(0)
        found[i] = _with_steps(_fit_one(specs[i], shared.rows(specs[i].scale)[1], shared.y), specs[i], shared)
        if found[i].seconds > SECONDS_WORTH_A_PROCESS and len(todo) > 1:
            jobs = [joblib.delayed(_fit_one)(specs[j], shared.rows(specs[j].scale)[1], shared.y, 1) for j in todo]
            fitted = joblib.Parallel(n_jobs=-1)(jobs)
            found |= {j: _with_steps(each, specs[j], shared) for j, each in zip(todo, fitted, strict=True)}
            break
    return [found[i] for i in range(len(specs))]


def _with_steps(fit: Fit, spec: SklearnSpec, shared: "Shared") -> Fit:
    from sklearn.pipeline import make_pipeline

    steps, _ = shared.rows(spec.scale)
    return fit if fit.problem else replace(fit, pipeline=make_pipeline(*steps, fit.pipeline))


def _fit_one(spec: SklearnSpec, rows: NDArray[np.float32], y: NDArray[np.int64], n_jobs: int = -1) -> Fit:
    """A fitted classifier."""
    import joblib

    start = perf_counter()
    with joblib.parallel_config(n_jobs=n_jobs), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fitted = classifier(spec).fit(rows, y)
        except (ValueError, TypeError) as error:  # InvalidParameterError is a ValueError
            return _failed(spec, error)
    return Fit(fitted, told(caught), perf_counter() - start)


def _failed(spec: SklearnSpec, error: Exception) -> Fit:
    return Fit(None, [], 0.0, f"{spec.estimator}: cannot be fitted: {' '.join(str(error).split())}")


def told(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """Warnings in words, each once. What later versions of a library will change is no news to who trains a head."""
    ignored = (FutureWarning, DeprecationWarning, PendingDeprecationWarning)
    kept = [w for w in caught if not issubclass(w.category, ignored)]
    return sorted({f"{w.category.__name__}: {' '.join(str(w.message).split())}" for w in kept})


@dataclass(frozen=True)
class Scored:
    """How a baseline did on held-out rows: accuracy, log loss (nats), seconds; or the problem."""

    accuracy: float
    loss: float
    seconds: float
    problem: str = ""


def score_all(
    specs: Sequence[SklearnSpec],
    X: NDArray[np.float32],
    y: NDArray[np.int64],
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    classes: Sequence[str],
) -> list[Scored]:
    """Fit each baseline on the first rows of each fold and score it on the others; over folds, by their sizes.

    Those that differ in a seed that changes nothing are fitted once; the seconds are the first one's.
    """
    from stages.paths import Shared

    keys = [repr(_seedless(spec)) for spec in specs]
    once = {key: specs[keys.index(key)] for key in keys}
    parts: dict[str, list[Scored]] = {key: [] for key in once}
    for train, validation in folds:
        fits = fit_all(list(once.values()), Shared(X[train], y[train]))
        for (key, spec), fit in zip(once.items(), fits, strict=True):
            try:
                logs = SklearnHead(spec, classes).take(fit)._tried(X[validation])
                found = scores(y[validation], logs, classes)
                parts[key].append(Scored(found["accuracy"], found["log_loss"], fit.seconds))
            except HeadError as error:
                parts[key].append(Scored(0.0, float("inf"), fit.seconds, str(error)))
    sizes = np.array([len(validation) for _, validation in folds], np.float64)
    sizes /= sizes.sum()
    scored = {
        key: Scored(
            float(sizes @ [part.accuracy for part in each]),
            float(sizes @ [part.loss for part in each]),
            sum(part.seconds for part in each),
            next((part.problem for part in each if part.problem), ""),
        )
        for key, each in parts.items()
    }
    return [scored[key] if keys.index(key) == i else replace(scored[key], seconds=0.0) for i, key in enumerate(keys)]


def _seedless(spec: SklearnSpec) -> SklearnSpec:
    """The spec with seed 0 where the estimator draws nothing from it."""
    from stages.paths import on_path

    draws = "random_state" in classifier(spec).get_params(deep=False) and "random_state" not in spec.params
    return spec if draws and not on_path(spec) else spec.model_copy(update={"seed": 0})


class SklearnHead:
    """A scikit-learn classifier as a head: ``fit``, ``predict_proba``, ``predict``, ``classes_``.

    ``probabilities_`` says where probabilities come from: the classifier, or a softmax of its decision function
    (uncalibrated) for those that give none.
    """

    def __init__(self, spec: SklearnSpec, classes: Sequence[str]) -> None:
        self.spec = spec
        self.classes_ = np.array(classes)
        self.history_: list[dict[str, float]] = []
        self.best_epoch_: int | None = None
        self.n_parameters_: int | None = None
        self.warnings_: list[str] = []
        self._pipeline: Any = None

    @property
    def probabilities_(self) -> str:
        if hasattr(self._pipeline, "predict_proba"):
            return "predict_proba"
        if hasattr(self._pipeline, "decision_function"):
            return "softmax of decision_function (uncalibrated)"
        return "one for the predicted class"

    def fit(
        self,
        X: NDArray[np.float32],
        y: NDArray[np.int64],
        X_validation: NDArray[np.float32],
        y_validation: NDArray[np.int64],
    ) -> "SklearnHead":
        """Fit on (n, …) features; validation is scored, for the history, and never fitted on. Raises HeadError."""
        from stages.paths import Shared

        X = pool_features(X, self.spec.pool)
        (fit,) = fit_all([self.spec], Shared(X, y))
        return self.take(fit).note(X, y, pool_features(X_validation, self.spec.pool), y_validation)

    def take(self, fit: Fit) -> "SklearnHead":
        """Become the head that was fitted. Raises HeadError where it could not be."""
        if fit.problem:
            raise HeadError(fit.problem)
        self._pipeline, self.warnings_ = fit.pipeline, fit.warnings
        return self

    def note(
        self,
        X: NDArray[np.float32],
        y: NDArray[np.int64],
        X_validation: NDArray[np.float32],
        y_validation: NDArray[np.int64],
    ) -> "SklearnHead":
        """Write the history: a row with loss and accuracy on train and validation."""
        row = {"epoch": 1.0}
        for prefix, features, labels in (("", X, y), ("val_", X_validation, y_validation)):
            found = scores(labels, self._tried(features), list(self.classes_))
            row |= {f"{prefix}loss": found["log_loss"], f"{prefix}accuracy": found["accuracy"]}
        self.history_ = [row]
        return self

    def _tried(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """As ``predict_log_proba``; some estimators find out here only that they cannot be used. Raises HeadError."""
        try:
            return self.predict_log_proba(X)
        except (ValueError, TypeError) as error:
            raise HeadError(f"{self.spec.estimator}: cannot be fitted: {' '.join(str(error).split())}") from error

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (n, number of classes), float32; the columns follow ``classes_``."""
        X = pool_features(X, self.spec.pool)
        out = np.zeros((len(X), len(self.classes_)), np.float32)
        # A class without a row in train has no column in the estimator.
        out[:, self._pipeline.classes_] = self._probabilities(X)
        return out

    def predict_log_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-probabilities (n, number of classes), float64; from the decision function where probabilities are its softmax.

        Raises HeadError where the estimator gives what is not finite.
        """
        from sklearn.linear_model import LogisticRegression

        last = self._pipeline[-1]
        softmax = isinstance(last, LogisticRegression) and last.solver != "liblinear"
        if not softmax and hasattr(last, "predict_proba"):
            return log_probabilities(self.predict_proba(X))
        if not hasattr(last, "decision_function"):
            return log_probabilities(self.predict_proba(X))
        logs = log_softmax(self._decision(pool_features(X, self.spec.pool)))
        # A class without a row in train is no more probable than any other.
        least = np.minimum(logs.min(axis=1, keepdims=True), np.log(EPSILON))
        out = np.repeat(least, len(self.classes_), axis=1)
        out[:, self._pipeline.classes_] = logs
        return log_softmax(out)

    def _decision(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        decision = self._finite(np.asarray(self._pipeline.decision_function(X), np.float64))
        return decision[:, None] if decision.ndim == 1 else decision

    def _finite(self, found: NDArray[Any]) -> NDArray[Any]:
        if wrong := int((~np.isfinite(found.reshape(len(found), -1)).all(axis=1)).sum()):
            raise HeadError(
                f"{self.spec.estimator}: expected finite probabilities, found others in {wrong} of {len(found)} rows; "
                "change its params, or take another estimator"
            )
        return found

    def _probabilities(self, X: NDArray[np.float32]) -> NDArray[Any]:
        if hasattr(self._pipeline, "predict_proba"):
            return self._finite(np.asarray(self._pipeline.predict_proba(X)))
        if hasattr(self._pipeline, "decision_function"):
            return np.exp(log_softmax(self._decision(X)))
        return np.asarray(self._pipeline.predict(X)[:, None] == self._pipeline.classes_)

    def predict(self, X: NDArray[np.float32]) -> NDArray[Any]:
        """The name of the most probable class of each row."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def save(self, path: Path, feature_shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Write the fitted pipeline, which takes pooled features (n, d), those of several layers side by side, with skops."""
        import skops.io

        skops.io.dump(self._pipeline, path)

    @classmethod
    def load(cls, path: Path, spec: SklearnSpec, classes: Sequence[str]) -> "SklearnHead":
        """Read a saved head back. Raises HeadError for a file that holds anything but scikit-learn's own types."""
        import skops.io

        unknown = skops.io.get_untrusted_types(file=path)
        if foreign := [name for name in unknown if not name.startswith("sklearn.")]:
            raise HeadError(f"{path}: expected types of scikit-learn, found {', '.join(foreign)}; not loaded")
        head = cls(spec, classes)
        head._pipeline = skops.io.load(path, trusted=unknown)
        return head
