"""Which images to label next: those that the head is unsure of, of each kind of them only one.

J. Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds" (BADGE), ICLR 2020: each image is the gradient
that its most probable label would give the last layer, which is long where the head is unsure, and images are drawn as k-means++ draws its
first centres (D. Arthur, S. Vassilvitskii, SODA 2007): by the squared distance to the nearest that is drawn already. Here the last layer
is one on frozen features, whose vectors have length 1, so that the length of a gradient says nothing but how unsure the head is; and an
image of which it is sure, with a gradient of zero, counts as drawn from the beginning, so that none of these is.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.audit.neighbours import nearest

# Two images are near-copies here where their distance is less than this share of the usual one, that to the tenth neighbour among the
# images with labels. Other than in the audit it is fixed: a burst of hundreds has no scale of its own, and to leave one out costs little.
NEAR, NEIGHBOUR = 0.4, 10
# So many images with labels tell what is usual.
SAMPLE = 4000


class Next(NamedTuple):
    """The positions ``chosen`` (k,) int64, in the order of the drawing, and how many others are near-copies of one of these, ``copies``."""

    chosen: NDArray[np.int64]
    copies: int


def near_distance(unit: NDArray[np.float32]) -> float:
    """The distance below which two images are near-copies, from the features (n, d) of length 1 of images that are different ones; 0 where
    these are too few to tell.
    """
    found = nearest(unit[:SAMPLE], NEIGHBOUR).distance
    return NEAR * float(np.median(found[:, -1])) if found.shape[1] == NEIGHBOUR else 0.0


def to_label(p: NDArray[np.float64], unit: NDArray[np.float32], count: int, seed: int, near: float = 0.0) -> Next:
    """Up to ``count`` images to label next, from calibrated probabilities (n, classes) and features ``unit`` (n, d) of length 1.

    The first is the one that the head is least sure of. None is nearer to another than ``near``. The same input and seed give the same.
    """
    rng = np.random.default_rng(seed)
    residual, unit = p.copy(), unit.astype(np.float64)
    residual[np.arange(len(p)), p.argmax(axis=1)] -= 1
    # The gradient of an image is the outer product of its residual and its features; products of gradients are those of the two parts.
    length = (residual**2).sum(axis=1) * (unit**2).sum(axis=1)
    away, free = length.copy(), np.ones(len(p), bool)
    chosen: list[int] = []
    while len(chosen) < count:
        weight = np.where(free, away, 0)
        if weight.sum() <= 0:  # what is left is as sure as can be, or the same as what was drawn
            break
        i = int(rng.choice(len(p), p=weight / weight.sum())) if chosen else int(weight.argmax())
        chosen.append(i)
        cosines = unit @ unit[i]
        away = np.minimum(away, np.maximum(length + length[i] - 2 * (residual @ residual[i]) * cosines, 0))
        free &= cosines < 1 - near**2 / 2
        free[i] = False
    return Next(np.array(chosen, np.int64), int((~free).sum()) - len(chosen))
