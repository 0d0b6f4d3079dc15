"""The images of a manifest as they are searched: their pooled features, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.manifest import ImageRecord, Manifest
from cache.store import FeatureStore
from stages.audit.contents import unit
from stages.heads.pooling import pool_features
from stages.search.nearest import lengths_of, nearest


@dataclass(frozen=True)
class Hit:
    """An image that was found, and the cosine with what was asked for."""

    record: ImageRecord
    similarity: float


@dataclass(frozen=True)
class Index:
    """Each content of a manifest once: ``records``, and ``rows`` (n, d) float16, what ``as_searched`` gives of its features.

    ``lengths`` (n,) float32 are those of the rows, which are 1 but for rounding, and 0 for an image that the base sees nothing in.
    """

    records: Sequence[ImageRecord]
    rows: NDArray[np.float16]
    lengths: NDArray[np.float32]

    @classmethod
    def read(cls, manifest: Manifest, store: FeatureStore) -> Self:
        """The images of the manifest whose features the store has. Raises CacheError where there are none, or a shard is damaged."""
        records = [record for sha256, record in manifest.by_digest.items() if sha256 in store]
        if not records:
            raise CacheError(
                f"{store.folder}: expected features of images to search among, found none; run `make features`"
            )
        rows = store.read([record.sha256 for record in records], as_searched, "float16")
        return cls(records, rows, lengths_of(rows))

    def like(self, features: NDArray[np.float32], k: int, without: str = "") -> list[Hit]:
        """The ``k`` images most like the one with these features (…,), as the base gives them; ``without`` that of one SHA-256."""
        found = nearest(as_searched(features[None])[0], self.rows, k + bool(without), self.lengths)
        hits = [Hit(self.records[i], float(s)) for i, s in zip(found.position, found.similarity, strict=True)]
        return [hit for hit in hits if hit.record.sha256 != without][:k]


def as_searched(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (n, …) as they are compared: averaged over places, and roots of that, of length 1, as in the audit: (n, d)."""
    return unit(pool_features(features, "avg"))
