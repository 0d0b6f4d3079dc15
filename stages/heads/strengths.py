"""Baselines that differ in their strength alone, fitted from what they share: one standardisation, one decomposition.

What comes out are scikit-learn's own estimators, equal to those that it fits one after another within its solvers'
tolerance. Ridge: every strength from one eigendecomposition (Golub, Heath, Wahba, Technometrics 21 (1979) 215), of n
dimensions where there are fewer rows than features. Logistic regression: all strengths in step, as most of the time goes
into passes over the rows, and one pass serves all. (Starting each where the one before ended, which scikit-learn can do
itself, took 0.6 of the time of separate fits, and 2.3 with the rows brought to n dimensions first; in step it is a fifth.)
What is fitted together has no say in the numbers: a strength alone comes out as it does among others.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.heads.estimators import classifier
from stages.heads.spec import SklearnSpec

# The parameter that a path goes along, for the estimators that have one.
STRENGTH = {"RidgeClassifier": "alpha", "LogisticRegression": "C"}
# What may be set beside the strength without leaving what is solved here.
PLAIN = {"RidgeClassifier": {"alpha"}, "LogisticRegression": {"C", "max_iter", "tol", "class_weight"}}
# Steps that L-BFGS remembers, as in SciPy; and how often a step is halved before there is no lower point to be found.
MEMORY, HALVINGS = 10, 20
# The relative change of a mean over rows that float32 still tells.
RESOLUTION = 1e-6
# Columns that go through BLAS at a time, for two classes and for more: how it rounds depends on their number, and a path of
# L-BFGS on how it rounds. A strength has one column for two classes, and most of the time a few strengths alone are left.
COLUMNS_OF_TWO, COLUMNS = 8, 16


class Shared:
    """Training rows ``X`` (n, d) and labels ``y`` (n,) of several baselines, standardised once.

    Where an image has several rows, which are its views, ``images`` (n,) say which rows are of one image. All images have as many, and
    count as one each.
    """

    def __init__(self, X: NDArray[np.float32], y: NDArray[np.int64], images: NDArray[np.int64] | None = None) -> None:
        self.X, self.y, self.images = X, y, images
        self.weight = 1.0 if images is None else len(np.unique(images)) / len(images)  # of a row

    @cached_property
    def _scaled(self) -> tuple[Any, NDArray[np.float32]]:
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(self.X)
        return scaler, scaler.transform(self.X)

    def steps(self, spec: SklearnSpec) -> list[Any]:
        """What stands before the classifier, fitted."""
        return [self._scaled[0]] if spec.scale else []

    def rows(self, spec: SklearnSpec) -> NDArray[np.float32]:
        """The rows as the classifier gets them."""
        return self._scaled[1] if spec.scale else self.X


def on_path(spec: SklearnSpec) -> bool:
    """Whether a baseline can be fitted with others of its kind."""
    known = spec.params.keys() <= PLAIN.get(spec.estimator, set()) and spec.estimator in STRENGTH
    # scikit-learn's ridge takes a list of strengths too, one for each class.
    single = known and isinstance(spec.params.get(STRENGTH[spec.estimator], 1.0), int | float)
    return single and spec.params.get("class_weight") in (None, "balanced")


def fit_path(specs: Sequence[SklearnSpec], shared: Shared) -> list[tuple[Any, list[str]]]:
    """A fitted classifier for each spec, and the warnings of its fit. All are ``on_path``, and differ in their strength alone.

    Parameters are valid here. Raises ValueError for rows that are not finite or of one class, as scikit-learn would.
    """
    rows = shared.rows(specs[0])
    if not np.isfinite(rows).all():
        raise ValueError("expected finite features")
    solve = _ridge if specs[0].estimator == "RidgeClassifier" else _logistic
    return solve([classifier(spec) for spec in specs], rows, shared.y, shared.weight)


def _ridge(
    estimators: Sequence[Any], X: NDArray[np.float32], y: NDArray[np.int64], weight: float
) -> list[tuple[Any, list[str]]]:
    from sklearn.preprocessing import LabelBinarizer

    rows = X.astype(np.float64)
    mean = rows.mean(axis=0)
    rows -= mean
    wide = rows.shape[1] > len(rows)
    values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    values = np.maximum(values, 0)
    binarizer = LabelBinarizer(pos_label=1, neg_label=-1).fit(y)
    targets = binarizer.transform(y).astype(np.float64)
    offset = targets.mean(axis=0)
    # (XᵀX + αI)⁻¹Xᵀy, or Xᵀ(XXᵀ + αI)⁻¹y, which is the same.
    projected = vectors.T @ ((targets - offset) if wide else rows.T @ (targets - offset))
    # Directions that the rows do not have get no coefficient, whatever the strength, as by the pseudo-inverse.
    there = (values > values.max() * max(rows.shape) * np.finfo(np.float64).eps)[:, None]
    for ridge in estimators:
        shrunk = np.divide(
            projected, values[:, None] + float(ridge.alpha) / weight, out=np.zeros_like(projected), where=there
        )
        inner = vectors @ shrunk
        coefficient = (rows.T @ inner if wide else inner).T
        ridge._label_binarizer, ridge.classes_ = binarizer, binarizer.classes_
        ridge.coef_ = coefficient.astype(np.float32)
        ridge.intercept_ = (offset - coefficient @ mean).astype(np.float32)
        ridge.n_features_in_, ridge.n_iter_, ridge.solver_ = rows.shape[1], None, "cholesky"
    return [(ridge, []) for ridge in estimators]


def _logistic(
    estimators: Sequence[Any], rows: NDArray[np.float32], y: NDArray[np.int64], weight: float
) -> list[tuple[Any, list[str]]]:
    """All strengths at once: each pass over the rows serves every one of them."""
    from scipy.special import expit, log_softmax
    from sklearn.utils.class_weight import compute_sample_weight

    strengths = np.array([estimator.C for estimator in estimators], np.float64)
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("expected rows of two classes at least")
    weights = compute_sample_weight(estimators[0].class_weight, labels)
    total = weights.sum() * weight
    n, d = rows.shape
    outputs = 1 if len(classes) == 2 else len(classes)
    columns = COLUMNS_OF_TWO if outputs == 1 else COLUMNS
    hot = (labels[:, None] == (1 if outputs == 1 else np.arange(outputs))).astype(np.float64)
    share = (weights / weights.sum())[:, None]

    def objective(at: NDArray[np.float64], which: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean cross-entropy and penalty, as scikit-learn scales them, and gradients, of some of the strengths (a, …)."""
        w, b = at[:, : d * outputs].reshape(-1, d, outputs), at[:, d * outputs :]
        side = w.transpose(1, 0, 2).reshape(d, -1).astype(rows.dtype)
        logits = by_strength(product(rows, side, columns), len(at)) + b[:, None]
        if outputs == 1:
            losses = np.logaddexp(0, logits) - hot * logits
            errors = (expit(logits) - hot) * share
        else:
            logs = log_softmax(logits, axis=-1)
            losses = -hot * logs
            errors = (np.exp(logs) - hot) * share
        penalty = 1 / (strengths[which] * total)
        value = (losses * share).sum(axis=(1, 2)) + 0.5 * penalty * (w * w).sum(axis=(1, 2))
        back = product(rows.T, errors.transpose(1, 0, 2).reshape(n, -1).astype(rows.dtype), columns)
        slope = by_strength(back, len(at)) + penalty[:, None, None] * w
        return value, np.concatenate([slope.reshape(len(at), -1), errors.sum(axis=1)], axis=1)

    start = np.zeros((len(estimators), (d + 1) * outputs))
    most, tolerance = int(estimators[0].max_iter), float(estimators[0].tol)
    at, iterations, converged, steepest = minimise(objective, start, tolerance, most)
    found: list[tuple[Any, list[str]]] = []
    for estimator, point, count, done, slope in zip(estimators, at, iterations, converged, steepest, strict=True):
        estimator.classes_ = classes
        estimator.coef_ = point[: d * outputs].reshape(d, outputs).T.astype(rows.dtype)
        estimator.intercept_ = point[d * outputs :].astype(rows.dtype)
        estimator.n_iter_, estimator.n_features_in_ = np.array([count], np.int32), d
        why = (
            f"after max_iter = {most} iterations"
            if count >= most
            else f"after {count} iterations, as no step went down, with a gradient of {slope:.1e} where tol = {tolerance:.1e}"
        )
        warned = [] if done else [f"ConvergenceWarning: stopped {why}, before it converged"]
        found.append((estimator, warned))
    return found


