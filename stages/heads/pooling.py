"""Feature maps → vectors, as heads are trained on them."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.training.spec import Pool


def pool_features(features: NDArray[np.float32], pool: Pool) -> NDArray[np.float32]:
    """Feature maps (n, height, width, channels) → (n, d), float32: flattened, or their mean or maximum over the places.

    Features that are vectors already, (n, d), stay as they are.
    """
    if pool == "none":
        return features
    if features.ndim == 2 or pool == "flatten":
        return features.reshape(len(features), math.prod(features.shape[1:]))
    places = tuple(range(1, features.ndim - 1))
    pooled: NDArray[np.float32] = features.mean(axis=places) if pool == "avg" else features.max(axis=places)
    return pooled


def pool_layers(features: Sequence[NDArray[np.float32]], pool: Pool) -> NDArray[np.float32]:
    """The features of several layers, each (n, …), pooled one by one and laid side by side: (n, d), float32."""
    pooled = [pool_features(each, pool) for each in features]
    return pooled[0] if len(pooled) == 1 else np.concatenate(pooled, axis=1)
