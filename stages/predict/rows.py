"""What a head says of images whose features are here, by base and layer."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stages.bases.spec import BaseSpec
from stages.explain.maps import Seen
from stages.heads.ensemble import EnsembleHead
from stages.heads.head import Head
from stages.heads.images_of import BaseOrImages
from stages.heads.pooling import pool_layers
from stages.predict.predict import Taken

ByLayer = Mapping[tuple[BaseOrImages, str], NDArray[np.float32]]


def log_proba_of(head: Head, takes: Sequence[Taken], rows: ByLayer) -> NDArray[np.float64]:
    """Log-probabilities (n, classes) before the temperature, from features (n, …) by base and layer."""
    taken = [
        pool_layers([rows[take.base, layer].astype(np.float32) for layer in take.layers], take.pool) for take in takes
    ]
    return head.combined(taken) if isinstance(head, EnsembleHead) else head.predict_log_proba(taken[0])


def seen_in(takes: Sequence[Taken], row: ByLayer, specs: Mapping[BaseOrImages, BaseSpec]) -> list[Seen]:
    """What a head takes of one image, from features (…,) by base and layer, for a map of it; ``specs`` are those of the bases."""
    return [
        Seen({layer: row[take.base, layer] for layer in take.layers}, specs[take.base].input_size) for take in takes
    ]
