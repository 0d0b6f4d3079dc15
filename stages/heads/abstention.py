"""Answers that a head keeps to itself: how accurate the others are, and from which confidence on it should answer.

R. El-Yaniv, Y. Wiener, "On the Foundations of Noise-free Selective Classification", J. Mach. Learn. Res. 11 (2010) 1605.

Of groups of like images, as many count as would tell as much on their own (L. Kish, "Survey Sampling" (1965), section 8.2). Where fewer
than five groups have a mistake, a group is one image, which is wrong by the share of its images that are.

A head that was chosen among several on these images had luck with them, too. The risk is divided by their number (C. Bonferroni, Pubbl.
R. Ist. Sup. Sci. Econ. Commer. Firenze 8 (1936) 3), so that the promise holds whichever of them was chosen.
"""

from collections.abc import Mapping
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.errors import HeadError
from stages.heads.intervals import design_effect

# Thresholds that are kept, at equal shares of the validation images.
KEPT = 100
# How often a threshold may give less than the accuracy that was asked for.
RISK = 0.05


class Confident(NamedTuple):
    """Of the images of a split the ``confidence`` (n,), which is the probability of the predicted class, whether it is ``right`` (n,),
    and the group (n,) of each, where groups are used.
    """

    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]
    groups: NDArray[np.int64] | None = None


def selective(splits: Mapping[str, Confident]) -> dict[str, Any]:
    """For each of at most 101 thresholds, in ascending order, how many images of each split a head answers and has right; with groups,
    also how many groups these are of, and by how much they raise the variance.

    Thresholds are confidences of validation images: the first answers all of these, each next one about 1% fewer.
    """
    ordered = np.sort(splits["validation"].confidence)
    thresholds = np.unique(ordered[np.unique(np.linspace(0, len(ordered) - 1, KEPT + 1).astype(int))])
    out: dict[str, Any] = {"thresholds": [float(each) for each in thresholds]}
    for split, (confidence, right, groups) in splits.items():
        answered = confidence >= thresholds[:, None]
        out[split] = [[int(a.sum()), int((a & right).sum())] for a in answered]
        if groups is not None:
            out[f"{split}_groups"] = [
                [len(np.unique(groups[a])), round(design_effect(right[a], groups[a]), 6)] for a in answered
            ]
    return out


def effective(found: Mapping[str, Any], split: str, place: int) -> tuple[float, float]:
    """How many images a head answers at a threshold of ``selective``, and has right, as if each was on its own."""
    answered, right = found[split][place]
    effect = found[f"{split}_groups"][place][1] if f"{split}_groups" in found else 1.0
    return answered / effect, right / effect


def threshold_for(found: Mapping[str, Any], accuracy: float, among: int = 1) -> float:
    """The lowest threshold from which on the validation images show at least this ``accuracy``, with a risk of 5%, for a head that they
    chose ``among`` so many; 1 for one that they did not choose.

    Thresholds are tried from the highest down to the first whose accuracy may be lower, by the one-sided bound of C. Clopper and
    E. Pearson (Biometrika 26 (1934) 404). In an order that does not depend on what is right, no correction is needed (B. Wiens,
    Pharm. Stat. 2 (2003) 211). They begin where one mistake would be allowed, as far as there are so many images. Raises HeadError,
    which says what the images show, where no threshold is high enough. With groups both numbers of the bound are effective ones, and a
    mistake is allowed in one group.
    """
    total = found["validation"][0][0]
    # What is tried first does not depend on what is right: groups are counted, and not what they change.
    counted = [groups for groups, _ in found.get("validation_groups", found["validation"])]
    with_one_wrong = np.arange(1, counted[0])
    allowed = np.flatnonzero(shown(with_one_wrong + 1, with_one_wrong, among) >= accuracy)
    enough = allowed[0] + 2 if len(allowed) else counted[0]
    tried = [place for place in reversed(range(len(counted))) if counted[place] >= enough]
    answered, right = np.array([effective(found, "validation", place) for place in tried]).T
    bounds = shown(answered, right, among)
    held = list(takewhile(lambda each: each[1] >= accuracy, zip(tried, bounds, strict=True)))
    if not held:
        in_groups = f" in {counted[0]} groups" if "validation_groups" in found else ""
        chosen = f", which they chose among {among:,}" if among > 1 else ""
        raise HeadError(
            f"--min-accuracy {accuracy:g}: expected an accuracy that {total} validation images{in_groups} can show, which is "
            f"{bounds.max():.3f} at most for this head{chosen}; ask for less, or add validation images"
        )
    return float(found["thresholds"][held[-1][0]])


def shown(answered: NDArray[Any], right: NDArray[Any], among: int = 1) -> NDArray[np.float64]:
    """The accuracy that so many right answers show: lower ones would give as many in 5% of cases at most, to any of ``among`` heads."""
    from scipy.special import betaincinv

    found = betaincinv(np.maximum(right, 1e-9), answered - right + 1, RISK / among)
    return np.asarray(np.where(right > 0, found, 0.0), np.float64)
