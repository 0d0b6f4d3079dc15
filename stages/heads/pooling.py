"""Feature maps → vectors, as heads are trained on them."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.training.spec import Pool

L2 = "+l2"
LEAST = 1e-12  # of a length: a vector of zeros stays one


def pool_features(features: NDArray[np.float32], pool: Pool) -> NDArray[np.float32]:
    """Feature maps (n, …, channels) → (n, d), float32: flattened, or their mean or maximum over the places.

    Features that are vectors already, (n, d), stay as they are. ``+l2`` is for what is side by side, see ``joined``.
    """
    kind = pool.removesuffix(L2)
    if kind == "none":
        return features
    if features.ndim == 2 or kind == "flatten":
        return features.reshape(len(features), math.prod(features.shape[1:]))
    places = tuple(range(1, features.ndim - 1))
    pooled: NDArray[np.float32] = features.mean(axis=places) if kind == "avg" else features.max(axis=places)
    return pooled


def joined(pooled: Sequence[NDArray[np.float32]], pool: Pool) -> NDArray[np.float32]:
    """Pooled features of several layers side by side, (n, d); with ``+l2``, each row scaled to length 1."""
    whole = pooled[0] if len(pooled) == 1 else np.concatenate(pooled, axis=1)
    if not pool.endswith(L2):
        return whole
    scaled: NDArray[np.float32] = whole / np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), LEAST)
    return scaled


def pool_layers(features: Sequence[NDArray[np.float32]], pool: Pool) -> NDArray[np.float32]:
    """The features of several layers, each (n, …), pooled one by one and laid side by side: (n, d), float32.

    What was pooled before stays as it is.
    """
    return joined([pool_features(each, pool) for each in features], pool)
