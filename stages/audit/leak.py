"""What near-copies across splits are worth: how far the score of one nearest neighbour falls without them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.audit.contents import Contents
from stages.audit.neighbours import Neighbours
from stages.heads.intervals import wilson


@dataclass(frozen=True)
class Leak:
    """A split, and how many of its n images have a near-copy in train: ``copied``.

    ``accuracy`` is the share of all n whose nearest training image has their label, ``without`` that of the n - ``copied`` others;
    None where there are none. Intervals are Wilson's, 95%.
    """

    n: int
    copied: int
    accuracy: float
    interval: tuple[float, float]
    without: float | None
    without_interval: tuple[float, float] | None


def with_copy_in_train(contents: Contents, group: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each file (n,) whether train has another file with the same content, or with one of the same group (u,)."""
    train = contents.rows("train")
    same = np.bincount(contents.of[train], minlength=len(contents.first))
    mine = group[contents.of]
    of_group = np.bincount(group[contents.of[train]] + 1, minlength=int(group.max(initial=-1)) + 2)
    own = (contents.split == "train").astype(np.int64)
    found: NDArray[np.bool_] = (same[contents.of] - own > 0) | ((mine >= 0) & (of_group[mine + 1] - own > 0))
    return found


def leaks(contents: Contents, found: Neighbours, group: NDArray[np.int64]) -> dict[str, Leak]:
    """What near-copies are worth, by split: validation, and test where there is one."""
    copied = with_copy_in_train(contents, group)
    out = {}
    for split in ("validation", "test"):
        rows = contents.distinct(split)
        if len(rows):
            right = _nearest_label(contents, found, rows) == contents.y[rows]
            others = rows[~copied[rows]]
            alone = right[~copied[rows]]
            effect, effect_alone = contents.effect(rows, right), contents.effect(others, alone)
            out[split] = Leak(
                n=len(rows),
                copied=int(copied[rows].sum()),
                accuracy=float(right.mean()),
                interval=wilson(right.sum() / effect, len(right) / effect),
                without=float(alone.mean()) if len(alone) else None,
                without_interval=wilson(alone.sum() / effect_alone, len(alone) / effect_alone) if len(alone) else None,
            )
    return out


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
        from sklearn.neighbors import NearestNeighbors

        trained = np.flatnonzero(label >= 0)
        search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(contents.unit[trained])
        answer[far] = label[trained[search.kneighbors(contents.unit[asked[far]], return_distance=False)[:, 0]]]
    return answer
