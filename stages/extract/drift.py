"""Are features computed here those that are stored? A few stored rows are recomputed before new ones are added.

The same code on other hardware, or under other versions, may give other numbers, and a store that mixes them is worse than
none. What is compared is the relative error ‖here − stored‖ / ‖stored‖ of each row.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.manifest import ImageRecord
from cache.shard import ShardInfo
from cache.store import FeatureStore
from stages.bases.frozen import FrozenBase
from stages.data.views import View
from stages.extract.decoding import sample
from stages.progress import Progress

ROWS = 4
# float32 differs in the order of its sums alone, and is stored as float16 (2⁻¹¹); bfloat16 stays within 1e-2 of float32.
TOLERANCE = {"float32": 2e-3, "reduced": 2e-2}


def compare(
    store: FeatureStore,
    known: Mapping[str, ImageRecord],
    root: Path,
    base: FrozenBase,
    layer: str,
    allowed: bool,
    progress: Progress,
    view: View | None = None,
) -> dict[str, Any]:
    """Recompute a few of the stored rows of ``layer``; returns what shards that are written now record of it.

    Rows are of the images, or of a ``view`` of them. ``known`` says by SHA-256 where the images are, below ``root``. Where none of
    those stored is there, nothing is compared. Raises CacheError for drift beyond the tolerance that is not ``allowed``, DamageError
    for a damaged shard.
    """
    found = sample(root, [known[digest] for digest in store.digests() if digest in known], base.spec, ROWS, view)
    if not found:
        if len(store):
            progress.say("features: none of the images that are stored is here, so nothing can be compared")
        return {}
    records, images = found.records, found.images
    batches = [images] if len(images) <= base.batch_size else [image[None] for image in images]
    here = np.concatenate([base(batch)[layer] for batch in batches])
    largest, tolerance = float(relative_errors(store, records, here).max()), tolerance_of(store, base)
    acceptable = largest <= tolerance
    if not acceptable and not allowed:
        raise CacheError(
            f"{store.folder}: {who_differs(store, base)} by {largest:.2%}, expected at most {tolerance:.1%}; "
            "extract all anew into another cache.dir, or add to it all the same with --allow-drift"
        )
    if not acceptable:
        progress.say(f"warning: features differ from those stored by {largest:.2%}; added all the same")
    return {"rows": len(records), "largest": largest, "tolerance": tolerance, "allowed": not acceptable}


def relative_errors(
    store: FeatureStore, records: Sequence[ImageRecord], here: NDArray[np.float32]
) -> NDArray[np.float64]:
    """‖here − stored‖ / ‖stored‖ (n,) of features ``here`` (n, …) of ``records``; infinite where a value is not finite."""
    stored = store.read(record.sha256 for record in records).reshape(len(records), -1).astype(np.float64)
    distances = np.linalg.norm(here.reshape(len(records), -1) - stored, axis=1)
    errors: NDArray[np.float64] = distances / np.maximum(np.linalg.norm(stored, axis=1), 1e-6)
    return np.where(np.isfinite(errors), errors, np.inf)


def tolerance_of(store: FeatureStore, base: FrozenBase) -> float:
    """The relative error that other hardware and other versions explain."""
    exact = {base.precision, *(info.precision for info in store.info())} == {"float32"}
    return TOLERANCE["float32" if exact else "reduced"]


def who_differs(store: FeatureStore, base: FrozenBase) -> str:
    """Words for an error: what computes features here, and what computed those that are stored."""
    return f"features computed here ({_computed_by(base)}) differ from those stored ({_computed_by(store.info()[-1])})"


def _computed_by(features: FrozenBase | ShardInfo) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in features.versions.items())
    return f"{features.precision} on {features.device}, {versions}"
