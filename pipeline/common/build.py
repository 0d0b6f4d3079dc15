"""The frozen base of a target, built, and what is said of it: quantised where that is asked, in the precision that suits it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import DataError
from pipeline.targets.features import BaseTarget, LayerTarget, base_target
from pipeline.targets.graph import Graph
from stages.progress import Progress

if TYPE_CHECKING:
    from stages.bases.frozen import FrozenBase
    from stages.extract.features import LayerStore


def frozen_base(graph: Graph, target: BaseTarget, progress: Progress, layers: Sequence[str] = ()) -> "FrozenBase":
    """The base of a target, for the layers that lack images or for those named. Raises DataError where no image is here."""
    if not graph.images_here:
        raise DataError(
            f"{graph.config.data.root}: {len(target.missing)} images are to be extracted ({'; '.join(target.reasons)}), "
            "but the folder is not here; extract where the images are, and copy the cache"
        )
    from stages.extract.precision import suitable_base

    if target.spec.hub and target.key() is None:
        from stages.bases.hub import fetch

        progress.say(f"base: fetching {target.spec.name} (once)")
        fetch(target.spec, target.weights.folder)
        target = base_target(graph.config, target.name, target.spec, graph.manifest)
    if target.spec.precision == "int8":
        _quantise(graph, target, progress)
    cuts = layers or list(dict.fromkeys(layer.layer for layer in target.every if layer.missing))
    records = [graph.manifest.by_digest[digest] for digest in target.missing]
    root = graph.config.data.root
    _say_note(target, progress)
    stores = [target.stores[layer] for layer in cuts if layer in target.stores]
    base = suitable_base(target.spec, target.weights, cuts, stores, records, root, progress)
    _say_base(base, progress)
    return base


def stores_to_write(layers: Sequence[LayerTarget]) -> "dict[str, LayerStore]":
    """The stores of layers whose keys are known, as stage one writes to them."""
    from stages.extract.features import LayerStore

    return {
        each.layer: LayerStore(each.store, each.key, each.identity)
        for each in layers
        if each.store is not None and each.key is not None
    }


def _quantise(graph: Graph, target: BaseTarget, progress: Progress) -> None:
    from stages.bases.quantise import QuantisedBase
    from stages.extract.precision import calibration_images

    base = QuantisedBase(target.spec, target.weights)
    if base.digest() is None:
        progress.say(f"base: quantising {target.spec.name} to int8 (once, a minute or so)")
        images = calibration_images(graph.manifest, graph.config.data.root, target.spec)
        if taken := base.make(images, progress.say):
            progress.say(f"base: quantised on {taken} training images; kept in {target.weights.folder}")


def base_as_stored(
    target: BaseTarget, progress: Progress, layers: Sequence[str], most: int | None = None
) -> "FrozenBase":
    """The base in the precision that its stored features have, as far as this machine has it; for ``most`` images at once, where more
    are not to come.
    """
    from stages.bases import backend
    from stages.bases.frozen import FrozenBase
    from stages.extract.precision import stored_precision

    _say_note(target, progress)
    precision = stored_precision(target.spec, [target.stores[layer] for layer in layers])
    spec = target.spec
    if most and most < (spec.batch_size or backend.batch_size(spec.computed_by)):
        spec = spec.model_copy(update={"batch_size": most})
    base = FrozenBase(spec, target.weights, layers, precision)
    _say_base(base, progress)
    return base


def _say_note(target: BaseTarget, progress: Progress) -> None:
    from stages.bases.weights import note

    if said := note(target.spec):
        progress.say(said)
    if target.spec.brought and target.spec.preprocess is None and target.spec.numbers is None:
        styles = "" if target.spec.onnx or target.spec.hub else '"caffe", "tf" or "torch", or '
        progress.say(
            f"preprocess: none is named, so the base gets pixels from 0 to 255; {styles}scale, mean and std change them"
        )


def _say_base(base: "FrozenBase", progress: Progress) -> None:
    spec = base.spec
    height, width = spec.input_size
    cuts = ", ".join(f"{layer} → {shape}" for layer, shape in base.feature_shapes.items())
    progress.say(
        f"base: {spec.name} at {height}×{width}, cut at {cuts}, "
        f"weights {Path(spec.weights).name}; on {base.device} in {base.precision}, batches of {base.batch_size}"
    )
