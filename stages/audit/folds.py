"""Folds over all images, whatever their split: copies, and near-copies of one group, are in the same fold."""

import numpy as np
from numpy.typing import NDArray

from stages.audit.contents import Contents


def folds(contents: Contents, group: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """The fold (n,) int64 of each file, from 0 on; ``group`` (u,) is that of each content, -1 for none.

    Classes are dealt out one after the other, each in the order of its contents' digests, so that the folds are alike and follow from
    the contents alone. Files are in that order in ``contents``.
    """
    alone = np.arange(len(group)) + int(group.max(initial=-1)) + 1
    unit = np.where(group >= 0, group, alone)[contents.of]
    kept, first = np.unique(unit, return_index=True)
    dealt = kept[np.lexsort((first, contents.y[first]))]
    fold_of = np.empty(int(unit.max()) + 1, np.int64)
    fold_of[dealt] = np.arange(len(dealt)) % number
    out: NDArray[np.int64] = fold_of[unit]
    return out
