"""The map: the features of the images in two dimensions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.audit.contents import Contents

# Points that a map holds; the contents with the least digests, which is as good as drawn.
MOST = 2000


@dataclass(frozen=True)
class Map:
    """``place`` (p, 2) float64 of some contents, from 0 to 1 on the longer axis; ``explained`` is each axis' share of the variance."""

    content: NDArray[np.int64]
    place: NDArray[np.float64]
    explained: tuple[float, float]


def projection(contents: Contents) -> Map:
    """Two principal components of the features of length 1, with the signs that scikit-learn fixes; the same each time."""
    shown = np.arange(min(MOST, len(contents.unit)))
    if min(contents.unit.shape) < 2 or (contents.unit == contents.unit[0]).all():
        return Map(shown, np.full((len(shown), 2), 0.5), (0.0, 0.0))
    from sklearn.decomposition import PCA

    wide = contents.unit.shape[1] > len(contents.unit)
    pca = PCA(2, svd_solver="full" if wide else "covariance_eigh").fit(contents.unit.astype(np.float64))
    place = pca.transform(contents.unit[shown].astype(np.float64))
    # A few far ones must not press all others together: what lies beyond is shown at the edge.
    low, high = np.percentile(place, [0.5, 99.5], axis=0)
    size = max(float((high - low).max()), 1e-12)
    centred = 0.5 + (np.clip(place, low, high) - (low + high) / 2) / size
    one, two = (float(each) for each in pca.explained_variance_ratio_)
    return Map(shown, np.round(centred, 4), (one, two))
