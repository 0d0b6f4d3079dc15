"""Folds of train and validation, to score every image of both once."""

import numpy as np
from numpy.typing import NDArray

from cache.errors import DataError
from cache.files import digest_json
from stages.heads.dataset import Dataset

# Positions of the rows to train on, and of those to score.
Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def cross_validation(data: Dataset, folds: int, seed: int) -> list[Fold]:
    """Positions to train on and to score for each fold of train and validation; copies of an image stay together.

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
    # Class after class, each in an order of chance, dealt out like cards.
    dealt = sorted(label_of, key=lambda digest: (label_of[digest], digest_json([seed, digest])))
    fold_of = {digest: place % folds for place, digest in enumerate(dealt)}
    which = np.array([fold_of[data.records[row].sha256] for row in rows])
    return [(rows[which != fold], rows[which == fold]) for fold in range(folds)]
