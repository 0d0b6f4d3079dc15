"""Answers that a head keeps to itself: how accurate the others are, and from which confidence on it should answer.

R. El-Yaniv, Y. Wiener, "On the Foundations of Noise-free Selective Classification", J. Mach. Learn. Res. 11 (2010) 1605.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError

# Thresholds that are kept, at equal shares of the validation images.
KEPT = 100
# How often a threshold may give less than the accuracy that was asked for.
RISK = 0.05

Confident = tuple[NDArray[np.float64], NDArray[np.bool_]]


def selective(splits: Mapping[str, Confident]) -> dict[str, Any]:
    """For each of at most 101 thresholds, in ascending order, how many images of each split a head answers and has right.

    ``splits`` has the confidence (n,) of each image, which is the probability of its predicted class, and whether it is right.
    Thresholds are confidences of validation images: the first answers all of these, each next one about 1% fewer.
    """
    ordered = np.sort(splits["validation"][0])
    thresholds = np.unique(ordered[np.unique(np.linspace(0, len(ordered) - 1, KEPT + 1).astype(int))])
    out: dict[str, Any] = {"thresholds": [float(each) for each in thresholds]}
    for split, (confidence, right) in splits.items():
        answered = confidence >= thresholds[:, None]
        out[split] = [[int(a.sum()), int((a & right).sum())] for a in answered]
    return out


def threshold_for(found: Mapping[str, Any], accuracy: float) -> float:
    """The lowest threshold from which on the validation images show at least this ``accuracy``, with a risk of 5%.

    Thresholds are tried from the highest down to the first whose accuracy may be lower, by the one-sided bound of C. Clopper and
    E. Pearson (Biometrika 26 (1934) 404). In an order that does not depend on what is right, no correction is needed (B. Wiens,
    Pharm. Stat. 2 (2003) 211). They begin where one mistake would be allowed, as far as there are so many images. Raises HeadError,
    which says what the images show, where no threshold is high enough.
    """
    tried = sorted(zip((tuple(each) for each in found["validation"]), found["thresholds"], strict=True))
    total = tried[-1][0][0]
    enough = next((n for n in range(2, total + 1) if shown(n, n - 1) >= accuracy), total)
    threshold = None
    for (answered, right), at in tried:
        if answered < enough:
            continue
        if shown(answered, right) < accuracy:
            break
        threshold = float(at)
    if threshold is None:
        most = max(shown(answered, right) for (answered, right), _ in tried if answered >= enough)
        raise HeadError(
            f"--min-accuracy {accuracy:g}: expected an accuracy that {total} validation images can show, which is {most:.3f} at most "
            "for this head; ask for less, or add validation images"
        )
    return threshold


def shown(answered: int, right: int) -> float:
    """The accuracy that so many right answers show: lower ones would give as many in 5% of cases at most."""
    from scipy.stats import beta

    return float(beta.ppf(RISK, right, answered - right + 1)) if right else 0.0
