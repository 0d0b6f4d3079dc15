"""What computes a frozen base: Keras on one of its backends, or OpenVINO. (``stages.bases.onnxfile`` has what computes ONNX files.)

An engine takes a full batch of uint8 images (batch, height, width, 3) and gives the features of each layer, float32. Its
``shapes`` are those of one image's features, by layer; its ``versions`` those of the libraries that it adds.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import BaseError
from stages.bases import backend

HINTS = {"float32": "f32", "bfloat16": "bf16"}


class KerasEngine:
    """A Keras model with a list of outputs, on whichever backend Keras runs."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.shapes = [tuple(output.shape[1:]) for output in model.outputs]
        if any(None in shape for shape in self.shapes):  # of models whose graph does not say
            one = np.zeros((1, *model.input_shape[1:]), np.uint8)
            self.shapes = [tuple(values.shape[1:]) for values in _as_list(model(one, training=False))]
        self.versions: dict[str, str] = {}

    def __call__(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        found = _as_list(self.model.predict_on_batch(batch))
        return [np.asarray(values).astype(np.float32, copy=False) for values in found]


def _as_list(found: Any) -> list[Any]:
    """Keras gives one output in a list or by itself."""
    return list(found) if isinstance(found, list | tuple) else [found]


class OpenVINOEngine:
    """An OpenVINO model on the CPU. ``precision`` is that of its arithmetic, or int8 for a quantised model."""

    def __init__(self, model: Any, precision: str, shape: Sequence[int]) -> None:
        openvino = load_extra("openvino")
        # What is not quantised in an int8 model runs in the fastest precision that the processor has.
        asked = backend.precision_for("auto", "openvino") if precision == "int8" else precision
        options = {"INFERENCE_PRECISION_HINT": HINTS[asked], "PERFORMANCE_HINT": "LATENCY"}
        model.reshape(list(shape))
        self._compiled = openvino.Core().compile_model(model, "CPU", options)
        self._request = self._compiled.create_infer_request()
        self.shapes = [tuple(output.shape)[1:] for output in self._compiled.outputs]
        self.versions = {"openvino": version("openvino")}

    @classmethod
    def of_keras(cls, model: Any, precision: str, shape: Sequence[int]) -> "OpenVINOEngine":
        """The same function as a Keras model."""
        openvino = load_extra("openvino")
        try:
            converted, tensors = convert(model)
            results = [openvino.opset13.result(converted.output(name).get_node().input_value(0)) for name in tensors]
            return cls(openvino.Model(results, converted.get_parameters(), "base"), precision, shape)
        except BaseError:
            raise
        except Exception as error:  # of an operation that OpenVINO does not have; it has errors of its own
            reason = " ".join(str(error).split())[:200]
            raise BaseError(f'engine "openvino" cannot compute this base ({reason}); take engine = "keras"') from error

    def __call__(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        self._request.infer([batch], share_inputs=True)
        # Copies: the request writes into the same memory the next time.
        return [np.array(self._request.get_output_tensor(i).data) for i in range(len(self.shapes))]


def load_extra(package: str, extra: str = "openvino", what: str = 'engine "openvino"') -> Any:
    """A package of an extra, which is for ``what``. Raises BaseError in one line where it is not installed."""
    # OpenVINO would report to its makers what it is used for. Nobody who extracts features has agreed to that.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return import_module(package)
    except ImportError as error:
        raise BaseError(
            f"{what}: expected the package {package}, found none ({error}); install headstart[{extra}]"
        ) from error


def convert(model: Any) -> tuple[Any, list[str]]:
    """A Keras model of uint8 images as an OpenVINO model of any batch size, and the names of the tensors that are its
    outputs, in their order (OpenVINO's own order is another).
    """
    openvino = load_extra("openvino")
    name = backend.load_keras().backend.backend()
    if name != "tensorflow":
        raise BaseError(
            f'engine "openvino" converts the base from TensorFlow, found KERAS_BACKEND={name}; leave it unset'
        )
    import tensorflow as tf

    @tf.function  # type: ignore[untyped-decorator]
    def forward(images: Any) -> list[Any]:
        return _as_list(model(images, training=False))

    shape = (None, *model.input_shape[1:])
    with backend.without_chatter():
        function = forward.get_concrete_function(tf.TensorSpec(shape, tf.uint8))
        # Copies: the Keras model goes away, and OpenVINO would read its weights where others write by then.
        return openvino.convert_model(function, share_weights=False), [output.name for output in function.outputs]
