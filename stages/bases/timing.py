"""What a base is on this machine: its figures, seen by building it, and how many images it computes in a second."""

from time import perf_counter

import numpy as np

from stages.bases.figures import Figures
from stages.bases.frozen import FrozenBase
from stages.bases.layers import layers_of
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights

# So many batches are timed, or as many as take so many seconds: a large base varies less from one to the next.
BATCHES = 4
SECONDS = 2.0


def _runnable(spec: BaseSpec) -> BaseSpec:
    """The same base with random weights, which take as long, where its own are not fetched yet."""
    return spec if spec.brought or spec.weights != "imagenet" else spec.model_copy(update={"weights": "random"})


def measured(spec: BaseSpec, weights: Weights) -> Figures:
    """The figures of a base that no table has. Raises BaseError where it cannot be built."""
    spec = _runnable(spec)
    weights = Weights(spec, weights.folder)
    layers = layers_of(spec, weights)
    # Another engine or precision computes the same, and might have to be made first.
    plain = {} if spec.onnx else {"engine": "keras", "precision": "float32"}
    base = FrozenBase(spec.model_copy(update={"batch_size": 1, **plain}), weights)
    # A model counts itself where it is one of its own layers.
    whole = [layer.parameters for layer in layers if layer.name == "output"]
    parameters = whole[0] if whole else sum(layer.parameters for layer in layers)
    return Figures(spec.input_size, parameters, tuple(base.feature_shapes[base.layers[-1]]), base.gflops)


def images_per_second(spec: BaseSpec, weights: Weights) -> float:
    """Images that the base computes in a second from memory, without decoding; the first batch is not timed."""
    spec = _runnable(spec)
    base = FrozenBase(spec, Weights(spec, weights.folder))
    images = np.random.default_rng(0).integers(0, 256, (base.batch_size, *spec.input_size, 3), np.uint8)
    base(images)
    seconds: list[float] = []
    while len(seconds) < BATCHES and sum(seconds) < SECONDS:
        start = perf_counter()
        base(images)
        seconds.append(perf_counter() - start)
    return len(images) / float(np.median(seconds))
