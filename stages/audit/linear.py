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


def asked(
    X: NDArray[np.float32], y: NDArray[np.int64], others: NDArray[np.float32], classes: Sequence[str]
) -> NDArray[np.float64]:
    """Log-probabilities (strengths, m, classes) float64 of ``others`` (m, d), by heads fitted on X (n, d) and y (n,), which index
    ``classes``.

    Raises HeadError where the features cannot be fitted.
    """
    params = [{"C": strength, "tol": TOLERANCE, "max_iter": MOST} for strength in STRENGTHS]
    specs = [SklearnSpec(kind="sklearn", estimator="LogisticRegression", params=each) for each in params]
    fits = fit_all(specs, Shared(X, y))
    heads = [SklearnHead(spec, classes).take(fit) for spec, fit in zip(specs, fits, strict=True)]
    return np.stack([head.predict_log_proba(others) for head in heads])
