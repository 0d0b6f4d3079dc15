"""Images that are like no other: far from all that they are nearest to."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.audit.neighbours import Neighbours

# The distance of a place is the mean over so many neighbours.
AMONG = 10
# Standard deviations from the median, of those that C. Leys et al., J. Exp. Soc. Psychol. 49 (2013) 764, advise the most careful.
LIMIT = 3.0


@dataclass(frozen=True)
class Far:
    """A content, by its position, and how far off it is: its mean distance to its neighbours by the median of all such."""

    content: int
    times: float
    z: float


def far_off(found: Neighbours) -> list[Far]:
    """The contents that lie far from all others, the farthest first.

    By the mean distance to the nearest neighbours, which finds images of none of the classes about as well as anything that is
    made for it (S. Ramaswamy et al., SIGMOD 2000; J. Kuan, J. Mueller, ICML workshop on distribution shift, 2022). Far is what lies
    beyond the limit on the scale of logarithms, by median and median absolute deviation.
    """
    if found.distance.shape[1] < AMONG:
        return []
    distance = found.distance[:, :AMONG].mean(axis=1)
    logs = np.log(np.maximum(distance, 1e-6))
    z = modified_z(logs)
    usual = float(np.exp(np.median(logs)))
    rows = np.flatnonzero(z > LIMIT)
    return [Far(int(i), float(distance[i] / usual), float(z[i])) for i in rows[np.lexsort((rows, -z[rows]))]]


def modified_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how many standard deviations each value (n,) lies above the median, the deviation estimated from the median one."""
    centre = np.median(values)
    spread = np.median(np.abs(values - centre))
    found: NDArray[np.float64] = 0.6745 * (values - centre) / spread if spread > 0 else np.zeros(len(values))
    return found
