"""A Keras model of images, written in the format that a runtime reads, in float32, float16 or int8.

In float16, weights are stored in half of the bytes; what computes with them decides in which precision. In int8, LiteRT quantises
weights, and activations while it computes; ONNX and OpenVINO models are quantised on training images. Resizing is never quantised, and
neither are convolutions of each channel by itself: they have few weights, and one scale for all channels does not fit what they give (M.
Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import BaseError, HeadError
from stages.bases.backend import load_keras, without_chatter
from stages.bases.engines import convert, load_extra
from stages.export.resizing import RESIZED
from stages.export.spec import FORMATS, Precision

# Weights with fewer numbers stay as they are.
SMALL = 1024
# What is quantised in ONNX: products, and what stands right behind them.
PRODUCTS, CUTS = ("Conv", "MatMul", "Gemm"), ("Clip", "Relu")
# Gives images (1, height, width, 3) uint8 to quantise on.
Sample = Callable[[], Sequence[NDArray[np.uint8]]]


def check_packages(to: str, precision: Precision) -> None:
    """Raise HeadError in one line where what writes a format is not installed, or Keras runs on another backend."""
    wanted = [*FORMATS[to].writers, *([("nncf", "openvino")] if (to, precision) == ("openvino", "int8") else [])]
    name = load_keras().backend.backend()  # first: loaded by a converter, TensorFlow would chatter
    for package, extra in wanted:
        try:
            load_extra(package, extra, f"export to {to}")
        except BaseError as error:
            raise HeadError(str(error)) from error
    if to != "keras" and name != "tensorflow":
        raise HeadError(f"export to {to}: expected Keras on TensorFlow, found KERAS_BACKEND={name}; leave it unset")


def write_model(model: Any, folder: Path, to: str, precision: Precision, sample: Sample) -> None:
    """Write a Keras model of images into a folder. Raises HeadError where it has an operation that the format lacks."""
    path = folder / FORMATS[to].model
    try:
        with without_chatter():
            WRITERS[to](model, path, precision, sample)
    except (HeadError, OSError):
        raise
    except Exception as error:  # converters raise whatever they meet
        reason = " ".join(str(error).split())[:300]
        raise HeadError(f"export to {to}: the model cannot be converted ({reason}); take another format") from error


def _keras(model: Any, path: Path, precision: Precision, sample: Sample) -> None:
    model.save(path)


def _saved_model(model: Any, path: Path, precision: Precision, sample: Sample) -> None:
    model.export(path, format="tf_saved_model", verbose=False)


def _litert(model: Any, path: Path, precision: Precision, sample: Sample) -> None:
    import tensorflow as tf

    options: dict[str, Any] = {}
    if precision != "float32":
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    model.export(path, format="litert", verbose=False, **options)


def _onnx(model: Any, path: Path, precision: Precision, sample: Sample) -> None:
    import onnx

    images = load_keras().InputSpec(dtype="uint8", shape=model.input_shape, name=model.inputs[0].name)
    with _functions_in_place(), _numbers_in_place(model):
        model.export(path, format="onnx", verbose=False, input_signature=[images])
    proto = onnx.load(path)
    _name_axes(proto)
    if precision == "float16":
        _halve(proto)
    onnx.save(proto, path)
    if precision == "int8":
        _quantise_onnx(proto, path, sample())


@contextmanager
def _functions_in_place() -> Iterator[None]:
    """What is traced holds no calls of compiled functions, which ONNX has not: Keras makes one of each convolution in groups."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextmanager
def _numbers_in_place(model: Any) -> Iterator[None]:
    """What `Normalization` holds stands in the model: its mean and variance are tensors, of which tf2onnx would make inputs."""
    keras = load_keras()
    layers = [each for each in model._flatten_layers() if isinstance(each, keras.layers.Normalization)]
    before = [(each.mean, each.variance) for each in layers]
    try:
        for each, tensors in zip(layers, before, strict=True):
            each.mean, each.variance = map(keras.ops.convert_to_numpy, tensors)
        yield
    finally:
        for each, tensors in zip(layers, before, strict=True):
            each.mean, each.variance = tensors


def _name_axes(proto: Any) -> None:
    for value, names in ((proto.graph.input[0], ("n", "height", "width")), (proto.graph.output[0], ("n",))):
        for side, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            side.dim_param = name


def _halve(proto: Any) -> None:
    """Store weights in float16, each with a cast to float32 behind it, which runtimes fold."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weights in proto.graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype != np.float32 or values.size < SMALL or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = weights.name
        weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_float16"))
        casts.append(helper.make_node("Cast", [f"{name}_float16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _quantise_onnx(proto: Any, path: Path, images: Sequence[NDArray[np.uint8]]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            found = next(self._left, None)
            return None if found is None else {proto.graph.input[0].name: found}

    given = {each.name for each in proto.graph.initializer}
    wide = {each.name for each in proto.graph.initializer if len(each.dims) > 1 and each.dims[1] > 1}
    made_by = {name: node.op_type for node in proto.graph.node for name in node.output}
    # Of two tensors that are computed, as in resizing; preprocessing, whose numbers are exact; and what cuts values off, unless it is
    # quantised in one with what it stands behind, whose wide range it narrows.
    plain = [
        node.name
        for node in proto.graph.node
        if (node.op_type == "MatMul" and not given & set(node.input))
        or "preprocess_input" in node.name
        or _of_single_channels(node, wide)
        or (node.op_type in CUTS and made_by.get(node.input[0]) not in PRODUCTS)
    ]
    quantize_static(
        proto,
        path,
        Reader(),
        op_types_to_quantize=[*PRODUCTS, *CUTS],
        nodes_to_exclude=plain,
        per_channel=True,
    )


def _of_single_channels(node: Any, wide: Collection[str]) -> bool:
    """Whether it is a convolution of each channel by itself; of the ``wide`` weights, each takes several channels."""
    groups = any(each.name == "group" and each.i > 1 for each in node.attribute)
    return node.op_type == "Conv" and groups and node.input[1] not in wide


def _openvino(model: Any, path: Path, precision: Precision, sample: Sample) -> None:
    import openvino

    converted, _ = convert(model)
    if precision == "int8":
        import nncf

        images = sample()
        single = [
            each.get_friendly_name()
            for each in converted.get_ops()
            # Weights are (groups, channels out, channels in, height, width).
            if each.get_type_name() == "GroupConvolution" and each.get_input_shape(1)[2] == 1
        ]
        scope = nncf.IgnoredScope(names=[*_before_the_base(converted), *single])
        converted = nncf.quantize(converted, nncf.Dataset(images), subset_size=len(images), ignored_scope=scope)
    openvino.save_model(converted, path, compress_to_fp16=precision == "float16")


def _before_the_base(model: Any) -> list[str]:
    """The names of the operations that resize and prepare images."""
    ends = [
        each
        for each in model.get_ops()
        if f"/{RESIZED}" in each.get_friendly_name() or "preprocess" in each.get_friendly_name()
    ]
    found: dict[str, Any] = {}
    while ends:
        node = ends.pop()
        if node.get_friendly_name() not in found:
            found[node.get_friendly_name()] = node
            ends += [value.get_node() for value in node.input_values()]
    return [name for name, node in found.items() if node.get_type_name() not in ("Constant", "Parameter", "Result")]


WRITERS = {"keras": _keras, "saved_model": _saved_model, "litert": _litert, "onnx": _onnx, "openvino": _openvino}
