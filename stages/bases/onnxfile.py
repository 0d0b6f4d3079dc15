"""A base in an ONNX file, from PyTorch, timm, transformers or whatever else writes one: read, checked, cut and computed.

ONNX is data without code (https://onnx.ai); nothing in the file is run but its operators.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import BaseError
from stages.bases import backend
from stages.bases.cuts import Layer, check_layers
from stages.bases.engines import HINTS, load_extra
from stages.bases.spec import OUTPUT, BaseSpec

FLOATS = (1, 10, 11, 16)  # ONNX's numbers for float32, float16, float64 and bfloat16
IMAGE_TYPES = ("float32", "float16", "uint8")


class OnnxModel:
    """What an ONNX file says of itself: its image input, its outputs and the other tensors inside.

    ``size`` is the (height, width) that it takes, each None where it takes any; ``batch`` the number of images, None for any;
    ``first`` whether channels stand before places. Raises BaseError for a file that is no whole ONNX model of RGB images.
    """

    def __init__(self, path: Path) -> None:
        onnx = load_extra("onnx", "onnx", f"base {path.name}")
        self.path = path
        try:
            # What lies in other files is not read here, but where it lies is checked.
            self.proto = onnx.load(str(path), load_external_data=False)
            onnx.checker.check_model(str(path))
        except Exception as error:  # protobuf and ONNX raise errors of their own kinds
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise BaseError(
                f"{path}: expected a whole ONNX model, found a damaged or another file ({reason})"
            ) from error
        graph = self.proto.graph
        given = {each.name for each in graph.initializer}
        inputs = [each for each in graph.input if each.name not in given]
        shapes = {each.name: shape_of(each) for each in inputs}
        if len(inputs) != 1 or len(shapes[inputs[0].name]) != 4:
            listed = ", ".join(f"{name} {_words(shape)}" for name, shape in shapes.items()) or "none"
            raise BaseError(
                f"{path}: expected one input of RGB images, (batch, 3, height, width) or (batch, height, width, 3), found {listed}"
            )
        self.input = inputs[0].name
        shape = shapes[self.input]
        self.dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(inputs[0].type.tensor_type.elem_type)).name
        channels = [place for place in (1, 3) if shape[place] == 3] or [p for p in (1, 3) if shape[p] is None]
        if not channels or self.dtype not in IMAGE_TYPES:
            raise BaseError(
                f"{path}: expected an input of RGB images in {', '.join(IMAGE_TYPES)}, found {self.input} {_words(shape)} "
                f"in {self.dtype}"
            )
        # Where a model says nothing of its axes, PyTorch's order, which most ONNX files have.
        self.first = channels[0] == 1
        self.batch = shape[0]
        self.size = (shape[2], shape[3]) if self.first else (shape[1], shape[2])
        self.outputs = [each.name for each in graph.output]
        self.tensors = [name for node in graph.node for name in node.output if name]

    def external(self) -> list[Path]:
        """The files beside it in which a large model keeps its weights."""
        tensors = [each for each in self.proto.graph.initializer if each.data_location == each.EXTERNAL]
        names = {entry.value for each in tensors for entry in each.external_data if entry.key == "location"}
        return [self.path.parent / name for name in sorted(names)]

    def names(self, layers: Sequence[str]) -> list[str]:
        """The tensors of ``layers``. Raises BaseError for one that the model does not have."""
        check_layers([*self.outputs, *self.tensors, OUTPUT], layers, str(self.path))
        return [self.outputs[0] if each == OUTPUT and each not in self.tensors else each for each in layers]


def shape_of(value: Any) -> tuple[int | None, ...]:
    """The shape of an input; None where a dimension is free."""
    return tuple(each.dim_value or None for each in value.type.tensor_type.shape.dim)


def _words(shape: Sequence[int | None]) -> str:
    return f"({', '.join('any' if n is None else str(n) for n in shape)})"


class OnnxEngine:
    """An ONNX model on ONNX Runtime or on OpenVINO: uint8 images (batch, height, width, 3) → float32 features of each layer."""

    def __init__(self, spec: BaseSpec, layers: Sequence[str], precision: str, batch: int) -> None:
        self.model = OnnxModel(Path(spec.weights))
        height, width = spec.input_size
        for asked, taken in zip(spec.input_size, self.model.size, strict=True):
            if taken not in (None, asked):
                wanted = [taken or asked for asked, taken in zip(spec.input_size, self.model.size, strict=True)]
                raise BaseError(
                    f"{spec.weights}: expected images of {wanted[0]}×{wanted[1]}, found input_size = {[height, width]}; "
                    f"set input_size = {wanted}"
                )
        self._size = (height, width)
        self._batch = self.model.batch or batch
        self._tables = _tables(spec, self.model.dtype)
        names = self.model.names(layers)
        run = _openvino if spec.computed_by == "openvino" else on_onnxruntime
        shape = (self._batch, 3, height, width) if self.model.first else (self._batch, height, width, 3)
        self._run, self.device, self.versions = run(self.model, names, shape, precision)
        found = self(np.zeros((batch, height, width, 3), np.uint8))
        self.shapes = [values.shape[1:] for values in found]

    def __call__(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        parts = []
        for start in range(0, len(batch), self._batch):
            images = batch[start : start + self._batch]
            rows = len(images)
            if rows < self._batch:
                images = np.concatenate([images, np.zeros((self._batch - rows, *images.shape[1:]), np.uint8)])
            found = self._run(self._prepared(images))
            for values in found:
                shape = getattr(values, "shape", f"a {type(values).__name__}")
                if not isinstance(shape, tuple) or len(shape) < 2 or shape[0] != self._batch:
                    raise BaseError(
                        f"{self.model.path}: expected features with a row for each of {self._batch} images, found {shape}; "
                        "name another layer"
                    )
            parts.append(
                [_channels_last(values[:rows], self.model.first, self._size).astype(np.float32) for values in found]
            )
        return [np.concatenate(each) if len(parts) > 1 else each[0] for each in zip(*parts, strict=True)]

    def _prepared(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Pixels as the model takes them. A pixel has 256 values, so that preprocessing is looking up."""
        order, table = self._tables
        axis = 1 if self.model.first else -1
        shape = (len(images), 3, *images.shape[1:3]) if self.model.first else images.shape
        out = np.empty(shape, table.dtype)
        for channel in range(3):
            np.take(table[channel], images[..., order[channel]], out=np.moveaxis(out, axis, 0)[channel], mode="clip")
        return out


