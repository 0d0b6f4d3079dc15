"""Folds of train and validation, to score every image of both once."""

import numpy as np
from numpy.typing import NDArray

from cache.errors import DataError
from cache.files import digest_json
from stages.heads.dataset import Dataset

# Positions of the rows to train on, and of those to score.
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def cross_validation(data: Dataset, folds: int, seed: int) -> list[Fold]:
    """Positions to train on and to score for each fold of train and validation; copies of an image, and images of one
    group, stay together.

    Folds are drawn from each image's content digest and the seed, stratified by class. Raises DataError for fewer images than
    folds.
    """
    rows = data.rows("train", "validation")
    label_of: dict[str, int] = {}
    for row in rows:
        label_of.setdefault(data.records[row].sha256, int(data.y[row]))
    if len(label_of) < folds:
        raise DataError(
            f"cv = {folds}: expected as many images in train and validation at least, found {len(label_of)}"
        )
    if data.groups is not None:
        return _of_groups(rows, data.y[rows], data.groups[rows], folds, seed)
    # Class after class, each in an order of chance, dealt out like cards.
    dealt = sorted(label_of, key=lambda digest: (label_of[digest], digest_json([seed, digest])))
    fold_of = {digest: place % folds for place, digest in enumerate(dealt)}
    which = np.array([fold_of[data.records[row].sha256] for row in rows])
    return [(rows[which != fold], rows[which == fold]) for fold in range(folds)]


def _of_groups(
    rows: NDArray[np.int64], y: NDArray[np.int64], groups: NDArray[np.int64], folds: int, seed: int
) -> list[Fold]:
    """Folds of whole groups (n,)."""
    if (number := len(np.unique(groups))) < folds:
        raise DataError(
            f"cv = {folds}: expected as many groups in train and validation at least, found {number}; set a lower cv"
        )
    found = dealt(y, groups, folds, seed)
    return [(rows[found != fold], rows[found == fold]) for fold in range(folds)]


def dealt(y: NDArray[np.int64], groups: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold (n,) of each image, by labels and groups (n,): groups stay whole. The largest are dealt first, each to the fold that
    has the fewest images of its most frequent class.
    """
    names, which, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    held = np.zeros((len(names), int(y.max()) + 1), np.int64)
    np.add.at(held, (which, y), 1)
    most = held.argmax(axis=1).tolist()
    # As lists, which are quicker to look into one by one.
    of_class = [[0] * held.shape[1] for _ in range(folds)]
    of_all = [0] * folds
    fold_of = np.empty(len(names), np.int64)
    # The order of equally large groups is one of chance.
    chance = np.random.default_rng(seed).permutation(len(names))
    for group in np.lexsort((chance, -sizes)).tolist():
        c = most[group]
        fold = min(range(folds), key=lambda i: (of_class[i][c], of_all[i], i))
        fold_of[group] = fold
        of_all[fold] += int(sizes[group])
        for label in [c] if sizes[group] == 1 else np.flatnonzero(held[group]).tolist():
            of_class[fold][label] += int(held[group, label])
    found: NDArray[np.int64] = fold_of[which]
    return found
