"""Are stored features those of the images? Some rows of each store are computed again from the image files.

Checksums tell that a row is what was written. Only this tells that what was written was right.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from cache.manifest import ImageRecord
from cache.store import FeatureStore
from stages.bases.frozen import FrozenBase
from stages.data.views import View
from stages.extract.decoding import Rejected, decoded_batches
from stages.extract.drift import relative_errors
from stages.progress import Progress

ROWS = 32


@dataclass
class Rechecked:
    """How many ``rows`` were computed again, the ``largest`` relative error, and the ``path`` of the image that has it."""

    rows: int = 0
    largest: float = 0.0
    path: str = ""


def recheck(
    stores: Mapping[str, FeatureStore],
    known: Mapping[str, ImageRecord],
    root: Path,
    base: FrozenBase,
    progress: Progress,
    view: View | None = None,
) -> dict[str, Rechecked]:
    """Compute some rows of each layer's store again, of the images or of one ``view`` of them, and compare; nothing is written.

    ``known`` says by SHA-256 where the images are, below ``root``; those that changed or cannot be read are left out. Raises DamageError
    for a damaged shard.
    """
    wanted = {record.sha256: record for store in stores.values() for record in spread(store, known)}
    found = {layer: Rechecked() for layer in stores}
    with progress.task("Computing features again", len(wanted)) as advance:
        for batch in decoded_batches(root, list(wanted.values()), base.spec, base.batch_size, Rejected(), view):
            here = base(batch.images)
            for layer, store in stores.items():
                rows = [row for row, record in enumerate(batch.records) if record.sha256 in store]
                if not rows:
                    continue
                errors = relative_errors(store, [batch.records[row] for row in rows], here[layer][rows])
                worst, each = int(np.argmax(errors)), found[layer]
                each.rows += len(rows)
                if not errors[worst] < each.largest:  # what is no number is no smaller, either
                    each.largest, each.path = float(errors[worst]), batch.records[rows[worst]].path
            advance(batch.seen)
    return found


def spread(store: FeatureStore, known: Mapping[str, ImageRecord]) -> Sequence[ImageRecord]:
    """``ROWS`` of the stored images that are ``known``, drawn by their contents, and one of each shard at least.

    What went wrong in one run is wrong in the shards of that run alone.
    """
    of_shard: dict[str, list[ImageRecord]] = defaultdict(list)
    for digest in sorted(store.digests()):
        if digest in known:
            of_shard[store.shard_of(digest)].append(known[digest])
    in_turn = [record for turn in zip_longest(*of_shard.values()) for record in turn if record is not None]
    # Shard after shard, so that each is read once or twice.
    return sorted(in_turn[: max(ROWS, len(of_shard))], key=lambda record: store.shard_of(record.sha256))
