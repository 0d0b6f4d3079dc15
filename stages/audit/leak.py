"""What images that have kin in train are worth: how far the score of one nearest neighbour falls without them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.audit.contents import Contents
from stages.audit.neighbours import Neighbours, nearest_among
from stages.heads.intervals import Interval, design_effect, wilson


@dataclass(frozen=True)
class Leak:
    """A split, and how many of its n images have kin in train: ``copied``. Copies with one label count once.

    ``accuracy`` is the share of all n whose nearest training image has their label, ``without`` that of the n - ``copied`` others;
    None where there are none. Intervals are Wilson's, 95%, for as many images as kin are worth.
    """

    n: int
    copied: int
    accuracy: float
    interval: Interval
    without: float | None
    without_interval: Interval | None


def with_kin_in(split: str, contents: Contents, kin: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each file (n,) whether a split has another file with the same content, or of the same kin (u,)."""
    mine = kin[contents.of]
    there = np.bincount(mine[contents.rows(split)], minlength=int(kin.max(initial=-1)) + 1)
    found: NDArray[np.bool_] = there[mine] - (contents.split == split) > 0
    return found


def leaks(contents: Contents, found: Neighbours, kin: NDArray[np.int64]) -> dict[str, Leak]:
    """What kin in train are worth, by split: validation, and test where there is one."""
    copied = with_kin_in("train", contents, kin)
    out = {}
    for split in ("validation", "test"):
        rows = contents.distinct(split)
        if len(rows):
            right = _nearest_label(contents, found, rows) == contents.y[rows]
            alone = ~copied[rows]
            mine = kin[contents.of[rows]]
            out[split] = Leak(
                n=len(rows),
                copied=int(copied[rows].sum()),
                accuracy=float(right.mean()),
                interval=accuracy_interval(right, mine),
                without=float(right[alone].mean()) if alone.any() else None,
                without_interval=accuracy_interval(right[alone], mine[alone]) if alone.any() else None,
            )
    return out


def accuracy_interval(right: NDArray[np.bool_], kin: NDArray[np.int64]) -> Interval:
    """Of the accuracy on images (n,), of which those of one kin (n,) are alike."""
    effect = design_effect(right, kin)
    return wilson(float(right.sum()) / effect, len(right) / effect)


def _nearest_label(contents: Contents, found: Neighbours, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The label of the nearest training image of each file (r,)."""
    train = contents.rows("train")
    label = np.full(len(contents.first), -1, np.int64)
    # The first file of a content in train stands for the others.
    label[contents.of[train][::-1]] = contents.y[train][::-1]
    asked = contents.of[rows]
    near = np.concatenate([asked[:, None], found.position[asked]], axis=1)
    labels = label[near]
    answer: NDArray[np.int64] = labels[np.arange(len(rows)), (labels >= 0).argmax(axis=1)]
    if len(far := np.flatnonzero(answer < 0)):  # none of the neighbours that were looked for is in train
        answer[far] = label[nearest_among(contents.unit, asked[far], np.flatnonzero(label >= 0))]
    return answer
