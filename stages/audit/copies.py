"""Near-copies: different files that show the same picture, found among the nearest neighbours by a limit that the data set.

How near is too near depends on the place: two pictures of trousers on white lie nearer to each other than any two street
scenes. So the distance of a pair is measured by the distance to the tenth neighbour (local scaling:
Zelnik-Manor and Perona, NIPS 2004). Where all pictures are different, the neighbours of a picture lie as if strewn evenly in a
space of m dimensions: the m-th power of that ratio is then the least of k - 1 numbers drawn evenly from 0…1, and m follows from the
ratios of the farther neighbours, on which near-copies have no influence (the estimate of Levina and Bickel, NIPS 2004; the same law
for the first two neighbours is the estimate of Facco et al., Scientific Reports 7 (2017) 12140). This gives each image the
probability that its nearest neighbour lies so near by chance, and the limit is that of Benjamini and Hochberg (J. R. Stat. Soc. B 57
(1995) 289): of the images that are named, a share of ``FALSE`` is expected to be there by chance.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stages.audit.neighbours import Neighbours

# The share of the images named that may be there by chance.
FALSE = 0.05
# The neighbour by whose distance that of a pair is measured: bursts of up to so many pictures are told from a dense place.
SCALE = 10
# Neighbours from this one on tell the number of dimensions: groups of near-copies are seldom larger.
FAR = 5
# Below so many neighbours there is nothing to tell it from.
FEWEST = 9
# Rounding to float16 alone moves features by about this distance.
ROUNDING = 1e-3
# Where the tenth neighbour is usually no farther than this, there is no scale.
SAME = 2 * ROUNDING
# Nor is there one where neighbours lie as in a space of so many dimensions: they are equally far.
EVEN = 1e4
# The scale of a place is no less than this share of the usual one: else a picture with more near-copies than neighbours are
# looked for would pass for a dense place.
DENSEST = 0.25
# A ratio above this is no near-copy, however few dimensions there seem to be.
LARGEST = 0.7
# Contents that are clustered at once: their distances to one another take 100 MB.
AT_ONCE = 5000


@dataclass(frozen=True)
class Copies:
    """Near-copies among u contents.

    ``pairs`` (p, 2) int64 are positions, the smaller first; ``distance`` (p,) float64 is that of the two. ``group`` (u,) int64
    numbers the groups from 0 on, -1 for a content that is in none. ``dimension`` and ``limit`` are those of the search: pairs are
    nearer than ``limit`` times the ``scale`` (u,) float64 of both. ``unclear`` says why near-copies cannot be told from others, where
    they cannot.
    """

    pairs: NDArray[np.int64]
    distance: NDArray[np.float64]
    group: NDArray[np.int64]
    dimension: float
    limit: float
    scale: NDArray[np.float64]
    unclear: str = ""


def near_copies(unit: NDArray[np.float32], found: Neighbours) -> Copies:
    """The near-copies among contents with features ``unit`` (u, d) of length 1 and their nearest neighbours."""
    u = len(unit)
    k = min(SCALE, found.distance.shape[1])
    none = Copies(np.empty((0, 2), np.int64), np.empty(0), np.full(u, -1, np.int64), 0.0, 0.0, np.zeros(u))
    if k < FEWEST:
        return replace(none, unclear=f"expected {FEWEST + 1} different images at least, found {u}")
    distance = np.maximum(found.distance, ROUNDING)
    if np.median(distance[:, k - 1]) <= SAME:
        return replace(none, unclear="the base gives most images the same features")
    scale = np.maximum(distance[:, k - 1], DENSEST * np.median(distance[:, k - 1]))
    dimension = dimension_of(distance[:, :k])
    if dimension > EVEN and distance[:, 0].min() > LARGEST * distance[:, k - 1].max():
        return replace(none, dimension=dimension, unclear="all images are equally unlike one another to the base")
    limit = _limit(distance[:, 0] / scale, dimension, k)
    near = distance <= limit * np.minimum(scale[:, None], scale[found.position])
    one, two = np.nonzero(near)[0], found.position[near]
    pairs, where = np.unique(np.sort(np.stack([one, two], axis=1), axis=1), axis=0, return_index=True)
    apart = found.distance[near][where]
    return Copies(pairs, apart, groups(unit, pairs, scale, limit), dimension, limit, scale)


def unless_classes(found: Copies, y: NDArray[np.int64]) -> Copies:
    """``found``, or none where most contents, with labels (u,), are in a group that is their whole class.

    Where a class has fewer images than neighbours are looked for, the scale of a place is the distance to other classes, and all
    images of a class may seem to be one picture.
    """
    inside = found.group >= 0
    pairs, counts = np.unique(np.stack([found.group[inside], y[inside]]), axis=1, return_counts=True)
    whole = counts == np.bincount(y)[pairs[1]]
    if 2 * counts[whole].sum() <= len(y):
        return found
    nothing = Copies(np.empty((0, 2), np.int64), np.empty(0), np.full(len(y), -1), found.dimension, 0.0, found.scale)
    why = "the images of most classes are all as near as copies, and too few of each to say that they are none"
    return replace(nothing, unclear=why)


def dimension_of(distance: NDArray[np.float64]) -> float:
    """The number of dimensions m of the space in which neighbours, at distances (u, k), lie as if strewn evenly.

    The maximum of the likelihood: for j from ``FAR`` on, j·m·log(d_{j+1} / d_j) is exponentially distributed with mean 1.
    """
    j = np.arange(FAR, distance.shape[1])
    steps = j * np.log(distance[:, j] / distance[:, j - 1])
    return float(1 / max(steps.mean(), 1e-6))


def _limit(ratio: NDArray[np.float64], dimension: float, k: int) -> float:
    """The ratio of a distance to the scale below which it is near, from those of the first neighbours (u,); 0 where none is."""
    ordered = np.sort(np.minimum(ratio, 1.0))
    by_chance = 1 - (1 - ordered**dimension) ** (k - 1)
    allowed = FALSE * np.arange(1, len(ordered) + 1) / len(ordered)
    passed = np.flatnonzero(by_chance <= allowed)
    if not len(passed):
        return 0.0
    # The ratio that has the probability allowed: between the last that is named and the first that is not.
    least = (1 - (1 - allowed[passed[-1]]) ** (1 / (k - 1))) ** (1 / dimension)
    return float(min(least, LARGEST))


def groups(
    unit: NDArray[np.float32], pairs: NDArray[np.int64], scale: NDArray[np.float64], limit: float
) -> NDArray[np.int64]:
    """The group (u,) int64 of each content, numbered from 0 in the order of their first members; -1 for one in no pair.

    A chain of pairs may lead through a whole class, each link near and the ends far apart. So what the pairs connect is
    clustered by average linkage (Sokal and Michener, Univ. Kansas Sci. Bull. 38 (1958) 1409): two parts are one group only where
    the mean distance between them, in the scale of the place, is within the limit.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    u = len(unit)
    out = np.full(u, -1, np.int64)
    if not len(pairs):
        return out
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(u, u))
    _, component = connected_components(links, directed=False)
    members = np.unique(pairs)
    number = 0
    for each in np.unique(component[members]):
        inside = members[component[members] == each]
        parts = _parts(unit[inside], scale[inside], limit)
        for part in np.unique(parts):
            chosen = inside[parts == part]
            if len(chosen) > 1:
                out[chosen] = number
                number += 1
    # By first member, so that the numbers follow from the contents alone.
    firsts = {int(out[i]): i for i in reversed(range(u)) if out[i] >= 0}
    order = {old: new for new, old in enumerate(sorted(firsts, key=lambda old: firsts[old]))}
    return np.array([order.get(int(each), -1) for each in out], np.int64)


def _parts(unit: NDArray[np.float32], scale: NDArray[np.float64], limit: float) -> NDArray[np.int64]:
    """The part of each member (m,) of what pairs connect."""
    if len(unit) <= 2:
        return np.zeros(len(unit), np.int64)
    if len(unit) > AT_ONCE:
        # So many hang together in no ordinary data set: they are halved along their longest axis, and the halves stay apart.
        centred = unit.astype(np.float64) - unit.mean(axis=0)
        _, axes = np.linalg.eigh(centred.T @ centred)
        behind = centred @ axes[:, -1] > 0
        if behind.any() and not behind.all():
            out = np.empty(len(unit), np.int64)
            out[~behind] = _parts(unit[~behind], scale[~behind], limit)
            out[behind] = _parts(unit[behind], scale[behind], limit) + out[~behind].max() + 1
            return out
        return np.zeros(len(unit), np.int64)  # all the same
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    first, second = np.triu_indices(len(unit), 1)
    apart = np.maximum(pdist(unit.astype(np.float64)), ROUNDING) / np.sqrt(scale[first] * scale[second])
    found: NDArray[np.int64] = fcluster(linkage(apart, "average"), limit, "distance").astype(np.int64)
    return found
