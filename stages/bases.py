"""A frozen base: built, given its weights, cut at a layer, run over batches of images in inference mode."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import BaseError
from stages import backend
from stages.specs import BaseSpec
from stages.table import BASES, nearest
from stages.weights import Weights

OTHER_GRAPH = "EfficientNetB"
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


class FrozenBase:
    """RGB images (n, height, width, 3) uint8 → features (n, …) float32.

    ``precision`` and ``device`` say what it really computes with. One function is compiled, for one batch shape; the last
    batch is padded. Raises BaseError where the base cannot be built, cut or given its weights.
    """

    def __init__(self, spec: BaseSpec, weights: Weights) -> None:
        self.spec = spec
        self.precision = backend.precision_for(spec.precision)
        self.device = backend.device()
        self._preprocess = preprocessing(spec.name)
        self._model = cut(build(spec, weights, self.precision), spec.cut, spec.name)
        self.feature_shape: tuple[int, ...] = tuple(self._model.output.shape[1:])

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = len(images)
        batch = np.zeros((self.spec.batch_size, *images.shape[1:]), np.float32)
        batch[:rows] = images
        # The batch is this call's own, as some preprocess_input write into their input.
        features = self._model.predict_on_batch(self._preprocess(batch))
        return np.asarray(features[:rows]).astype(np.float32)


def preprocessing(name: str) -> Any:
    """The base's own ``preprocess_input``: float32 RGB (n, height, width, 3) in 0…255 → what its weights expect."""
    module = getattr(backend.load_keras().applications, BASES[name].module)
    return partial(module.preprocess_input, data_format="channels_last")


def build(spec: BaseSpec, weights: Weights, precision: str) -> Any:
    """The whole base without its top, with its weights, for ``spec.input_size``."""
    if spec.weights not in ("imagenet", "packaged", "random") and spec.name.startswith(OTHER_GRAPH):
        raise BaseError(
            f"{spec.name}: Keras builds it differently for its ImageNet weights, so that a file of them does not fit; "
            'expected weights "imagenet" or "random"; or choose EfficientNetV2'
        )
    keras = backend.load_keras()
    keras.config.set_image_data_format("channels_last")
    # Layers without a name of their own are numbered; starting afresh gives them the same names each time.
    keras.utils.clear_session()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[precision])
    # Keras gives the first EfficientNets another graph with "imagenet" than without: they are built by it each time.
    fetch = spec.weights == "imagenet" and (spec.name.startswith(OTHER_GRAPH) or not weights.fetched)
    try:
        constructor = getattr(keras.applications, spec.name)
        model = constructor(include_top=False, weights="imagenet" if fetch else None, input_shape=(*spec.input_size, 3))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        if fetch and not isinstance(error, ValueError):
            raise BaseError(_cannot_fetch(spec.name, reason)) from error
        height, width = spec.input_size
        raise BaseError(f"{spec.name} at {height}×{width}: cannot be built ({reason}); mend input_size") from error
    finally:
        keras.config.set_dtype_policy(before)
    weights.load(model)
    model.trainable = False
    return model


def _cannot_fetch(name: str, reason: str) -> str:
    return (
        f'weights "imagenet" of {name} cannot be fetched ({reason}); connect this machine once, or set weights to a file '
        'that was downloaded elsewhere (path/to/…_notop.h5), or to "packaged" (VGG16) or "random" to try things out'
    )


def cut(model: Any, layer: str, name: str) -> Any:
    """The model up to ``layer``. Raises BaseError with the layers that there are."""
    layers = [each.name for each in model.layers[1:]]
    if layer not in layers:
        raise BaseError(
            f"layer {layer!r}: {name} has no such layer{nearest(layer, layers)}; there are {', '.join(layers)}"
        )
    return backend.load_keras().Model(model.input, model.get_layer(layer).output)
