"""Baselines that differ in their strength alone, fitted from what they share: one standardisation, one decomposition.

What comes out are scikit-learn's own estimators, equal to those that it fits one after another within its solvers'
tolerance. Ridge: every strength from one eigendecomposition (Golub, Heath, Wahba, Technometrics 21 (1979) 215). With fewer
rows than features the solution lies in the rows' span, so that n dimensions stand in exactly for d (the representer
theorem: Schölkopf, Herbrich, Smola, COLT 2001). Logistic regression: each strength starts where the one before ended.
"""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.baselines import STRENGTH, classifier, told
from stages.specs import SklearnSpec

# What may be set beside the strength without leaving what is solved here.
PLAIN = {"RidgeClassifier": {"alpha"}, "LogisticRegression": {"C", "max_iter", "tol", "class_weight"}}


class Shared:
    """Training rows (n, d), and what several baselines fitted on them have in common, made when it is first asked for."""

    def __init__(self, X: NDArray[np.float32], y: NDArray[np.int64]) -> None:
        self.X, self.y = X, y
        self._scaled: tuple[Any, NDArray[np.float32]] | None = None
        self._basis: dict[bool, NDArray[np.float32]] = {}
        self._spectrum: dict[bool, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def rows(self, scale: bool) -> tuple[list[Any], NDArray[np.float32]]:
        """The steps before a classifier, fitted, and what they make of the rows."""
        if not scale:
            return [], self.X
        if self._scaled is None:
            from sklearn.preprocessing import StandardScaler

            scaler = StandardScaler().fit(self.X)
            self._scaled = scaler, scaler.transform(self.X)
        scaler, rows = self._scaled
        return [scaler], rows

    def centred(self, scale: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The rows (n, d) float64 less their mean, and the mean (d,)."""
        rows = self.rows(scale)[1].astype(np.float64)
        mean = rows.mean(axis=0)
        rows -= mean
        return rows, mean

    def basis(self, scale: bool) -> NDArray[np.float32]:
        """Orthonormal columns (d, r) that span the rows, where there are fewer rows than features."""
        if scale not in self._basis:
            rows = self.rows(scale)[1].astype(np.float64)
            values, vectors = np.linalg.eigh(rows @ rows.T)
            kept = values > values[-1] * len(rows) * np.finfo(np.float32).eps ** 2
            self._basis[scale] = ((rows.T @ vectors[:, kept]) / np.sqrt(values[kept])).astype(np.float32)
        return self._basis[scale]

    def spectrum(self, scale: bool, rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eigenvalues and eigenvectors of the smaller of the two Gram matrices of the centred rows."""
        if scale not in self._spectrum:
            wide = rows.shape[1] > len(rows)
            values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
            self._spectrum[scale] = np.maximum(values, 0), vectors
        return self._spectrum[scale]


def on_path(spec: SklearnSpec) -> bool:
    """Whether a baseline can be fitted with others of its kind."""
    return spec.params.keys() <= PLAIN.get(spec.estimator, set()) and spec.estimator in STRENGTH


def fit_path(specs: Sequence[SklearnSpec], shared: Shared) -> list[tuple[Any, list[str]]]:
    """A fitted pipeline for each spec, and the warnings of its fit. All are ``on_path``, and differ in their strength alone."""
    solve = _ridge if specs[0].estimator == "RidgeClassifier" else _logistic
    return solve(specs, shared)


def _ridge(specs: Sequence[SklearnSpec], shared: Shared) -> list[tuple[Any, list[str]]]:
    from sklearn.preprocessing import LabelBinarizer

    steps, _ = shared.rows(specs[0].scale)
    rows, mean = shared.centred(specs[0].scale)
    values, vectors = shared.spectrum(specs[0].scale, rows)
    binarizer = LabelBinarizer(pos_label=1, neg_label=-1).fit(shared.y)
    targets = binarizer.transform(shared.y).astype(np.float64)
    offset = targets.mean(axis=0)
    wide = rows.shape[1] > len(rows)
    # (XᵀX + αI)⁻¹Xᵀy, or Xᵀ(XXᵀ + αI)⁻¹y, which is the same.
    projected = vectors.T @ ((targets - offset) if wide else rows.T @ (targets - offset))
    alphas = [float(classifier(spec).alpha) for spec in specs]
    inner = np.stack([vectors @ (projected / (values + alpha)[:, None]) for alpha in alphas])
    coefficients = np.einsum("nd,ank->akd", rows, inner) if wide else inner.transpose(0, 2, 1)
    found: list[tuple[Any, list[str]]] = []
    for spec, coefficient in zip(specs, coefficients, strict=True):
        ridge = classifier(spec)
        ridge._label_binarizer, ridge.classes_ = binarizer, binarizer.classes_
        ridge.coef_ = coefficient.astype(np.float32)
        ridge.intercept_ = (offset - coefficient @ mean).astype(np.float32)
        ridge.n_features_in_, ridge.n_iter_, ridge.solver_ = rows.shape[1], None, "cholesky"
        found.append((_pipeline(steps, ridge), []))
    return found


def _logistic(specs: Sequence[SklearnSpec], shared: Shared) -> list[tuple[Any, list[str]]]:
    steps, rows = shared.rows(specs[0].scale)
    basis = shared.basis(specs[0].scale) if rows.shape[1] > len(rows) else None
    inner = rows if basis is None else rows @ basis
    before: Any = None
    found: dict[int, tuple[Any, list[str]]] = {}
    # From the strongest regularisation on: its solution is the nearest to zero, where the first one starts.
    for i in sorted(range(len(specs)), key=lambda i: classifier(specs[i]).C):
        estimator = classifier(specs[i]).set_params(warm_start=True)
        if before is not None:
            estimator.coef_, estimator.intercept_ = before.coef_.copy(), before.intercept_.copy()
            estimator.classes_ = before.classes_
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator.fit(inner, shared.y)
        before = estimator
        fitted = copy.deepcopy(estimator).set_params(warm_start=False)
        if basis is not None:
            fitted.coef_ = fitted.coef_ @ basis.T
            fitted.n_features_in_ = rows.shape[1]
        found[i] = _pipeline(steps, fitted), told(caught)
    return [found[i] for i in range(len(specs))]


def _pipeline(steps: Sequence[Any], estimator: Any) -> Any:
    from sklearn.pipeline import make_pipeline

    return make_pipeline(*steps, estimator)
