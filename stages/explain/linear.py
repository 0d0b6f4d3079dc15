"""Heads that are linear in their pooled features: their weights."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.heads.baselines import SklearnHead
from stages.heads.dense import DenseHead
from stages.heads.head import Head


def linear(head: Head, pooled: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The weights (d, classes) and constants (classes,) of a head's logits, or of its decision function; None where it is not linear.

    Whether a classifier of scikit-learn is, is tried on the features ``pooled`` (1, d) of an image.
    """
    if isinstance(head, DenseHead) and not head.spec.units:
        return _of_each_class(*(np.asarray(each, np.float64) for each in head._core.get_weights()))
    if not isinstance(head, SklearnHead):
        return None
    *steps, last = (step for _, step in head._pipeline.steps)
    if not hasattr(last, "coef_") or not hasattr(last, "decision_function"):
        return None
    try:
        weights, bias, scaling = head.weights()
        if scaling is not None:
            mean, deviation = scaling
            weights = weights / deviation[:, None]
            bias = bias - mean @ weights
        expected = np.asarray(
            last.decision_function(head._pipeline[:-1].transform(pooled) if steps else pooled), np.float64
        )
        # A support vector machine has coefficients for each pair of classes, another classifier may have what is called so.
        same = np.allclose(pooled @ weights + bias, expected.reshape(1, -1), rtol=1e-3, atol=1e-3)
    except (AttributeError, TypeError, ValueError):
        return None
    weights, bias = _of_each_class(weights, bias)
    return (weights, bias) if same and list(last.classes_) == list(range(len(head.classes_))) else None


def _of_each_class(weights: NDArray[Any], bias: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One logit is that of the second class against the first."""
    if weights.shape[1] > 1:
        return weights, bias
    return np.hstack([np.zeros_like(weights), weights]), np.concatenate([np.zeros_like(bias), bias])
