"""A layer of a base, seen: its feature maps for an image, and the patterns that its filters answer to."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.errors import BaseError
from stages.bases import backend
from stages.bases.model import build, cut, preprocessing
from stages.bases.parts import check_base
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.explain.drawing import Cell, alone
from stages.progress import Progress

# Channels on a sheet of feature maps, beside the image, filters on one of patterns, and pixels of one of either.
MAPS, FILTERS, EDGE = 47, 16, 96
# Steps of gradient ascent, and by how many of 255 the pixels move in each, as a root mean square; from a grey with so much noise.
STEPS, STEP, GREY, NOISE = 20, 5.0, 128.0, 10.0
AT_ONCE = 8


def strongest(maps: NDArray[np.float32], most: int) -> list[int]:
    """The channels of feature maps (rows, columns, channels) with the largest means, the largest first."""
    return [int(each) for each in np.argsort(-maps.mean(axis=(0, 1)), kind="stable")[:most]]


def map_cells(maps: NDArray[np.float32], layer: str) -> list[Cell]:
    """The strongest feature maps (rows, columns, channels) of an image, each from its least value to its greatest.

    Raises BaseError for a layer whose output has no places.
    """
    _check_places(maps.shape, layer)
    out = []
    for channel in strongest(maps, MAPS):
        picture = Image.fromarray(alone(maps[..., channel])).resize((EDGE, EDGE), Image.Resampling.NEAREST)
        out.append(Cell([np.asarray(picture)], [f"{channel}", f"mean {maps[..., channel].mean():.3g}"]))
    return out


def filter_cells(
    spec: BaseSpec, weights: Weights, layer: str, channels: Sequence[int] | None, seed: int, progress: Progress
) -> list[Cell]:
    """For some channels of a layer, the first ones where none are named, an image that drives the channel's mean up.

    D. Erhan et al., "Visualizing Higher-Layer Features of a Deep Network", Univ. Montreal (2009), by gradient ascent on the pixels. Raises
    BaseError for a base that is no Keras model, and for a layer that has no places.
    """
    check_base(spec)
    if not spec.own_file:  # convolutions take any size, and small images are quicker
        spec = spec.model_copy(update={"input_size": (EDGE, EDGE)})
    model = cut(build(spec, weights, "float32"), [layer], spec.name)
    model = backend.load_keras().Model(model.input, model.outputs[0])
    _check_places(model.output.shape[1:], layer)
    channels = list(channels or range(min(FILTERS, model.output.shape[-1])))[:FILTERS]
    noise = np.random.default_rng(seed).normal(0, NOISE, (*spec.input_size, 3))
    out = []
    with progress.task("Drawing filters", len(channels) * STEPS, "steps") as advance:
        for start in range(0, len(channels), AT_ONCE):
            some = channels[start : start + AT_ONCE]
            pictures = np.repeat((GREY + noise)[None], len(some), axis=0).astype(np.float32)
            for _ in range(STEPS):
                slope = _slope(model, preprocessing(spec), pictures, some)
                size = np.sqrt((slope**2).mean(axis=(1, 2, 3), keepdims=True))
                pictures = np.clip(pictures + STEP * slope / np.maximum(size, 1e-12), 0, 255).astype(np.float32)
                advance(len(some))
            out += [Cell([_contrasted(each)], [f"{channel}"]) for channel, each in zip(some, pictures, strict=True)]
    return out


def _slope(model: Any, prepare: Any, pictures: NDArray[np.float32], channels: Sequence[int]) -> NDArray[np.float32]:
    """The gradient of each picture's own channel, averaged over places, with respect to its pixels (n, height, width, 3)."""
    ops = backend.load_keras().ops
    chosen = np.eye(model.output.shape[-1], dtype=np.float32)[list(channels)]

    def value(at: Sequence[Any], chosen: NDArray[np.float32]) -> tuple[Any, Any]:
        means = ops.mean(model(prepare(at[0]), training=False), axis=(1, 2))
        return ops.sum(means * chosen), means

    _, (found,) = backend.gradients(partial(value, chosen=chosen), [ops.convert_to_tensor(pictures)])
    return np.asarray(ops.convert_to_numpy(found), np.float32)


def _contrasted(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A pattern with its contrast made even, as some filters drive theirs farther than others."""
    away = (picture - picture.mean()) / max(float(picture.std()), 1e-6)
    return np.asarray((GREY + 50 * away).round().clip(0, 255), np.uint8)


def _check_places(shape: Sequence[int | None], layer: str) -> None:
    if len(shape) != 3:
        raise BaseError(
            f"layer {layer!r}: expected feature maps (rows, columns, channels), found {tuple(shape)}; name a layer with places, of which "
            "`headstart layers` has the list"
        )
