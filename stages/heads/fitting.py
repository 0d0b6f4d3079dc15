"""Baselines fitted on the same rows: along a path where they share one, over the cores where that takes long."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.heads.dataset import Dataset
from stages.heads.estimators import classifier
from stages.heads.spec import SklearnSpec
from stages.heads.strengths import STRENGTH, Shared, fit_path, on_path
from stages.imports import load_sklearn

# Starting processes and importing scikit-learn in them takes about as long.
SECONDS_WORTH_A_PROCESS = 2.0
FOLDS = 5  # of an estimator that has its own, and is not told how many


@dataclass(frozen=True)
class Fit:
    """A fitted pipeline with its warnings and seconds; or the problem, where it could not be fitted."""

    pipeline: Any
    warnings: list[str]
    seconds: float
    problem: str = ""


def shared(data: Dataset, X: NDArray[np.float32], rows: NDArray[np.int64], views: bool) -> Shared:
    """Some rows of the data, whose features are ``X``, to fit baselines on; and where ``X`` has ``views``, those of these rows."""
    if not views:
        return Shared(X[rows], data.y[rows])
    places, images = data.with_views(rows)
    return Shared(X[places], data.y[images], images)


def fit_all(specs: Sequence[SklearnSpec], shared: Shared) -> list[Fit]:
    """Fit baselines on the same rows. Those that differ in their strength alone share a decomposition or a path; of the
    others, once one has taken long, the rest go over the cores through joblib, which maps the features into memory.

    A fit is the same alone and in any company.
    """
    load_sklearn()
    from sklearn.pipeline import make_pipeline

    found: dict[int, Fit] = {}  # classifiers first, without the steps before them
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
    _fit_others(specs, shared, found)
    for i, spec in enumerate(specs):
        if not found[i].problem:
            found[i] = replace(found[i], pipeline=make_pipeline(*shared.steps(spec), found[i].pipeline))
    return [found[i] for i in range(len(specs))]


def _fit_others(specs: Sequence[SklearnSpec], shared: Shared, found: dict[int, Fit]) -> None:
    import joblib

    todo = [i for i in range(len(specs)) if i not in found]
    while todo:
        i = todo.pop(0)
        found[i] = _fit_one(specs[i], shared.rows(specs[i]), shared.y, shared.images)
        if found[i].seconds > SECONDS_WORTH_A_PROCESS and len(todo) > 1:
            jobs = [joblib.delayed(_fit_one)(specs[j], shared.rows(specs[j]), shared.y, shared.images, 1) for j in todo]
            found |= zip(todo, joblib.Parallel(n_jobs=-1)(jobs), strict=True)
            break


def _fit_one(
    spec: SklearnSpec,
    rows: NDArray[np.float32],
    y: NDArray[np.int64],
    images: NDArray[np.int64] | None,
    n_jobs: int = -1,
) -> Fit:
    import joblib

    start = perf_counter()
    with joblib.parallel_config(n_jobs=n_jobs), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator = classifier(spec)
            fitted = estimator.fit(rows, y) if images is None else _fit_views(estimator, rows, y, images)
        except (ValueError, TypeError) as error:  # InvalidParameterError is a ValueError
            return _failed(spec, error)
    return Fit(fitted, told(caught), perf_counter() - start)


def _fit_views(estimator: Any, rows: NDArray[np.float32], y: NDArray[np.int64], images: NDArray[np.int64]) -> Any:
    """Fit on rows of which those with one number in ``images`` (n,) are views of one image, and count as one.

    Where an estimator takes no weights, all images have as many rows, and count alike. Its own folds keep an image's views together.
    """
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.utils.validation import has_fit_parameter

    weighted = {}
    if has_fit_parameter(estimator, "sample_weight"):
        weighted["sample_weight"] = np.full(len(y), len(np.unique(images)) / len(images))
    params = estimator.get_params(deep=False)
    if "cv" not in params:
        return estimator.fit(rows, y, **weighted)
    folds = params["cv"] if isinstance(params["cv"], int) else FOLDS
    estimator.set_params(cv=list(StratifiedGroupKFold(folds).split(rows, y, images)))
    return estimator.fit(rows, y, **weighted).set_params(cv=params["cv"])


def _failed(spec: SklearnSpec, error: Exception) -> Fit:
    return Fit(None, [], 0.0, f"{spec.estimator}: cannot be fitted: {' '.join(str(error).split())}")


def told(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """Warnings in words, each once. What later versions of a library will change is no news to who trains a head."""
    ignored = (FutureWarning, DeprecationWarning, PendingDeprecationWarning)
    kept = [w for w in caught if not issubclass(w.category, ignored)]
    return sorted({f"{w.category.__name__}: {' '.join(str(w.message).split())}" for w in kept})
