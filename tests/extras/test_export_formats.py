"""Exports in the formats that need packages of their own, and what float16 and int8 change."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Project
from export_project import HEADS, export_project, probabilities, used

from stages.bases.backend import load_keras
from stages.data.images import decode
from stages.data.policy import Resize
from stages.export.formats import write_model
from stages.export.model import _of_baseline
from stages.export.resizing import resized
from stages.export.runtimes import loaded
from stages.heads.baselines import SklearnHead
from stages.heads.spec import SklearnSpec

# With a fine-tuned head in it.
BOTH = HEADS["both"].replace('"small@tiny"', '"tuned"')
FORMATS = ["litert", "onnx", "openvino"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    heads = {name: HEADS[name] for name in ("small", "tuned", "logreg", "scratch")}
    return export_project(tmp_path_factory.mktemp("export") / "project", heads | {"both": BOTH}, 3)


def exported(project: Project, to: str, *options: str) -> Path:
    outcome = project.headstart("export", "both", "--to", to, *options)
    assert outcome.code == 0, outcome.out
    return project.artifacts / "export" / "-".join(["both", to, *options[1:]])


@pytest.fixture(scope="module")
def expected(project: Project) -> tuple[list[Path], np.ndarray]:
    """Photos, and what the Keras model says of them, which is compared with ``predict`` elsewhere."""
    paths = sorted(project.photos.rglob("*.png"))[:4]
    run = loaded(exported(project, "keras"), "keras")
    return paths, np.concatenate([run(decode(path.read_bytes())[None]) for path in paths])


@pytest.mark.parametrize("to", FORMATS)
def test_the_script_gives_the_probabilities_of_keras(
    project: Project, expected: tuple[list[Path], np.ndarray], to: str
) -> None:
    paths, p = expected
    folder = exported(project, to)
    np.testing.assert_allclose(probabilities(used(folder, *paths)), p, atol=5e-3)
    assert loaded(folder, to)(np.zeros((3, 50, 70, 3), np.uint8)).shape == (3, 3)  # batches and sizes are free


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("to", FORMATS)
def test_lower_precision_is_nearly_the_same(
    project: Project, expected: tuple[list[Path], np.ndarray], to: str, precision: str
) -> None:
    paths, p = expected
    run = loaded(exported(project, to, "--precision", precision), to)
    found = np.concatenate([run(decode(path.read_bytes())[None]) for path in paths])
    # Random weights and noise make the largest difference a matter of chance; `bench.export` has it for photographs.
    assert found.shape == p.shape and np.median(np.abs(found - p)) < {"float16": 0.02, "int8": 0.05}[precision]
    assert list(found.argmax(axis=1)) == list(p.argmax(axis=1))


@pytest.mark.parametrize("to", FORMATS)
def test_a_process_of_its_own_says_what_was_exported_and_nothing_else(project: Project, to: str) -> None:
    """The converters import TensorFlow, which has a dozen lines about drivers and processors to say."""
    shutil.rmtree(project.artifacts / "export" / f"logreg-{to}", ignore_errors=True)
    outcome = project.headstart("export", "logreg", "--to", to, cold=True)
    strange = [line for line in outcome.out.splitlines() if not line.startswith(("export: ", "base: ", "warning: "))]
    assert outcome.code == 0 and not strange, outcome.out


@pytest.fixture(scope="module")
def resizing() -> Any:
    keras = load_keras()
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    return keras.Model(images, resized(images, (40, 48), Resize()))


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("to", FORMATS)
def test_lower_precision_leaves_resizing_as_it_is(resizing: Any, tmp_path: Path, to: str, precision: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 90, 120, 3), np.uint8)
    write_model(resizing, tmp_path, to, precision, lambda: [pixels])
    away = np.abs(loaded(tmp_path, to)(pixels) - np.asarray(resizing(pixels)))
    assert away.max() <= 1 and away.mean() < 0.05


def in_float32(folder: Path, to: str) -> dict[tuple[int, ...], bool]:
    """Whether each convolution of a model has its weights in float32, by the shape of the weights without ones at the front."""
    if to == "onnx":
        import onnx

        proto = onnx.load(folder / "model.onnx")
        made_by = {name: node for node in proto.graph.node for name in node.output}
        shapes = {each.name: tuple(each.dims) for each in proto.graph.initializer}
        found = {}
        for node in proto.graph.node:
            if node.op_type == "Conv":
                stored = made_by.get(node.input[1])
                found[shapes[stored.input[0] if stored else node.input[1]]] = stored is None
        return found
    import openvino

    kept = {}
    for each in openvino.Core().read_model(folder / "model.xml").get_ops():
        if each.get_type_name() in ("Convolution", "GroupConvolution"):
            weights, types, node = tuple(each.get_input_shape(1)), set(), each.input_value(1).get_node()
            while True:
                types.add(node.get_element_type().get_type_name())
                if not node.get_input_size():
                    break
                node = node.input_value(0).get_node()
            grouped = each.get_type_name() == "GroupConvolution"
            shape = (weights[0] * weights[1], *weights[2:]) if grouped else weights
            kept[shape] = types == {"f32"}
    return kept


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_int8_keeps_convolutions_of_single_channels_in_float32(tmp_path: Path, to: str) -> None:
    """And none of groups of several channels, which have many weights."""
    keras = load_keras()
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    x = keras.layers.Conv2D(8, 3, activation="relu")(resized(images, (24, 24), Resize()))
    x = keras.layers.DepthwiseConv2D(5, activation="relu")(x)
    x = keras.layers.Conv2D(16, 3, groups=4, activation="relu")(x)
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    sample = [np.random.default_rng(i).integers(0, 256, (1, 30, 40, 3), np.uint8) for i in range(4)]
    write_model(model, tmp_path, to, "int8", lambda: sample)
    assert in_float32(tmp_path, to) == {(8, 3, 3, 3): False, (8, 1, 5, 5): True, (16, 2, 3, 3): False}
    expected = np.asarray(model(sample[0]))
    assert np.abs(loaded(tmp_path, to)(sample[0]) - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("to", FORMATS)
def test_layers_that_hold_tensors_are_written_with_them(tmp_path: Path, to: str) -> None:
    """EfficientNet normalises by a mean and a variance that are no weights."""
    keras = load_keras()
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    pixels = resized(images, (32, 32), Resize())
    inner = keras.Input((32, 32, 3))
    scaled = keras.layers.Normalization(mean=[100.0, 120.0, 140.0], variance=[400.0, 500.0, 600.0])(inner)
    base = keras.Model(inner, keras.layers.Conv2D(4, 3)(scaled))
    model = keras.Model(images, base(pixels))
    write_model(model, tmp_path, to, "float32", list)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(loaded(tmp_path, to)(image), model(image), atol=1e-4)


# The second with deviations that are less than what Keras divides by.
@pytest.mark.parametrize("powers", [(2, 6), (2, 10)])
@pytest.mark.parametrize("to", FORMATS)
def test_int8_keeps_a_baseline_on_features_of_very_different_spread(
    tmp_path: Path, to: str, powers: tuple[int, int]
) -> None:
    """As behind ReLU, where some are nearly always 0. Divided by their spreads, their weights were all that was left in int8."""
    keras = load_keras()
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    x = keras.layers.Flatten()(resized(images, (16, 16), Resize()))
    x = keras.layers.ReLU()(keras.layers.Rescaling((10.0 ** -np.linspace(*powers, 768)).tolist())(x))
    features = keras.Model(images, x)
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    means = rng.uniform(90, 160, (3, 16, 16, 3))
    pixels = np.clip(rng.normal(means[y], 60), 0, 255).astype(np.uint8)
    X = np.asarray(features(pixels))
    head = SklearnHead(SklearnSpec(kind="sklearn", estimator="LogisticRegression"), ["a", "b", "c"]).fit(X, y, X, y)
    model = keras.Model(images, keras.layers.Softmax()(_of_baseline(head, [x], "head")))
    np.testing.assert_allclose(model(pixels), head.predict_proba(X), atol=1e-4)
    write_model(model, tmp_path, to, "int8", lambda: list(pixels[:60, None]))
    run = loaded(tmp_path, to)
    found = np.concatenate([run(each[None]) for each in pixels])
    assert np.abs(found - head.predict_proba(X)).max() < 0.1
