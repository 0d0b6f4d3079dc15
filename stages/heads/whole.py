"""One Keras model from images to probabilities: a base, and what was trained on it."""

from pathlib import Path
from typing import Any

from cache.errors import HeadError
from stages.bases.backend import load_keras
from stages.bases.model import build
from stages.bases.parts import check_base
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.heads.results import MODEL_SUFFIX, whole_result
from stages.heads.tuned import from_pixels


def image_model(folder: Path, spec: BaseSpec | None, weights: Weights | None) -> Any:
    """The model of the trained head in a folder, from RGB images (n, height, width, 3), float32 from 0 to 255 and of the input size, to
    probabilities before the temperature: (n, classes), or (n, 1) for the second of two classes.

    ``spec`` and ``weights`` are those of its base, which computes in float32. Raises HeadError for a head that is no Keras model or takes
    several layers, and BaseError for a base that is none.
    """
    result = whole_result(folder)
    kind, layers = result["kind"], result["layers"]
    if MODEL_SUFFIX[kind] != ".keras" or len(layers) > 1:
        found = f"one on {', '.join(layers)}" if len(layers) > 1 else f'one of kind "{kind}"'
        raise HeadError(f"{folder}: expected a head that is a Keras model of the features of one layer, found {found}")
    if spec is not None and layers:
        check_base(spec)
    model = load_keras().saving.load_model(folder / "model.keras", compile=False, safe_mode=True)
    if not layers:  # trained on images
        return model
    assert spec is not None and weights is not None
    return from_pixels(build(spec, weights, "float32"), spec, layers[0], model)
