"""How much arithmetic one image takes: the multiplications and additions of convolutions, dense layers and attention, both counted.

Counted in the graph that is computed, up to the layers that are kept: TensorFlow's of a Keras model, or that of an ONNX file.
"""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from stages.bases import backend
from stages.bases.onnxfile import OnnxModel, inferred, on_onnxruntime, shape_of
from stages.bases.spec import BaseSpec

# Of ONNX: what multiplies elsewhere than in the kinds that are counted, or holds another graph.
UNCOUNTED = {
    *("Attention", "ConvTranspose", "Einsum", "GRU", "If", "LSTM", "Loop", "RNN", "Scan"),
    *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"),
}


def gflops_of_keras(model: Any, size: Sequence[int]) -> float | None:
    """Of a Keras model of uint8 images of this size; None where the backend is not TensorFlow."""
    if backend.load_keras().backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    traced = tf.function(lambda images: model(images, training=False), autograph=False)
    with backend.without_chatter():
        graph = traced.get_concrete_function(tf.TensorSpec((1, *size, 3), tf.uint8)).graph
    return 2 * sum(_multiplied(operation) for operation in graph.get_operations()) / 1e9


def _multiplied(operation: Any) -> int:
    """How many pairs of numbers an operation of TensorFlow multiplies."""
    kind = operation.type
    if kind in ("PartitionedCall", "StatefulPartitionedCall"):  # as Keras computes grouped convolutions on a CPU
        inner = operation.graph._get_function(operation.get_attr("f").name).graph
        return sum(_multiplied(each) for each in inner.get_operations())
    if kind not in ("Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"):
        return 0
    first, second, outputs = (tuple(map(int, each.shape)) for each in (*operation.inputs[:2], operation.outputs[0]))
    made = prod(outputs)
    if kind == "Conv2D":
        return made * prod(second[:3])
    if kind == "DepthwiseConv2dNative":
        return made * prod(second[:2])
    if kind == "Einsum":
        left, right = operation.get_attr("equation").decode().partition("->")[0].split(",")
        return prod((dict(zip(left, first, strict=True)) | dict(zip(right, second, strict=True))).values())
    turned = operation.get_attr("transpose_a" if kind == "MatMul" else "adj_x")
    return made * first[-2 if turned else -1]


def gflops_of_onnx(spec: BaseSpec) -> float | None:
    """Of an ONNX file up to the layers of the spec; None where something multiplies that is not counted."""
    model = OnnxModel(Path(spec.weights))
    wanted = set(model.names(spec.cuts))
    counted = []
    for node in reversed(model.proto.graph.node):  # which are in the order in which they are computed
        if wanted.isdisjoint(node.output):
            continue
        wanted |= set(node.input) - {""}
        if node.domain not in ("", "ai.onnx") or node.op_type in UNCOUNTED:
            return None
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            counted.append(node)
    batch = model.batch or 1
    shapes = _shapes(spec, batch, {name for node in counted for name in (*node.input[:2], node.output[0])})
    return 2 * sum(_of_node(node, shapes) for node in counted) / batch / 1e9


def _shapes(spec: BaseSpec, batch: int, names: set[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors of an ONNX file, for so many images: as they are inferred, or else as they are computed."""
    graph = inferred(OnnxModel(Path(spec.weights)), spec.input_size, batch)
    found = {each.name: shape_of(each) for each in (*graph.output, *graph.input, *graph.value_info)}
    found |= {each.name: tuple(each.dims) for each in graph.initializer}
    known = {name: found[name] for name in names if name in found and None not in found[name]}
    if unknown := sorted(names - known.keys()):
        model = OnnxModel(Path(spec.weights))
        shape = (batch, 3, *spec.input_size) if model.first else (batch, *spec.input_size, 3)
        run, _, _ = on_onnxruntime(model, unknown, shape, "float32")
        computed = run(np.zeros(shape, model.dtype))
        known |= {name: each.shape for name, each in zip(unknown, computed, strict=True)}
    return {name: tuple(int(n or 0) for n in shape) for name, shape in known.items()}


def _of_node(node: Any, shapes: Mapping[str, Sequence[int]]) -> int:
    """How many pairs of numbers an operation of ONNX multiplies."""
    first, second, made = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        return prod(made) * prod(second[1:])
    turned = any(each.name == "transA" and each.i for each in node.attribute)
    return prod(made) * first[0 if turned else -1]
