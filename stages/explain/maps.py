"""Evidence by places → a heat map over the image."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.explain.evidence import Evidence, evidence
from stages.heads.ensemble import EnsembleHead
from stages.heads.head import Head

Size = tuple[int, int]  # height, width
# The method of an ensemble. It is not exact, also where those of its heads are: these have scales of their own, and are averaged.
MEAN = "mean of maps"


class Seen(NamedTuple):
    """What a head takes of one image: the ``features`` (…,) of each layer, and the input ``size`` of the base that they are of."""

    features: Mapping[str, NDArray[np.float32]]
    size: Size


def explain(head: Head, seen: Sequence[Seen], k: int, size: Size) -> tuple[NDArray[np.float32], str]:
    """The heat map (height, width) of ``size``, float32 from 0 to 1, of what speaks for class ``k`` in an image; and by which method.

    ``seen`` is what the head takes of the image; of an ensemble, what each of its heads takes, in their order. The map of an ensemble is
    the mean of its heads' maps, each of which is 1 at its greatest, weighed as the head is. All of it is 0 where nothing speaks for the
    class. Raises HeadError for a head that does not say where it looks.
    """
    if not isinstance(head, EnsembleHead):
        found = evidence(head, seen[0].features, k)
        return heat(found, seen[0].size, size), found.method
    total = np.zeros(size, np.float32)
    for (told, each), mine in zip(head.voters, seen, strict=True):
        if told["weight"]:
            total += np.float32(told["weight"]) * explain(each, [mine], k, size)[0]
    return to_one(total), MEAN


def heat(found: Evidence, taken: Size, size: Size) -> NDArray[np.float32]:
    """The map of ``size``, from 0 to 1, of what speaks for a class; ``taken`` is the size in which the base took the image.

    What speaks against it is left out. Layers add up, each by what it has to an area.
    """
    total = np.zeros(size, np.float32)
    for places in found.places.values():
        total += spread(np.maximum(places, 0) * places.size, taken, size)
    return to_one(total)


def to_one(total: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map of which the greatest value is 1, and none is below 0; zeros stay as they are."""
    top = float(total.max(initial=0))
    return np.clip(total / top, 0, 1) if top > 0 else np.zeros_like(total)


def spread(places: NDArray[np.float64], taken: Size, size: Size) -> NDArray[np.float32]:
    """Values (rows, columns) of places as an image of ``size``, interpolated between their middles."""
    ends = [side / step_of(side, count) for side, count in zip(taken, places.shape, strict=True)]
    # Where places do not reach the edge, as a pooling left the last pixels out, the last ones stand for them.
    more = [max(0, int(np.ceil(end)) - count) for end, count in zip(ends, places.shape, strict=True)]
    grid = np.pad(places, [(0, more[0]), (0, more[1])], mode="edge").astype(np.float32)
    box = (0, 0, min(ends[1], grid.shape[1]), min(ends[0], grid.shape[0]))
    return np.asarray(Image.fromarray(grid).resize((size[1], size[0]), Image.Resampling.BICUBIC, box), np.float32).clip(
        0
    )


def step_of(side: int, count: int) -> float:
    """How many pixels lie between two of ``count`` places along a side.

    Convolutional bases halve an image some times, so that it is a power of two, and the places together are a little shorter or longer than
    the image; patches of a transformer fill it, and so does what comes out even.
    """
    return side / count if side % count == 0 else float(2 ** round(np.log2(side / count)))
