"""Baselines: any scikit-learn classifier by name, on pooled features, standardised unless told otherwise."""

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.dataset import pool_features
from stages.metrics import scores
from stages.progress import SILENT, Progress
from stages.specs import SklearnSpec
from stages.table import nearest

# Where most classifiers live, the likeliest first: importing all of scikit-learn to find one costs a second.
MODULES = ("linear_model", "svm", "neighbors", "discriminant_analysis", "naive_bayes", "neural_network", "ensemble")


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
        progress: Progress = SILENT,
        name: str = "head",
    ) -> "SklearnHead":
        """Fit on (n, …) features; validation is scored, for the history, and never fitted on."""
        import joblib
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        steps = [StandardScaler()] if self.spec.scale else []
        self._pipeline = make_pipeline(*steps, classifier(self.spec))
        X = pool_features(X, self.spec.pool)
        row = {"epoch": 1.0}
        with joblib.parallel_config(n_jobs=-1), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # What later versions of a library will change is no news to who trains a head.
            for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
                warnings.simplefilter("ignore", category)
            try:
                self._pipeline.fit(X, y)
                for prefix, features, labels in (("", X, y), ("val_", X_validation, y_validation)):
                    found = scores(labels, self.predict_proba(features), list(self.classes_))
                    row |= {f"{prefix}loss": found["log_loss"], f"{prefix}accuracy": found["accuracy"]}
            except (ValueError, TypeError) as error:  # InvalidParameterError is a ValueError
                raise HeadError(f"{self.spec.estimator}: cannot be fitted: {' '.join(str(error).split())}") from error
        self.warnings_ = sorted({f"{w.category.__name__}: {' '.join(str(w.message).split())}" for w in caught})
        self.history_ = [row]
        return self

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (n, number of classes), float32; the columns follow ``classes_``."""
        X = pool_features(X, self.spec.pool)
        out = np.zeros((len(X), len(self.classes_)), np.float32)
        # A class without a row in train has no column in the estimator.
        out[:, self._pipeline.classes_] = self._probabilities(X)
        return out

    def _probabilities(self, X: NDArray[np.float32]) -> NDArray[Any]:
        if hasattr(self._pipeline, "predict_proba"):
            return np.asarray(self._pipeline.predict_proba(X))
        if hasattr(self._pipeline, "decision_function"):
            from scipy.special import softmax

            decision = np.asarray(self._pipeline.decision_function(X), np.float64)
            if decision.ndim == 1:
                decision = np.column_stack([np.zeros_like(decision), decision])
            return np.asarray(softmax(decision, axis=1))
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
