"""The features of a base: what its stores hold of the images and of their views, what they lack, and why they are stale.

Everything here looks at small files only, the stores' indices. Nothing heavy is imported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cache.errors import CacheError
from cache.files import digest_json
from cache.manifest import Manifest
from cache.store import FeatureStore
from pipeline.config.load import Config
from pipeline.targets.reasons import feature_reasons
from stages.bases.brought import completed
from stages.bases.quantise import base_digest
from stages.bases.spec import BaseSpec, joint_key
from stages.bases.weights import Weights
from stages.data.views import View
from stages.progress import spans


@dataclass(frozen=True)
class LayerTarget:
    """The features of one layer of a base: their key and store, and why they are stale.

    Key and store are None while the weights were not fetched or quantised, as the key is not known then.
    """

    layer: str
    key: str | None
    identity: dict[str, Any]
    store: FeatureStore | None
    missing: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ViewTarget:
    """A view of the training images, or the images themselves (None), and the features of each layer of a base."""

    view: View | None
    layers: tuple[LayerTarget, ...]


@dataclass(frozen=True)
class BaseTarget:
    """One base, and the features of each of its layers; of the images, and of each of the ``views`` of training images."""

    name: str
    spec: BaseSpec
    weights: Weights
    layers: tuple[LayerTarget, ...]
    views: tuple[ViewTarget, ...] = ()

    @property
    def every(self) -> list[LayerTarget]:
        """The features of all layers, those of views too."""
        return [*self.layers, *(layer for each in self.views for layer in each.layers)]

    @property
    def stale(self) -> bool:
        """Whether a store lacks something or has something otherwise."""
        return any(layer.reasons for layer in self.every)

    def require(self) -> None:
        """Raise CacheError where the features are stale, as heads cannot be trained on them."""
        if self.stale:
            what = f"features of {self.spec.name} are not up to date" if self.key() else "features"
            raise CacheError(f"{what}: {'; '.join(self.reasons)}; run `make features`")

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is stale; layers and views are named where they differ."""
        return (*_told(self.layers), *self.reasons_of_views)

    @property
    def reasons_of_views(self) -> tuple[str, ...]:
        """Why views are stale; those that are so for one reason are named together."""
        told: dict[tuple[str, ...], list[int]] = {}
        for number, each in enumerate(self.views, 1):
            told.setdefault(_told(each.layers), []).append(number)
        return tuple(
            f"{'view' if len(numbers) == 1 else 'views'} {spans(numbers)}: {reason}"
            for reasons, numbers in told.items()
            for reason in reasons
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """The contents of which one of the layers lacks the image or a view."""
        return tuple(dict.fromkeys(digest for layer in self.every for digest in layer.missing))

    @property
    def stores(self) -> dict[str, FeatureStore]:
        """The stores of the images that are known, by layer."""
        return {layer.layer: layer.store for layer in self.layers if layer.store is not None}

    @property
    def view_stores(self) -> dict[str, list[FeatureStore]]:
        """The stores of the views, by layer, in the order of their numbers."""
        return {
            layer.layer: [store for each in self.views if (store := each.layers[i].store) is not None]
            for i, layer in enumerate(self.layers)
        }

    def key(self, layers: Sequence[str] = (), views: bool = False) -> str | None:
        """The key of the features of some of the layers together, of all of them where none is named; with those of their views."""
        names = layers or [layer.layer for layer in self.layers]
        passes = [self.layers, *(each.layers for each in self.views if views)]
        found = [layer.key for each in passes for name in names for layer in each if layer.layer == name]
        return joint_key([key for key in found if key]) if all(found) else None


def _told(layers: Sequence[LayerTarget]) -> tuple[str, ...]:
    """Why some layers are stale; they are named where they differ."""
    if len({layer.reasons for layer in layers}) == 1:
        return layers[0].reasons
    return tuple(f"{layer.layer}: {reason}" for layer in layers for reason in layer.reasons)


def base_target(config: Config, name: str, spec: BaseSpec, manifest: Manifest) -> BaseTarget:
    """A base, what its stores hold, and what they lack."""
    folder = config.cache.dir / "weights"
    spec = completed(spec, folder)
    weights = Weights(spec, folder)
    digest = base_digest(spec, weights)
    if digest is None:
        what = "is not quantised" if spec.precision == "int8" else f"has its {spec.weights} weights not fetched"
        what = "was not fetched" if spec.hub else what
        all_images, why = tuple(manifest.by_digest), (f"{spec.name} {what} yet",)
        unknown = tuple(LayerTarget(layer, None, {}, None, all_images, why) for layer in spec.cuts)
        return BaseTarget(name, spec, weights, unknown)

    def layers_of(manifest: Manifest, view: View | None = None) -> Iterator[LayerTarget]:
        for layer in spec.cuts:
            identity = spec.identity(digest, config.cache.dtype, layer, view)
            key = digest_json(identity)
            store = FeatureStore(config.cache.dir / "features" / spec.folder_name(key, layer))
            missing = tuple(store.missing(manifest.by_digest))
            reasons = feature_reasons(store, manifest, missing)
            yield LayerTarget(layer, key, identity, store, missing, reasons)

    views = [View(config.views.whole, config.views.seed, number) for number in range(1, spec.views + 1)]
    of_views = tuple(ViewTarget(view, tuple(layers_of(manifest.train, view))) for view in views)
    return BaseTarget(name, spec, weights, tuple(layers_of(manifest)), of_views)
