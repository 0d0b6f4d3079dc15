"""Stage one against a plain Keras script: same pixels, same layer, same preprocessing, same features."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from conftest import Project, write_image, write_photos
from keras import applications
from numpy.typing import NDArray

from cache import FeatureStore, Manifest
from cache.errors import BaseError
from stages.bases.catalogue import BASES, OURS
from stages.bases.frozen import FrozenBase
from stages.bases.model import preprocessing
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.data.images import decode


def base(folder: Path, **options: object) -> FrozenBase:
    spec = BaseSpec.model_validate({"weights": "random", "precision": "float32", "input_size": 32, **options})
    return FrozenBase(spec, Weights(spec, folder))


def run(base: FrozenBase, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The features of a base that is cut at one layer."""
    (only,) = base(batch).values()
    return only


def images(n: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def relative(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> FrozenBase:
    """VGG16 with random weights, at 32×32, in float32."""
    return base(tmp_path_factory.mktemp("vgg"))


def test_cached_features_equal_those_of_a_plain_keras_script(tmp_path: Path) -> None:
    """The real base at 150×150 with the packaged weights, through files, extraction and the cache as float16."""
    project = Project(tmp_path).create(
        '[data]\nroot = "photos"\n[base]\nweights = "packaged"\nprecision = "float32"\nbatch_size = 5\n'
        '[heads.ridge]\nkind = "sklearn"\nestimator = "RidgeClassifier"\n'
    )
    for i in range(10):
        write_image(project.photos / ("a" if i < 5 else "b") / f"{i}.jpg", i, (200 + 10 * i, 180))
    outcome = project.headstart("features")
    assert outcome.extracted == 10, outcome.out
    store = FeatureStore(next((project.artifacts / "features").iterdir()))
    records = Manifest.load(project.artifacts / "manifest.json").records
    found = store.read(record.sha256 for record in records)

    spec = BaseSpec(weights="packaged")
    plain = keras.applications.VGG16(include_top=False, weights=None, input_shape=(150, 150, 3))
    Weights(spec, tmp_path / "weights").load(plain)
    pixels = np.stack([decode((project.photos / r.path).read_bytes(), (150, 150)) for r in records]).astype("float32")
    expected = plain.predict(keras.applications.vgg16.preprocess_input(pixels), verbose=0)
    assert found.shape == expected.shape == (10, 4, 4, 512)
    assert relative(found, expected) < 1e-3
    large = expected > 0.01 * expected.max()
    assert np.max(np.abs(found - expected)[large] / expected[large]) < 1e-3


def test_cutting_at_a_layer_gives_that_layers_output(tmp_path: Path) -> None:
    cut = base(tmp_path, layer="block3_conv2")
    plain = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    cut_weights = Weights(cut.spec, tmp_path)
    cut_weights.load(plain)
    expected = keras.Model(plain.input, plain.get_layer("block3_conv2").output).predict(
        keras.applications.vgg16.preprocess_input(images(3, 32).astype("float32")), verbose=0
    )
    assert cut.feature_shapes == {"block3_conv2": (8, 8, 256)}
    np.testing.assert_allclose(run(cut, images(3, 32)), expected, rtol=1e-4, atol=1e-3)


def test_the_rest_of_a_batch_does_not_change_a_row(tmp_path: Path) -> None:
    """BatchNorm and Dropout must be in inference mode, and the padding of the last batch must not show."""
    small = base(tmp_path, name="MobileNetV2", batch_size=8)
    eight = images(8, 32)
    alone, together = run(small, eight[:1]), run(small, eight)
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-4, atol=1e-4)


def test_the_input_is_not_written_into(vgg: FrozenBase) -> None:
    batch = images(4, 32)
    before = batch.copy()
    vgg(batch)
    np.testing.assert_array_equal(batch, before)


def test_bfloat16_stays_within_a_hundredth_of_float32(tmp_path: Path, vgg: FrozenBase) -> None:
    batch = images(8, 32)
    exact = run(vgg, batch)
    half = base(tmp_path, precision="bfloat16", batch_size=8)
    assert half.precision == "bfloat16"
    assert 0 < relative(run(half, batch), exact) < 1e-2


def test_random_weights_follow_from_the_seed(tmp_path: Path, vgg: FrozenBase) -> None:
    batch = images(2, 32)
    expected = run(vgg, batch)
    np.testing.assert_array_equal(run(base(tmp_path), batch), expected)
    assert relative(run(base(tmp_path, seed=1), batch), expected) > 0.1


def test_weights_from_a_file(tmp_path: Path, vgg: FrozenBase) -> None:
    whole = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    Weights(vgg.spec, tmp_path).load(whole)
    for suffix in (".weights.h5", ".keras", ".h5"):
        path = tmp_path / f"mine{suffix}"
        whole.save_weights(path) if suffix == ".weights.h5" else whole.save(path)
        loaded = base(tmp_path, weights=str(path))
        np.testing.assert_array_equal(run(loaded, images(2, 32)), run(vgg, images(2, 32)), err_msg=suffix)


def test_weights_that_do_not_fit_are_one_clear_line(tmp_path: Path) -> None:
    other = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(BaseError, match=r"expected weights of VGG16 without its top, found others"):
        base(tmp_path, weights=str(tmp_path / "other.weights.h5"))


def test_an_unknown_layer_gives_the_nearest_or_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match=r"no such layer \(did you mean 'block5_pool'\?\)$"):
        base(tmp_path, layer="block5_poool")
    with pytest.raises(BaseError, match=r"block1_conv1, block1_conv2, block1_pool"):
        base(tmp_path, layer="features")


