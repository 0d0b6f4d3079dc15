"""scikit-learn's classifiers, by name."""

from importlib import import_module
from typing import Any

from cache.errors import HeadError
from stages.fields import near_or_all
from stages.heads.spec import SklearnSpec
from stages.imports import load_sklearn

# Where most classifiers live, the likeliest first: importing all of scikit-learn to find one costs a second.
MODULES = ("linear_model", "svm", "neighbors", "discriminant_analysis", "naive_bayes", "neural_network", "ensemble")


def classifier(spec: SklearnSpec) -> Any:
    """The estimator that the spec names, with its parameters. Raises HeadError that says what is near, or lists what there is."""
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
            raise HeadError(f"params.{name}: {spec.estimator} has no such parameter{near_or_all(name, params)}")
    seed = {"random_state": spec.seed} if "random_state" in params else {}
    return estimator.set_params(**seed | spec.params)


def _class_named(name: str) -> Any:
    load_sklearn()
    from sklearn.base import ClassifierMixin

    for module in MODULES:
        found = getattr(import_module(f"sklearn.{module}"), name, None)
        if isinstance(found, type) and issubclass(found, ClassifierMixin):
            return found
    from sklearn.utils import all_estimators

    known = dict(all_estimators(type_filter="classifier"))
    if name not in known:
        raise HeadError(f"estimator {name!r}: scikit-learn has no such classifier{near_or_all(name, known)}")
    return known[name]
