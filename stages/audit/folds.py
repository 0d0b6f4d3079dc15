"""What belongs together, and folds over all images, whatever their split, that keep it together."""

import numpy as np
from numpy.typing import NDArray

from stages.audit.contents import Contents
from stages.sweeps.folds import dealt


def kin(contents: Contents, group: NDArray[np.int64]) -> NDArray[np.int64]:
    """The kin (u,) int64 of each content, numbered from 0 on: all that hangs together by near-copies, of which ``group`` (u,) numbers
    the groups, -1 for none, and by the groups of ``[data] group``.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    u = len(group)
    near = np.flatnonzero(group >= 0)
    content, node = near, u + group[near]
    if contents.groups is not None:
        content = np.concatenate([content, np.arange(u)])
        node = np.concatenate([node, u + group.max(initial=-1) + 1 + contents.groups])
    nodes = int(max(u, node.max(initial=-1) + 1))
    links = coo_array((np.ones(len(node)), (content, node)), shape=(nodes, nodes))
    found: NDArray[np.int64] = connected_components(links, directed=False)[1][:u].astype(np.int64)
    return np.unique(found, return_inverse=True)[1]


def folds(contents: Contents, kin: NDArray[np.int64], rows: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """The fold (r,) int64 of some files, from 0 on; kin (u,) and identical files are in one. They follow from the contents alone."""
    return dealt(contents.y[rows], kin[contents.of[rows]], number, 0)
