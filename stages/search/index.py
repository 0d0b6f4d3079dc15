"""The images of a manifest as they are searched: their pooled features, kept beside the shards, and in memory."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cache.derived import read_derived, write_derived
from cache.errors import CacheError
from cache.files import digest_json
from cache.manifest import ImageRecord, Manifest
from cache.store import DERIVED, FeatureStore
from stages.audit.contents import unit
from stages.heads.pooling import pool_features
from stages.search.nearest import lengths_of, nearest

# The file that keeps rows as they are searched; the number is raised by hand where they are made otherwise.
KEPT, HOW = f"search{DERIVED}", 1


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
        rows = _rows_of(store, [record.sha256 for record in records])
        return cls(records, rows, lengths_of(rows))

    def like(self, features: NDArray[np.float32], k: int, without: str = "") -> list[Hit]:
        """The ``k`` images most like the one with these features (…,), as the base gives them; ``without`` that of one SHA-256."""
        found = nearest(as_searched(features[None])[0], self.rows, k + bool(without), self.lengths)
        hits = [Hit(self.records[i], float(s)) for i, s in zip(found.position, found.similarity, strict=True)]
        return [hit for hit in hits if hit.record.sha256 != without][:k]


def _rows_of(store: FeatureStore, wanted: Sequence[str]) -> NDArray[np.float16]:
    """The rows (n, d) of contents. They are kept beside the shards, so that only those are made that were not there the last time."""
    if not store.spec_is_whole:
        return store.read(wanted, as_searched, "float16")
    path, key = store.folder / KEPT, digest_json({"how": HOW, "features": store.spec})
    names, rows = read_derived(path, key) or (np.empty(0, "S64"), np.empty((0, 0), np.float16))
    if np.array_equal(names[: len(wanted)], np.array(wanted, "S64")):
        return rows[: len(wanted)]
    old = {name.decode(): row for row, name in enumerate(names.tolist())}
    missing = [digest for digest in wanted if digest not in old]
    if not missing:
        return rows[[old[digest] for digest in wanted]]
    made = store.read(missing, as_searched, "float16")
    # What another configuration of these features has, and this one does not, stays, behind the others.
    asked = set(wanted)
    order = [*wanted, *(digest for digest in old if digest not in asked and digest in store)]
    if old:
        place = {digest: row for row, digest in enumerate(order)}
        both = np.empty((len(order), made.shape[1]), np.float16)
        kept = [digest for digest in order if digest in old]
        both[[place[digest] for digest in kept]] = rows[[old[digest] for digest in kept]]
        both[[place[digest] for digest in missing]] = made
        made = both
    with suppress(OSError):  # a folder that cannot be written to goes without
        write_derived(path, key, order, made)
    return made[: len(wanted)]


def as_searched(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (n, …) as they are compared: averaged over places, and roots of that, of length 1, as in the audit: (n, d)."""
    return unit(pool_features(features, "avg"))
