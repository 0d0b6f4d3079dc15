"""The images of a manifest as an audit sees them: by content, as files with the same bytes have the same features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cache.manifest import ImageRecord
from stages.heads.dataset import Dataset
from stages.heads.intervals import design_effect


@dataclass(frozen=True)
class Contents:
    """Image files and the different contents among them, in an order that depends on the contents alone.

    ``records`` are the n files, ``y`` (n,) int64 their labels, which index ``classes``, ``split`` (n,) the names of their splits.
    ``of`` (n,) int64 is the position of each file's content, ``first`` (u,) int64 that of the first file of each content.
    ``X`` (u, d) float32 are averaged features, ``unit`` (u, d) float32 their roots, of length 1. ``groups`` (n,) int64 are those of
    ``[data] group``, None where they are not used.
    """

    records: Sequence[ImageRecord]
    classes: tuple[str, ...]
    y: NDArray[np.int64]
    split: NDArray[np.str_]
    of: NDArray[np.int64]
    first: NDArray[np.int64]
    X: NDArray[np.float32]
    unit: NDArray[np.float32]
    groups: NDArray[np.int64] | None = None

    @classmethod
    def read(cls, data: Dataset, layer: str) -> Self:
        """The contents of a dataset, with the features of a layer. Raises CacheError and DataError as ``Dataset.X`` does."""
        records = data.records
        digests = [record.sha256 for record in records]
        new = np.array([i == 0 or digest != digests[i - 1] for i, digest in enumerate(digests)])
        first = np.flatnonzero(new)
        X = data.X("avg", (layer,))[first]
        split = np.array([record.split for record in records])
        return cls(records, data.classes, data.y, split, np.cumsum(new) - 1, first, X, unit(X), data.groups)

    def digest(self, content: int) -> str:
        """SHA-256 of a content."""
        return str(self.records[self.first[content]].sha256)

    def rows(self, *splits: str) -> NDArray[np.int64]:
        """The positions of the files of some splits."""
        return np.flatnonzero(np.isin(self.split, splits))

    def distinct(self, *splits: str) -> NDArray[np.int64]:
        """The positions of the files of some splits, of copies with one label only the first: they are one image."""
        rows = self.rows(*splits)
        first = np.unique(self.of[rows] * len(self.classes) + self.y[rows], return_index=True)[1]
        found: NDArray[np.int64] = rows[np.sort(first)]
        return found

    def effect(self, rows: NDArray[np.int64], right: NDArray[np.bool_]) -> float:
        """By how much groups raise the variance of the share of ``rows`` (m,) that are ``right`` (m,)."""
        return design_effect(right, None if self.groups is None else self.groups[rows])


def unit(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """The signed square roots of rows (n, d), of length 1: half the squared distance of two is 1 less their cosine.

    Of averaged features a few channels are large and decide alone how near two images are; roots let the others have their say
    (power normalisation: F. Perronnin, J. Sánchez, T. Mensink, ECCV 2010). ``bench.audit`` prints what that is worth. Rows of zeros
    stay as they are.
    """
    roots = np.sign(X) * np.sqrt(np.abs(X))
    length = np.linalg.norm(roots, axis=1, keepdims=True)
    out: NDArray[np.float32] = (roots / np.where(length > 0, length, 1)).astype(np.float32)
    return out
