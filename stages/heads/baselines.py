"""Baselines as heads: any scikit-learn classifier by name, on pooled features, standardised unless told otherwise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.heads.estimators import classifier
from stages.heads.fitting import Fit, fit_all
from stages.heads.metrics import EPSILON, log_probabilities, log_softmax, scores
from stages.heads.pooling import pool_features
from stages.heads.spec import SklearnSpec
from stages.heads.strengths import Shared, on_path


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
        from stages.heads.strengths import Shared

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