def product(left: NDArray[np.float32], right: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """``left`` (m, p) times ``right`` (p, q), so many columns at a time: each is the same whatever the others."""
    # Not transposed, though BLAS is quicker so: then a column depends on its place.
    q = right.shape[1]
    wide = np.zeros((len(right), -(-q // columns) * columns), right.dtype)
    wide[:, :q] = right
    out = np.empty((len(left), wide.shape[1]), right.dtype)
    for i in range(0, wide.shape[1], columns):
        np.matmul(left, wide[:, i : i + columns], out=out[:, i : i + columns])
    return out[:, :q]


def by_strength(columns: NDArray[np.float32], strengths: int) -> NDArray[np.float32]:
    """Columns (m, strengths · outputs) as (strengths, m, outputs), each strength's in one piece: sums go by how numbers lie."""
    return np.ascontiguousarray(columns.reshape(len(columns), strengths, -1).transpose(1, 0, 2))


Objective = Callable[[NDArray[np.float64], NDArray[np.intp]], tuple[NDArray[np.float64], NDArray[np.float64]]]


def minimise(
    objective: Objective, start: NDArray[np.float64], tolerance: float, most: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]:
    """Minimise K smooth convex functions in step with one another by L-BFGS; their points, iterations, which converged, and the
    steepest part of each gradient (K,).

    ``objective(at, which)`` gives values (a,) and gradients (a, p) of the functions ``which`` (a,) at ``at`` (a, p). A function
    is done where no part of its gradient is beyond the ``tolerance``, as in scikit-learn, or where float32 gives no more. The
    two-loop recursion is that of J. Nocedal, Math. Comp. 35 (1980) 773; steps are halved until they satisfy Armijo.
    """
    k, p = start.shape
    at, active = start.copy(), np.arange(k)
    value, slope = objective(at, active)
    iterations, converged = np.zeros(k, np.int64), np.abs(slope).max(axis=1) <= tolerance
    moves: list[NDArray[np.float64]] = []
    turns: list[NDArray[np.float64]] = []
    stuck = np.zeros(k, np.bool_)
    active = np.flatnonzero(~converged)
    for _ in range(most):
        if not len(active):
            break
        direction = np.zeros((k, p))
        direction[active] = -_two_loops(slope[active], [s[active] for s in moves], [t[active] for t in turns])
        descent = _dots(direction, slope)
        length = np.ones(k) if moves else 1 / np.maximum(np.abs(slope).sum(axis=1), 1.0)
        before, slope_before = at.copy(), slope.copy()
        trying = active
        for _ in range(HALVINGS):
            point = before[trying] + length[trying, None] * direction[trying]
            found, gradient = objective(point, trying)
            good = found <= value[trying] + 1e-4 * length[trying] * descent[trying]
            taken = trying[good]
            at[taken], value[taken], slope[taken] = point[good], found[good], gradient[good]
            trying = trying[~good]
            if not len(trying):
                break
            length[trying] /= 2
        iterations[active] += 1
        moves, turns = [*moves[1 - MEMORY :], at - before], [*turns[1 - MEMORY :], slope - slope_before]
        converged[active] = np.abs(slope[active]).max(axis=1) <= tolerance
        # Where no step goes down any more, the search is at its end: well, if the sums of float32 do not tell better from worse.
        stuck[trying] = True
        converged[trying] |= np.abs(descent[trying]) <= RESOLUTION * np.abs(value[trying])
        active = active[~(converged | stuck)[active]]
    return at, iterations, converged, np.abs(slope).max(axis=1)


def _two_loops(
    slope: NDArray[np.float64], moves: Sequence[NDArray[np.float64]], turns: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """The gradient times the inverse Hessian that the last steps tell of, for each function (a, p)."""
    out = slope.copy()
    curved = [_dots(s, t) for s, t in zip(moves, turns, strict=True)]
    weight = [np.where(c > 1e-12, 1 / np.where(c > 1e-12, c, 1), 0) for c in curved]
    alphas = []
    for s, t, w in zip(reversed(moves), reversed(turns), reversed(weight), strict=True):
        alpha = w * _dots(s, out)
        out -= alpha[:, None] * t
        alphas.append(alpha)
    if moves:
        scale = curved[-1] / np.maximum(_dots(turns[-1], turns[-1]), 1e-300)
        out *= np.where(curved[-1] > 1e-12, scale, 1.0)[:, None]
    for s, t, w, alpha in zip(moves, turns, weight, reversed(alphas), strict=True):
        out += s * (alpha - w * _dots(t, out))[:, None]
    return out


def _dots(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (a * b).sum(axis=1)  # einsum sums in pieces that go by the number of rows
    return found