def _channels_first(shape: Sequence[int], first: bool, size: tuple[int, int]) -> bool:
    """Whether the feature maps of an image, (…, …, …), have their channels before their places.

    Models turn them around inside. So places are the two sides that are more nearly in the ratio of those of the image, ``size``;
    where both are as near, channels are where they are in the input, ``first`` or last.
    """
    if len(shape) != 3 or not all(shape):
        return False
    a, b, c = shape
    turned, straight = (abs(log(tall * size[1] / (wide * size[0]))) for tall, wide in ((b, c), (a, b)))
    return turned < straight if abs(turned - straight) > 1e-9 else first


def _channels_last(values: NDArray[Any], first: bool, size: tuple[int, int]) -> NDArray[Any]:
    """Feature maps as (n, height, width, channels), as everywhere."""
    first = _channels_first(values.shape[1:], first, size)
    return values.transpose(0, 2, 3, 1) if first else values


def _tables(spec: BaseSpec, dtype: str) -> tuple[tuple[int, int, int], NDArray[Any]]:
    """Which channel of the image stands in each place, and what its 256 values become, (3, 256)."""
    pixels = np.arange(256, dtype=np.float64)
    affine = spec.affine()
    order = (2, 1, 0) if spec.numbers and spec.numbers["order"] == "bgr" else (0, 1, 2)
    if affine is None:
        return order, np.tile(pixels, (3, 1)).astype(dtype)
    times, plus = map(np.asarray, affine)
    if dtype == "uint8" and ((times != 1).any() or plus.any()):
        raise BaseError(
            f"{spec.weights}: takes pixels as whole numbers (uint8) and prepares them itself, found scale, mean or std; leave them out"
        )
    return order, (pixels * times[:, None] + plus[:, None]).astype(dtype)


