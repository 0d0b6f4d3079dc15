"""Baselines as heads: any scikit-learn classifier by name, on pooled features, standardised unless told otherwise."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.heads.calibration import EPSILON, log_probabilities, log_softmax
from stages.heads.fitting import Fit, fit_all
from stages.heads.head import Head, Rows
from stages.heads.metrics import scores
from stages.heads.pooling import pool_layers
from stages.heads.spec import SklearnSpec
from stages.heads.strengths import Shared
from stages.imports import load_skops
from stages.progress import Progress


class SklearnHead(Head):
    """A scikit-learn classifier as a head. Probabilities are the classifier's own, or a softmax of its decision function
    (uncalibrated) for those that give none.
    """

    spec: SklearnSpec
    _pipeline: Any = None

    @property
    def probabilities_(self) -> str:
        if hasattr(self._pipeline, "predict_proba"):
            return "predict_proba"
        if hasattr(self._pipeline, "decision_function"):
            return "softmax of decision_function (uncalibrated)"
        return "one for the predicted class"

    def _fit(self, train: Rows, validation: Rows, progress: Progress, name: str) -> Self:
        (fit,) = fit_all([self.spec], Shared(pool_layers([train.X], self.spec.pool), train.y))
        return self.take(fit).note(train, validation)

    def take(self, fit: Fit) -> Self:
        """Become the head that was fitted. Raises HeadError where it could not be."""
        if fit.problem:
            raise HeadError(fit.problem)
        self._pipeline, self.warnings_, self.seconds_ = fit.pipeline, fit.warnings, fit.seconds
        return self

    def note(self, train: Rows, validation: Rows) -> Self:
        """Write the history: a row with loss and accuracy on train and validation."""
        row = {"epoch": 1.0}
        for prefix, rows in (("", train), ("val_", validation)):
            found = scores(rows.y, self.tried(rows.X), list(self.classes_))
            row |= {f"{prefix}loss": found["log_loss"], f"{prefix}accuracy": found["accuracy"]}
        self.history_ = [row]
        return self

    def tried(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """As ``predict_log_proba``; some estimators find out here only that they cannot be used. Raises HeadError."""
        try:
            return self.predict_log_proba(X)
        except (ValueError, TypeError) as error:
            raise HeadError(f"{self.spec.estimator}: cannot be fitted: {' '.join(str(error).split())}") from error

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        X = pool_layers([X], self.spec.pool)
        out = np.zeros((len(X), len(self.classes_)), np.float32)
        # A class without a row in train has no column in the estimator.
        out[:, self._pipeline.classes_] = self._probabilities(X)
        return out

    def predict_log_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """As ``Head.predict_log_proba``; raises HeadError where the estimator gives what is not finite."""
        from sklearn.linear_model import LogisticRegression

        last = self._pipeline[-1]
        softmax = isinstance(last, LogisticRegression) and last.solver != "liblinear"
        if not hasattr(last, "decision_function") or (hasattr(last, "predict_proba") and not softmax):
            return log_probabilities(self.predict_proba(X))
        logs = log_softmax(self._decision(pool_layers([X], self.spec.pool)))
        # A class without a row in train is no more probable than any other.
        least = np.minimum(logs.min(axis=1, keepdims=True), np.log(EPSILON))
        out = np.repeat(least, len(self.classes_), axis=1)
        out[:, self._pipeline.classes_] = logs
        return log_softmax(out)

    def weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]:
        """The weights (d, outputs) and constants (outputs,) of the decision function, and the means and deviations (2, d) of the
        StandardScaler before it, None where there is none. AttributeError, TypeError or ValueError says that the classifier has no such
        coefficients.
        """
        *steps, last = (step for _, step in self._pipeline.steps)
        weights = np.atleast_2d(np.asarray(last.coef_, np.float64)).T  # of two classes, some have one row as a vector
        bias = np.broadcast_to(np.asarray(last.intercept_, np.float64).reshape(-1), weights.shape[1])
        return weights, bias, np.stack([steps[0].mean_, steps[0].scale_]) if steps else None

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

    def save(self, path: Path, feature_shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Write the fitted pipeline, which takes pooled features (n, d), those of several layers side by side, with skops."""
        load_skops().dump(self._pipeline, path)

    @classmethod
    def load(cls, path: Path, spec: SklearnSpec, classes: Sequence[str]) -> Self:
        """As ``Head.load``; a file that holds anything but scikit-learn's own types is not loaded."""
        skops = load_skops()
        unknown = skops.get_untrusted_types(file=path)
        if foreign := [name for name in unknown if not name.startswith("sklearn.")]:
            raise HeadError(f"{path}: expected types of scikit-learn, found {', '.join(foreign)}; not loaded")
        head = cls(spec, classes)
        head._pipeline = skops.load(path, trusted=unknown)
        return head
