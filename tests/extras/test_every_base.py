"""Every constructor of keras.applications, on small inputs with random weights: built, cut, preprocessed, extracted."""

import gc
import os
from collections.abc import Iterator
from math import prod
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from stages.bases.catalogue import BASES, OURS
from stages.bases.figures import FIGURES
from stages.bases.frozen import FrozenBase
from stages.bases.model import build, layers_of
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights

# Their figures are seen again by building them; the others came from the same script.
BUILT = ["VGG16", "MobileNetV2", "EfficientNetV2B0", "DenseNet121", "ConvNeXtTiny"]
LARGER = {"Xception": 75, "InceptionV3": 75, "InceptionResNetV2": 75}


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    """The largest have a third of a billion weights."""
    yield
    keras.utils.clear_session()
    gc.collect()


@pytest.mark.parametrize("name", sorted(BASES.keys() - OURS.keys()))
def test_features_are_those_of_a_plain_keras_model_with_its_own_preprocessing(tmp_path: Path, name: str) -> None:
    size = LARGER.get(name, 32)
    spec = BaseSpec.model_validate(
        {"name": name, "input_size": size, "weights": "random", "precision": "float32", "batch_size": 2}
    )
    weights = Weights(spec, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    base = FrozenBase(spec, weights)
    (found,) = base(images).values()
    assert found.shape == (2, *base.feature_shapes[spec.cuts[0]]) and np.isfinite(found).all()

    plain = build(spec, weights, "float32")
    module = getattr(keras.applications, BASES[name].module)
    expected = plain.predict_on_batch(module.preprocess_input(images.astype(np.float32)))
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)
    listed = layers_of(spec, weights)
    assert listed[-1].name == plain.layers[-1].name and spec.cuts[0] in {layer.name for layer in listed}


@pytest.mark.parametrize("name", BUILT)
def test_the_figures_of_the_table(name: str) -> None:
    figures = FIGURES[name]
    model = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(*figures.size, 3))
    assert (model.count_params(), model.output.shape[1:]) == (figures.parameters, figures.features)
    multiplied = sum(
        prod(weight.shape) * prod(layer.output.shape[1:-1])
        for layer in model.layers
        for weight in layer.weights
        if weight.name.endswith("kernel")
    )
    assert 2 * multiplied / 1e9 == pytest.approx(figures.gflops, rel=1e-2)


def test_every_base_has_figures() -> None:
    assert FIGURES.keys() == BASES.keys()