def test_an_input_that_is_too_small_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match="InceptionV3 at 32×32: cannot be built"):
        base(tmp_path, name="InceptionV3")


def test_imagenet_weights_that_cannot_be_fetched_are_one_line_with_the_remedies(tmp_path: Path) -> None:
    """A home without Keras's files and a proxy that refuses stand for a machine without the internet."""
    project = Project(tmp_path).create('[data]\nroot = "photos"\n[base]\ninput_size = 32\n')
    write_photos(project.photos, {"a": 10, "b": 10})
    offline = {
        "HOME": str(tmp_path),
        "KERAS_HOME": str(tmp_path / "k"),
        "https_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "no_proxy": "",
        "NO_PROXY": "",
    }
    outcome = project.headstart("features", env=offline)
    assert outcome.code == 1
    errors = [line for line in outcome.out.splitlines() if line.startswith("headstart:")]
    assert len(errors) == 1 and "Traceback" not in outcome.out
    assert 'weights "imagenet" of VGG16 cannot be fetched' in errors[0] and 'or to "packaged"' in errors[0]


def test_imagenet_weights_are_kept_with_their_digest(tmp_path: Path) -> None:
    """What was fetched once is read back; a kept file that changed is refused."""
    spec = BaseSpec.model_validate({"weights": "imagenet", "input_size": 32})
    weights = Weights(spec, tmp_path)
    assert weights.digest() is None
    fetched = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    weights.load(fetched)  # a base that Keras has just filled
    digest = weights.digest()
    assert digest is not None and weights.fetched
    again = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    Weights(spec, tmp_path).load(again)
    np.testing.assert_array_equal(again.get_weights()[0], fetched.get_weights()[0])
    assert Weights(spec, tmp_path).digest() == digest
    keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(weights.kept)
    with pytest.raises(BaseError, match="expected weights with digest"):
        Weights(spec, tmp_path).load(again)


def test_the_table_of_bases_is_the_installed_keras() -> None:
    constructors = {name for name, value in vars(applications).items() if name[0].isupper() and callable(value)}
    assert constructors == BASES.keys() - OURS.keys()


@pytest.mark.parametrize("module", sorted({entry.module for entry in BASES.values()}))
def test_preprocessing_is_the_bases_own_and_is_described_in_the_key(module: str) -> None:
    name = next(name for name, entry in BASES.items() if entry.module == module)
    pixels = np.array([[[[0, 128, 255]]]], np.float32)
    found = preprocessing(BaseSpec(name=name, weights="random"))(pixels.copy())
    expected = {
        "caffe": pixels[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32),
        "tf": pixels / 127.5 - 1,
        "torch": (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225]),
        "none": pixels,
        "lite": (pixels - 127) / 128,
    }
    np.testing.assert_allclose(found, expected[BASES[name].preprocess], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "ConvNeXtTiny"])
def test_other_bases_build_cut_and_extract(tmp_path: Path, name: str) -> None:
    """Layers of Keras's own making, and preprocessing within; tests/extras/test_every_base.py has all the others."""
    other = base(tmp_path, name=name, batch_size=2)
    features = run(other, images(2, 32))
    assert features.shape == (2, *other.feature_shapes[other.layers[0]])
    assert np.isfinite(features).all()


@pytest.mark.parametrize("kind", ["DepthwiseConv2D", "SeparableConv2D"])
def test_random_weights_keep_the_scale_of_features_in_depthwise_bases(tmp_path: Path, kind: str) -> None:
    """Depthwise kernels have another fan-in; features that vanish would be stored as zeros. As MobileNet and Xception have them."""
    layer = getattr(keras.layers, kind)
    own = {"filters": 8} if kind == "SeparableConv2D" else {}
    deep = [layer(kernel_size=3, padding="same", use_bias=False, **own) for _ in range(12)]
    model = keras.Sequential([keras.layers.Input((16, 16, 8)), *deep])
    Weights(BaseSpec(name="MobileNet", weights="random"), tmp_path).load(model)
    X = np.random.default_rng(0).normal(size=(2, 16, 16, 8)).astype(np.float32)
    assert np.abs(keras.ops.convert_to_numpy(model(X))).max() > 1e-2
    for depthwise in model.weights[:: 2 if own else 1]:
        assert float(np.std(depthwise)) == pytest.approx((2 / 9) ** 0.5, rel=0.3)


def test_a_file_does_not_fit_a_base_that_keras_builds_differently(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match="Keras builds it differently"):
        base(tmp_path, name="EfficientNetB0", weights=str(tmp_path / "x.weights.h5"))