def on_onnxruntime(model: OnnxModel, names: list[str], shape: Sequence[int], precision: str) -> Any:
    """A function from images of ``shape``, the batch first, to the outputs ``names``; the device in words; the versions of what computes.

    It computes in the precision of the file; ``precision`` is an argument because OpenVINO's function, which stands in its place, has it.
    """
    runtime, onnx = load_extra("onnxruntime", "onnx", 'engine "onnxruntime"'), load_extra("onnx", "onnx")
    source: Any = str(model.path)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    if not set(names) <= set(model.outputs):
        # A tensor inside becomes an output; ONNX Runtime infers its type.
        model.proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in model.outputs)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model.path.parent))
        source = model.proto.SerializeToString()
    wanted = [
        each for each in ("CUDAExecutionProvider", "CPUExecutionProvider") if each in runtime.get_available_providers()
    ]
    with _of(model), backend.without_chatter():
        session = runtime.InferenceSession(source, options, providers=wanted)
    device = f"{'GPU' if session.get_providers()[0].startswith('CUDA') else 'CPU'} (ONNX Runtime)"

    def run(images: NDArray[Any]) -> list[NDArray[Any]]:
        with _of(model):
            return session.run(names, {model.input: images})  # type: ignore[no-any-return]

    return run, device, {"onnxruntime": version("onnxruntime")}


def _openvino(model: OnnxModel, names: list[str], shape: Sequence[int], precision: str) -> Any:
    openvino = load_extra("openvino")
    with _of(model):
        read = openvino.Core().read_model(model.path)
        tensors = {name: output for node in read.get_ops() for output in node.outputs() for name in output.get_names()}
        check_layers(list(tensors), names, str(model.path))
        results = [openvino.opset13.result(tensors[name]) for name in names]
        whole = openvino.Model(results, read.get_parameters(), "base")
        whole.reshape(list(shape))
        hints = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.Core().compile_model(whole, "CPU", hints).create_infer_request()

    def run(images: NDArray[Any]) -> list[NDArray[Any]]:
        request.infer([images], share_inputs=True)
        # Copies: the request writes into the same memory the next time.
        return [np.array(request.get_output_tensor(i).data) for i in range(len(names))]

    return run, "CPU (OpenVINO)", {"openvino": version("openvino")}


@contextmanager
def _of(model: OnnxModel) -> Iterator[None]:
    """What a runtime raises of a model, as one line."""
    try:
        yield
    except BaseError:
        raise
    except Exception as error:  # each runtime has kinds of its own
        reason = " ".join(str(error).split())[:300]
        raise BaseError(
            f"{model.path}: the model cannot be computed ({reason}); mend input_size or the file"
        ) from error


def inferred(model: OnnxModel, size: Sequence[int], batch: int = 1) -> Any:
    """The graph of an ONNX model with the shapes of its tensors, as far as they follow from so many images of this size."""
    onnx = load_extra("onnx", "onnx")
    sides = (3, *size) if model.first else (*size, 3)
    for value in model.proto.graph.input:
        if value.name == model.input:
            for side, length in zip(value.type.tensor_type.shape.dim, (batch, *sides), strict=True):
                side.dim_value = length
    return onnx.shape_inference.infer_shapes(model.proto).graph


def layers_of(spec: BaseSpec) -> list[Layer]:
    """The tensors at which an ONNX model can be cut, from input to output, whose shapes are known for one image."""
    model = OnnxModel(Path(spec.weights))
    graph = inferred(model, spec.input_size)
    shapes = {each.name: shape_of(each) for each in (*graph.value_info, *graph.output)}
    sizes = {each.name: int(np.prod(each.dims)) for each in graph.initializer if each.data_type in FLOATS}
    found = []
    for node in graph.node:
        for name in node.output:
            batch, *rest = shapes.get(name) or (0,)
            shape = [n for n in rest if n]
            if node.op_type == "Constant" or not shape or len(shape) < len(rest) or batch not in (None, 1, model.batch):
                continue
            if _channels_first(shape, model.first, spec.input_size):
                shape = [*shape[1:], shape[0]]
            found.append(Layer(name, node.op_type, tuple(shape), sum(sizes.get(each, 0) for each in node.input)))
    # The default last, as for every base.
    return sorted(found, key=lambda layer: layer.name == model.outputs[0])
