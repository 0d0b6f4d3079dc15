"""Answers that a head keeps to itself: how accurate the others are, and from which confidence on it should answer.

R. El-Yaniv, Y. Wiener, "On the Foundations of Noise-free Selective Classification", J. Mach. Learn. Res. 11 (2010) 1605.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError

# Thresholds that are kept, at equal shares of the validation images.
KEPT = 100

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
    """The lowest threshold from which on validation images are answered with at least this ``accuracy``.

    As no more than the validation images is known, one more that is right and one that is wrong are added (the rule of succession),
    so that few images promise little. Raises HeadError, which says what can be reached, where no threshold is high enough.
    """
    reached = [expected_accuracy(*counts) for counts in found["validation"]]
    good = [t for t, share in zip(found["thresholds"], reached, strict=True) if share >= accuracy]
    if not good:
        raise HeadError(
            f"--min-accuracy {accuracy:g}: expected an accuracy that {found['validation'][0][0]} validation images can show, which is "
            f"{max(reached):.3f} at most for this head; ask for less, or add validation images"
        )
    return float(min(good))


def expected_accuracy(answered: int, right: int) -> float:
    """The share of right answers, with one that is right and one that is wrong added."""
    return (right + 1) / (answered + 2)


def shares(found: Mapping[str, Any], split: str) -> Sequence[tuple[float, float]]:
    """Share of images answered, and accuracy of these, at each threshold that answers any."""
    total = found[split][0][0] if split == "validation" else max((a for a, _ in found[split]), default=0)
    return [(answered / total, right / answered) for answered, right in found[split] if answered]
