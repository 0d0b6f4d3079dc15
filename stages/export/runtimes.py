"""Exported models read back and computed by the runtime of their format: to check them, and to measure them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.bases.backend import load_keras, without_chatter
from stages.bases.engines import load_extra
from stages.export.spec import FORMATS

# Images (n, height, width, 3) uint8 → probabilities (n, classes) float32.
Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def loaded(folder: Path, to: str) -> Run:
    """The model of an export, by the runtime of its format."""
    with without_chatter():
        return LOADERS[to](folder / FORMATS[to].model)


def _keras(path: Path) -> Run:
    keras = load_keras()
    model = keras.saving.load_model(path, safe_mode=True)
    return lambda images: np.asarray(keras.ops.convert_to_numpy(model(images, training=False)))


def _saved_model(path: Path) -> Run:
    import tensorflow as tf

    model = tf.saved_model.load(path)
    return lambda images: np.asarray(model.serve(images))


def _litert(path: Path) -> Run:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:  # TensorFlow has an older one, in a module that loads lazily
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()  # of any size: it says now, where it is not heard, what it computes by
    place, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        interpreter.resize_tensor_input(place, images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, images)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(result))

    return run


def _onnx(path: Path) -> Run:
    session = load_extra("onnxruntime", "export", "export to onnx").InferenceSession(path)
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def _openvino(path: Path) -> Run:
    openvino: Any = load_extra("openvino", "openvino", "export to openvino")
    # The precision of the arithmetic is that of the file, and not one that the processor is quicker in.
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: np.array(model(images)[0])


LOADERS = {"keras": _keras, "saved_model": _saved_model, "litert": _litert, "onnx": _onnx, "openvino": _openvino}
