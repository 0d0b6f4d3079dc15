"""GFLOPs of bases that no table has: of a Keras model at another size, of a preset, of an ONNX file, against counts by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from onnxes import CHANNELS, CLASSES, build
from presets import PATCH, SIZE, WIDTH, presets

from pipeline.config.load import base_of
from stages.bases.brought import completed
from stages.bases.spec import BaseSpec
from stages.bases.timing import measured
from stages.bases.weights import Weights


def gflops(spec: BaseSpec, folder: Path) -> float | None:
    spec = completed(spec, folder)
    return measured(spec, Weights(spec, folder)).gflops


@pytest.mark.parametrize(("name", "of_table"), [("MobileNetV2", 0.599), ("ConvNeXtTiny", 8.91)])
def test_of_the_table(name: str, of_table: float, tmp_path: Path) -> None:
    """One with depthwise convolutions, and one with convolutions in groups, which TensorFlow computes in a function of its own."""
    assert gflops(base_of(name, (224, 224)), tmp_path) == pytest.approx(of_table, rel=2e-3)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return presets(tmp_path_factory.mktemp("presets"))


def test_of_a_transformer(preset: Callable[[str], Path], tmp_path: Path) -> None:
    patches = (SIZE // PATCH) ** 2
    tokens, mlp = 1 + patches, 32
    block = 4 * tokens * WIDTH**2 + 2 * tokens**2 * WIDTH + 2 * tokens * WIDTH * mlp
    found = gflops(base_of(f"hub:{preset('vit')}", None), tmp_path)
    assert found == pytest.approx(2e-9 * (patches * WIDTH * 3 * PATCH**2 + 2 * block))


@pytest.mark.parametrize("options", [{}, {"batch": 4}, {"last": True}, {"kind": "uint8"}])
def test_of_an_onnx_file_up_to_the_layer_that_is_kept(tmp_path: Path, options: dict[str, Any]) -> None:
    spec = base_of(f"file:{build(tmp_path / 'model.onnx', **options)}", None)
    convolution = 12 * 12 * CHANNELS * 3 * 3 * 3
    assert gflops(spec, tmp_path) == pytest.approx(2e-9 * (convolution + CHANNELS * CLASSES))
    assert gflops(spec.model_copy(update={"layer": "maps"}), tmp_path) == pytest.approx(2e-9 * convolution)


def of(path: Path, sides: int, *nodes: Any) -> Path:
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])
    made = helper.make_tensor_value_info("out", TensorProto.FLOAT, [f"side_{i}" for i in range(sides)])
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph(list(nodes), "g", [given], [made]), opset_imports=opsets, ir_version=9)
    onnx.save(model, str(path))
    return path


def test_shapes_that_are_not_inferred_are_computed(tmp_path: Path) -> None:
    """As in the attention that PyTorch writes: sides that an operation makes."""
    nodes = [
        helper.make_node("NonZero", ["images"], ["places"]),
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("ReduceSum", ["places"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["number"], to=TensorProto.INT64),
        helper.make_node("Add", ["shape", "number"], ["same"]),
        helper.make_node("Reshape", ["images", "same"], ["again"]),
        helper.make_node("MatMul", ["again", "again"], ["out"]),
    ]
    spec = base_of(f"file:{of(tmp_path / 'model.onnx', 4, *nodes)}", (8, 8))
    assert gflops(spec, tmp_path) == pytest.approx(2e-9 * 3 * 8**3)


def test_what_is_not_counted_is_not_known(tmp_path: Path) -> None:
    node = helper.make_node("Einsum", ["images", "images"], ["out"], equation="nchw,nchw->nc")
    assert gflops(base_of(f"file:{of(tmp_path / 'model.onnx', 2, node)}", (8, 8)), tmp_path) is None
