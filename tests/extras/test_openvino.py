"""OpenVINO and int8: the same features, a key that added images do not change, one quantisation for all layers."""

import gc
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from conftest import Project, write_photos

from cache import FeatureStore
from cache.errors import BaseError
from stages.bases.frozen import FrozenBase
from stages.bases.quantise import QuantisedBase
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights

CONFIG = """
[data]
root = "photos"
[base]
name = "VGG16"
input_size = 32
weights = "random"
engine = "openvino"
precision = "int8"
calibration_images = 20
layers = ["block4_pool", "block5_pool"]
[heads.ridge]
kind = "sklearn"
estimator = "RidgeClassifier"
"""


def images(n: int, size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def singly(n: int, seed: int = 0) -> list[np.ndarray]:
    return [image[None] for image in images(n, seed=seed)]


def base(folder: Path, **options: object) -> FrozenBase:
    spec = BaseSpec.model_validate({"weights": "random", "precision": "float32", "input_size": 32, **options})
    return FrozenBase(spec, Weights(spec, folder))


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", ["VGG16", "ResNet50", "MobileNetV2", "EfficientNetV2B0", "ConvNeXtTiny"])
def test_openvino_gives_what_keras_gives(tmp_path: Path, name: str) -> None:
    batch = images(5)
    (expected,) = base(tmp_path, name=name)(batch).values()
    (found,) = base(tmp_path, name=name, engine="openvino")(batch).values()
    assert relative(found, expected) < 1e-3


def transformer(path: Path) -> None:
    """Patches and one block, in a Keras file."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    images = layers.Input((32, 32, 3))
    tokens = layers.Reshape((16, 64))(layers.Conv2D(64, 8, 8)(layers.Rescaling(1 / 127.5, -1)(images)))
    normed = layers.LayerNormalization()(tokens)
    tokens = layers.Add()([tokens, layers.MultiHeadAttention(2, 32)(normed, normed)])
    wide = layers.Dense(256, activation="gelu")(layers.LayerNormalization()(tokens))
    keras.Model(images, layers.Add()([tokens, layers.Dense(64)(wide)])).save(path)


def test_it_has_weights_of_its_own(tmp_path: Path) -> None:
    """It read those of dense layers where a Keras model had been, and whatever was written there since."""
    transformer(tmp_path / "mine.keras")

    def of(engine: str) -> FrozenBase:
        options = {
            "name": f"file:{tmp_path / 'mine.keras'}",
            "engine": engine,
            "precision": "float32",
            "input_size": 32,
        }
        spec = BaseSpec.model_validate(options).model_copy(update={"weights": str(tmp_path / "mine.keras")})
        return FrozenBase(spec, Weights(spec, tmp_path / "weights"))

    batch = images(4)
    (expected,) = of("keras")(batch).values()
    for _ in range(3):
        engine = of("openvino")
        keras.utils.clear_session()
        gc.collect()
        written = [np.random.default_rng(i).normal(size=500_000).astype(np.float32) for i in range(40)]
        del written
        (found,) = engine(batch).values()
        assert relative(found, expected) < 1e-3


def test_more_layers_than_ten_come_in_their_order(tmp_path: Path) -> None:
    """OpenVINO orders outputs by name, in which 10 comes before 2."""
    layers = [f"block{b}_conv{c}" for b in (5, 1, 2, 3, 4) for c in ((1, 2, 3) if b > 2 else (1, 2))]
    batch = images(2)
    expected, found = (base(tmp_path, layers=layers, engine=e)(batch) for e in ("keras", "openvino"))
    assert list(found) == layers
    for layer in layers:
        assert found[layer].shape == expected[layer].shape and relative(found[layer], expected[layer]) < 1e-3


def test_bfloat16_stays_within_a_hundredth(tmp_path: Path) -> None:
    (expected,) = base(tmp_path)(images(8)).values()
    (found,) = base(tmp_path, engine="openvino", precision="bfloat16")(images(8)).values()
    assert relative(found, expected) < 1e-2


def test_int8_is_quantised_once_and_added_images_do_not_change_its_key(tmp_path: Path) -> None:
    project = Project(tmp_path).create(CONFIG)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    assert "VGG16 is not quantised yet" in project.headstart("status").out
    outcome = project.make("report")
    assert outcome.code == 0 and outcome.extracted == 40 and "quantised on 20 training images" in outcome.out, (
        outcome.out
    )
    stores = {path.name for path in (project.artifacts / "features").iterdir()}
    assert len(stores) == 2
    write_photos(project.photos, {"cat": 25, "dog": 20})
    outcome = project.make("report")
    assert outcome.extracted > 0 and "base: quantis" not in outcome.out
    assert {path.name for path in (project.artifacts / "features").iterdir()} == stores
    # One of the layers alone, from the same quantised model: nothing is extracted.
    project.edit('layers = ["block4_pool", "block5_pool"]', 'layer = "block4_pool"')
    outcome = project.make("features")
    assert (outcome.code, outcome.extracted) == (0, 0)
    # The cache travels: where the images are not, heads train and nothing asks for OpenVINO.
    project.photos.rename(project.folder / "elsewhere")
    assert project.headstart("heads").code == 0
    info = FeatureStore(next((project.artifacts / "features").iterdir())).info()[0]
    assert info.precision == "int8" and "openvino" in info.versions and "OpenVINO" in info.device


def test_int8_comes_near_and_a_layer_is_the_same_alone_and_with_others(tmp_path: Path) -> None:
    options = {"precision": "int8", "engine": "openvino", "layers": ["block3_pool", "block5_pool"]}
    spec = BaseSpec.model_validate({"weights": "random", "input_size": 32, **options})
    quantised = QuantisedBase(spec, Weights(spec, tmp_path))
    assert quantised.digest() is None
    with pytest.raises(BaseError, match="expected the int8 model of VGG16, found none"):
        quantised.load(["block5_pool"])
    assert quantised.make(singly(16, seed=1), print) == 16 and quantised.make(singly(16, seed=2), print) == 0
    both = base(tmp_path, **options)(images(6))
    exact = base(tmp_path, layers=["block3_pool", "block5_pool"])(images(6))
    for layer, found in both.items():
        assert 0 < relative(found, exact[layer]) < 0.1
        alone = base(tmp_path, **(options | {"layers": [layer]}))(images(6))
        # Quantised on other images, they are more than a hundredth apart. What is fused, and rounded less often, differs between processors.
        assert relative(alone[layer], found) < 1e-3


def test_a_misspelt_layer_is_found_before_anything_is_quantised(tmp_path: Path) -> None:
    spec = BaseSpec.model_validate(
        {"weights": "random", "input_size": 32, "precision": "int8", "engine": "openvino", "layer": "block5_pol"}
    )
    quantised = QuantisedBase(spec, Weights(spec, tmp_path))
    with pytest.raises(BaseError, match="block5_pol.*block5_pool"):
        quantised.make((pytest.fail("an image was read") for _ in range(4)), print)
    assert quantised.digest() is None


def test_where_quantising_folds_layers_it_says_where_else_to_cut(tmp_path: Path) -> None:
    options = {"name": "MobileNetV2", "precision": "int8", "engine": "openvino"}
    spec = BaseSpec.model_validate({"weights": "random", "input_size": 32, **options})
    QuantisedBase(spec, Weights(spec, tmp_path)).make(singly(8), print)
    (found,) = base(tmp_path, **options)(images(4)).values()
    assert found.shape == (4, 1, 1, 1280)
    with pytest.raises(
        BaseError, match="int8 model of MobileNetV2 cannot be cut there, .* it can be at .*block_6_project_BN"
    ):
        base(tmp_path, **options, layer="block_13_expand")


def test_an_int8_model_that_was_changed_is_refused(tmp_path: Path) -> None:
    spec = BaseSpec.model_validate({"weights": "random", "input_size": 32, "precision": "int8", "engine": "openvino"})
    quantised = QuantisedBase(spec, Weights(spec, tmp_path))
    quantised.make(singly(4), print)
    binary = next(tmp_path.glob("*.bin"))
    data = bytearray(binary.read_bytes())
    data[len(data) // 2] ^= 1
    binary.write_bytes(data)
    with pytest.raises(BaseError, match="expected the int8 model that was recorded, found another"):
        FrozenBase(spec, Weights(spec, tmp_path))
