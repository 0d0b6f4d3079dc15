"""The images of a manifest as an audit sees them: by content, as files with the same bytes have the same features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cache.manifest import ImageRecord
from stages.heads.dataset import Dataset


@dataclass(frozen=True)
class Contents:
    """Image files and the different contents among them, in an order that depends on the contents alone.

    ``records`` are the n files, ``y`` (n,) int64 their labels, which index ``classes``, ``split`` (n,) the names of their splits.
    ``of`` (n,) int64 is the position of each file's content, ``first`` (u,) int64 that of the first file of each content.
    ``X`` (u, d) float32 are averaged features, ``unit`` (u, d) float32 their roots, of length 1. ``groups`` (u,) int64 are those of
    ``[data] group``, one of its own for a content in none; None where groups are not used.
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
        groups = None if data.groups is None else data.groups[first]
        return cls(records, data.classes, data.y, split, np.cumsum(new) - 1, first, X, unit(X), groups)

    def digest(self, content: int) -> str:
        """SHA-256 of a content."""
        return str(self.records[self.first[content]].sha256)

    def rows(self, *splits: str) -> NDArray[np.int64]:
        """The positions of the files of some splits."""
        return np.flatnonzero(np.isin(self.split, splits))

    def distinct(self, *splits: str) -> NDArray[np.int64]:
        """As ``rows``, of copies with one label only the first: they are one image."""
        rows = self.rows(*splits)
        # Copies stand side by side, those with one label too.
        same = (np.diff(self.of[rows]) == 0) & (np.diff(self.y[rows]) == 0)
        kept: NDArray[np.int64] = rows[np.concatenate([np.ones(min(len(rows), 1), bool), ~same])]
        return kept


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
