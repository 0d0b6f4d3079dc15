"""Are features computed here those that are stored? A few stored rows are recomputed before new ones are added.

The same code on other hardware, or under other versions, may give other numbers, and a store that mixes them is worse than
none. What is compared is the relative error ‖here − stored‖ / ‖stored‖ of each row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheError
from cache.manifest import ImageRecord
from cache.store import FeatureStore
from stages.bases.frozen import FrozenBase
from stages.bases.spec import BaseSpec
from stages.data.images import BadImageError
from stages.extract.decoding import ChangedError, load

ROWS = 4
# float32 differs in the order of its sums alone, and is stored as float16 (2⁻¹¹); bfloat16 stays within 1e-2 of float32.
TOLERANCE = {"float32": 2e-3, "reduced": 2e-2}


@dataclass(frozen=True)
class Drift:
    """How far rows computed here are from the stored ones."""

    rows: int
    largest: float
    tolerance: float
    stored_with: str

    @property
    def acceptable(self) -> bool:
        return self.largest <= self.tolerance

    def as_json(self) -> dict[str, Any]:
        """What shards that are written now record of it; what is not acceptable was allowed."""
        return {
            "rows": self.rows,
            "largest": self.largest,
            "tolerance": self.tolerance,
            "allowed": not self.acceptable,
        }


def measure(
    store: FeatureStore, known: Mapping[str, ImageRecord], root: Path, base: FrozenBase, layer: str
) -> Drift | None:
    """Recompute a few of the stored rows of ``layer`` whose images are here; None where there are none to compare.

    ``known`` has the images by their content.
    """
    records = [known[digest] for digest in store.digests() if digest in known]
    found = _readable(_spread(records), root, base.spec)
    if not found:
        return None
    here = np.concatenate(
        [base(image[None])[layer] for _, image in found]
        if base.batch_size < len(found)
        else [base(np.stack([image for _, image in found]))[layer]]
    ).reshape(len(found), -1)
    stored = store.read(record.sha256 for record, _ in found).reshape(len(found), -1)
    errors = np.linalg.norm(here - stored, axis=1) / np.maximum(np.linalg.norm(stored, axis=1), 1e-6)
    infos = store.info()
    exact = base.precision == "float32" and all(info.precision == "float32" for info in infos)
    last = infos[-1]
    words = f"{last.precision} on {last.device}, " + ", ".join(f"{name} {v}" for name, v in last.versions.items())
    return Drift(len(found), float(errors.max()), TOLERANCE["float32" if exact else "reduced"], words)


def require(drift: Drift, store: FeatureStore, base: FrozenBase, allowed: bool) -> None:
    """Raise CacheError where features drifted beyond the tolerance, unless that is ``allowed``."""
    if drift.acceptable or allowed:
        return
    here = f"{base.precision} on {base.device}, " + ", ".join(f"{name} {v}" for name, v in base.versions.items())
    raise CacheError(
        f"{store.folder}: features computed here ({here}) differ from those stored ({drift.stored_with}) by "
        f"{drift.largest:.2%}, expected at most {drift.tolerance:.1%}; extract all anew into another cache.dir, "
        "or add to it all the same with --allow-drift"
    )


def _spread(records: Sequence[ImageRecord]) -> Sequence[ImageRecord]:
    """A few records from beginning to end, twice as many as are wanted, as some may not be readable here."""
    return records[:: max(1, len(records) // (2 * ROWS))][: 2 * ROWS]


def _readable(records: Sequence[ImageRecord], root: Path, spec: BaseSpec) -> list[tuple[ImageRecord, Any]]:
    found = []
    for record in records:
        try:
            found.append((record, load(root / record.path, record.sha256, spec)))
        except (OSError, BadImageError, ChangedError):
            continue
        if len(found) == ROWS:
            break
    return found
