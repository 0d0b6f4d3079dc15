"""Manifest and store → arrays: the rows that heads are trained and scored on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cache.manifest import ImageRecord, Manifest
from cache.store import FeatureStore
from stages.specs import Pool


def pool_features(features: NDArray[np.float32], pool: Pool) -> NDArray[np.float32]:
    """Feature maps (n, height, width, channels) → (n, d), float32: flattened, or their mean or maximum over the places.

    Features that are vectors already, (n, d), stay as they are.
    """
    if features.ndim == 2 or pool == "flatten":
        return features.reshape(len(features), -1)
    places = tuple(range(1, features.ndim - 1))
    pooled: NDArray[np.float32] = features.mean(axis=places) if pool == "avg" else features.max(axis=places)
    return pooled


def pool_layers(features: Sequence[NDArray[np.float32]], pool: Pool) -> NDArray[np.float32]:
    """The features of several layers, each (n, …), pooled one by one and laid side by side: (n, d), float32."""
    pooled = [pool_features(each, pool) for each in features]
    return pooled[0] if len(pooled) == 1 else np.concatenate(pooled, axis=1)


@dataclass
class Dataset:
    """The images of a manifest, in an order that depends on their contents alone, with the features of a base's layers.

    ``y`` (n,) int64 indexes ``classes``. Arrays are read once for each layer and pooling, and kept.
    """

    manifest: Manifest
    stores: Mapping[str, FeatureStore]
    records: Sequence[ImageRecord] = field(init=False)
    y: NDArray[np.int64] = field(init=False)
    _arrays: dict[tuple[str, Pool], NDArray[np.float32]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        # By content: a file that is renamed in its class changes nothing, not even the order of batches.
        self.records = sorted(self.manifest.records, key=lambda record: (record.sha256, record.label, record.path))
        ids = {name: i for i, name in enumerate(self.classes)}
        self.y = np.array([ids[record.label] for record in self.records], np.int64)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of their ids."""
        return self.manifest.classes

    def rows(self, split: str) -> NDArray[np.int64]:
        """The positions of a split's images."""
        return np.array([i for i, record in enumerate(self.records) if record.split == split], np.int64)

    def X(self, pool: Pool, layers: Sequence[str] = ()) -> NDArray[np.float32]:
        """Pooled features (n, d) float32 of some layers side by side; of the last one where none is named.

        Raises CacheError where a store lacks an image or is damaged.
        """
        found = [self._pooled(layer, pool) for layer in layers or list(self.stores)[-1:]]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    def _pooled(self, layer: str, pool: Pool) -> NDArray[np.float32]:
        if (layer, pool) not in self._arrays:
            digests = [record.sha256 for record in self.records]
            read = self.stores[layer].read(digests, lambda features: pool_features(features, pool))
            self._arrays[layer, pool] = read
        return self._arrays[layer, pool]

    def feature_shapes(self, layers: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Shape of one image's features, as the base gives them, by layer."""
        return {layer: tuple(self.stores[layer].read(()).shape[1:]) for layer in layers}
