"""Scores from counts of each class, of one sample of images or of many at once: heads, trials and their resamples are scored alike."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TOP = 5  # the share of images whose label is among the five most probable classes tells something where there are more


def among_top(rank: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Whether the label is among the five most probable classes, where ``rank`` counts those that are more, or as, probable."""
    return rank < TOP


def recall(hits: NDArray[Any], support: NDArray[Any]) -> Floats:
    """Of each class (…, classes): how many of its images were predicted as it, ``hits`` of ``support``; NaN for a class without images."""
    return divided(hits, support)


def f1(hits: NDArray[Any], support: NDArray[Any], spoken: NDArray[Any]) -> Floats:
    """Of each class (…, classes), with ``spoken`` images that were predicted as it; NaN for a class without images."""
    return np.where(support > 0, divided(2 * hits, support + spoken), np.nan)


def balanced_accuracy(hits: NDArray[Any], support: NDArray[Any]) -> Floats:
    """The mean recall (…) over the classes that occur; NaN where none does."""
    return mean_there(recall(hits, support))


def macro_f1(hits: NDArray[Any], support: NDArray[Any], spoken: NDArray[Any]) -> Floats:
    """The mean F1 (…) over the classes that occur; NaN where none does."""
    return mean_there(f1(hits, support, spoken))


def mean_there(values: Floats) -> Floats:
    """The mean over the last axis of what is not NaN; NaN where nothing is."""
    there = ~np.isnan(values)
    return divided(np.where(there, values, 0.0).sum(axis=-1), there.sum(axis=-1))


def divided(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """``a`` ÷ ``b``; NaN where b is 0."""
    out: Floats = np.full(np.broadcast_shapes(np.shape(a), np.shape(b)), np.nan)
    np.divide(a, b, out=out, where=np.asarray(b) > 0)
    return out
