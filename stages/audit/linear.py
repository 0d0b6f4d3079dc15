"""The linear head that an audit asks: logistic regression at several strengths, fitted together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.heads.baselines import SklearnHead
from stages.heads.fitting import fit_all
from stages.heads.spec import SklearnSpec
from stages.heads.strengths import Shared

# On standardised features; the one with the lowest log loss where it was not fitted is taken.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
# A question needs fewer digits than a head that is kept.
TOLERANCE, MOST = 1e-3, 200


def standardised(X: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """X (n, d) with the mean and the deviation that some of its rows have; once for many fits, as labels play no part in it."""
    from sklearn.preprocessing import StandardScaler

    found: NDArray[np.float32] = StandardScaler().fit(X[rows]).transform(X)
    return found


def asked(
    X: NDArray[np.float32],
    y: NDArray[np.int64],
    others: NDArray[np.float32],
    classes: Sequence[str],
    strengths: Sequence[float],
) -> NDArray[np.float64]:
    """Log-probabilities (strengths, m, classes) float64 of ``others`` (m, d), by heads fitted on X (n, d) and y (n,), which index
    ``classes``. Both are standardised.

    Raises HeadError where the features cannot be fitted.
    """
    params = [{"C": strength, "tol": TOLERANCE, "max_iter": MOST} for strength in strengths]
    specs = [SklearnSpec(kind="sklearn", estimator="LogisticRegression", params=each, scale=False) for each in params]
    fits = fit_all(specs, Shared(X, y))
    heads = [SklearnHead(spec, classes).take(fit) for spec, fit in zip(specs, fits, strict=True)]
    return np.stack([head.predict_log_proba(others) for head in heads])


def best_of(logs: NDArray[np.float64], y: NDArray[np.int64]) -> int:
    """Which of the strengths has the lowest log loss: ``logs`` (strengths, m, classes) on labels (m,)."""
    loss = -logs[:, np.arange(len(y)), y].mean(axis=1)
    return int(loss.argmin())
