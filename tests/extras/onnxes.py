"""A small ONNX model, what NumPy computes in its place, and projects with it as a base."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from conftest import Project, write_image
from onnx import TensorProto, helper, numpy_helper

from cache import FeatureStore

BASE = """
[data]
root = "photos"
seed = 1
[cache]
dtype = "float32"
shard_images = 16
[base]
name = "file:model.onnx"
batch_size = 8
"""


RIDGE = '[heads.ridge]\nkind = "sklearn"\nestimator = "RidgeClassifier"\n'
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
CHANNELS, CLASSES = 6, 4
RNG = np.random.default_rng(7)
KERNEL = RNG.normal(0, 0.3, (CHANNELS, 3, 3, 3)).astype(np.float32)
BIAS = RNG.normal(0, 0.1, CHANNELS).astype(np.float32)
DENSE = RNG.normal(0, 0.3, (CHANNELS, CLASSES)).astype(np.float32)


def build(
    path: Path,
    size: tuple[Any, Any] = (24, 24),
    batch: int | str = "batch",
    last: bool = False,
    kind: str = "float32",
    **options: Any,
) -> Path:
    """A convolution with stride 2, its maps ``maps``, their means ``pooled``, and the output ``logits``.

    ``last`` is whether channels stand last in the input; of whole numbers, the model itself makes numbers from 0 to 1.
    """
    height, width = size
    shape = [batch, height, width, 3] if last else [batch, 3, height, width]
    nodes = []
    at = "images"
    if kind != "float32":
        nodes.append(helper.make_node("Cast", [at], ["cast"], to=TensorProto.FLOAT))
        at = "cast"
    if kind == "uint8":
        nodes.append(helper.make_node("Div", [at, "most"], ["scaled"]))
        at = "scaled"
    if last:
        nodes.append(helper.make_node("Transpose", [at], ["first"], perm=[0, 3, 1, 2]))
        at = "first"
    nodes += [
        helper.make_node("Conv", [at, "kernel", "bias"], ["convolved"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["convolved"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["averaged"]),
        helper.make_node("Flatten", ["averaged"], ["pooled"]),
        helper.make_node("MatMul", ["pooled", "dense"], ["logits"]),
    ]
    arrays = {"kernel": KERNEL, "bias": BIAS, "dense": DENSE, "most": np.float32(255)}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TYPES[kind], shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items() if name != "most" or kind == "uint8"],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path), **options)
    return path


def create(
    folder: Path, base: str = "", sizes: tuple[tuple[int, int], ...] = ((40, 30), (30, 50), (24, 24))
) -> Project:
    """A project with photos of several shapes."""
    project = Project(folder).create(BASE + base + RIDGE)
    for i in range(12):
        write_image(project.photos / ("cat" if i % 2 else "dog") / f"{i}.png", 50 + i, sizes[i % len(sizes)])
    return project


def rows(project: Project, layer: str | None = None) -> dict[str, np.ndarray]:
    """Features by the name of the photo: by its content, so that an alignment that is wrong is seen."""
    stores = [FeatureStore(path) for path in (project.artifacts / "features").iterdir()]
    (store,) = [store for store in stores if layer in (None, store.spec["layer"])]
    names = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in project.photos.rglob("*.png")}
    digests = sorted(store.digests())
    return dict(zip([names[digest] for digest in digests], store.read(digests), strict=True))


NUMBERS = f'scale = "1/255"\nmean = {MEAN}\nstd = {STD}\n'
