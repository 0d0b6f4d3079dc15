"""Bases in ONNX files: features are those that the model gives of what NumPy and Pillow prepare, whatever its input looks like."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import HEADSTART, ROOT, Outcome, Project, write_image, write_photos
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

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


def computed(x: np.ndarray, layer: str = "logits") -> np.ndarray:
    """The same function of prepared pixels (n, height, width, 3), in NumPy; maps have their channels last."""
    padded = np.pad(x.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]  # n, h, w, 3, 3, 3
    maps = np.maximum(np.einsum("nhwcij,ocij->nhwo", windows, KERNEL) + BIAS, 0)
    pooled = maps.mean(axis=(1, 2))
    return {"maps": maps, "pooled": pooled, "logits": pooled @ DENSE}[layer]


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


Prepare = Callable[[Image.Image], np.ndarray]


def check(project: Project, prepare: Prepare, layer: str = "logits", tolerance: float = 1e-3) -> None:
    """``headstart features`` gives what NumPy computes of what ``prepare`` makes of each photo."""
    outcome = project.headstart("features")
    assert outcome.code == 0 and outcome.extracted == 12, outcome.out
    found = rows(project)
    for path in project.photos.rglob("*.png"):
        expected = computed(prepare(Image.open(path))[None], layer)[0]
        assert found[path.name].shape == expected.shape
        np.testing.assert_allclose(found[path.name], expected, atol=tolerance * max(1.0, np.abs(expected).max()))


def plain(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR), np.float32)


def normed(image: Image.Image) -> np.ndarray:
    return (plain(image) / 255 - MEAN) / STD


def shortest(image: Image.Image, whole: int, size: int, kernel: Image.Resampling) -> np.ndarray:
    """torchvision's Resize and CenterCrop."""
    short, long = sorted(image.size)
    sides = (whole, int(whole * long / short))
    image = image.resize(sides if image.width <= image.height else sides[::-1], kernel)
    left, top = round((image.width - size) / 2.0), round((image.height - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size)), np.float32)


def failed(outcome: Outcome) -> str:
    """The line of an error, which must be the only one that speaks of it."""
    assert outcome.code == 1 and "Traceback" not in outcome.out, outcome.out
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("headstart: ")]
    return line


NUMBERS = f'scale = "1/255"\nmean = {MEAN}\nstd = {STD}\n'


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("batch", [1, 3, "batch"])
def test_any_order_and_any_batch(tmp_path: Path, last: bool, batch: int | str, engine: str) -> None:
    project = create(tmp_path, NUMBERS + f'engine = "{engine}"\nprecision = "float32"\n')
    build(tmp_path / "model.onnx", batch=batch, last=last)
    check(project, normed)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_a_tensor_inside_by_its_name_and_maps_with_channels_last(tmp_path: Path, last: bool, engine: str) -> None:
    sides = 'layer = "maps"\ninput_size = [24, 32]\nprecision = "float32"\n'
    project = create(tmp_path, NUMBERS + sides + f'engine = "{engine}"\n')
    build(tmp_path / "model.onnx", (24, 32), last=last)
    wide = lambda image: (np.asarray(image.resize((32, 24), Image.Resampling.BILINEAR)) / 255 - MEAN) / STD  # noqa: E731
    check(project, wide, "maps")
    assert rows(project)["0.png"].shape == (12, 16, CHANNELS)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", ["float16", "uint8"])
def test_other_numbers_at_the_input(tmp_path: Path, kind: str, engine: str) -> None:
    project = create(tmp_path, (NUMBERS if kind == "float16" else "") + f'engine = "{engine}"\nprecision = "float32"\n')
    build(tmp_path / "model.onnx", kind=kind)
    check(project, normed if kind == "float16" else lambda image: plain(image) / 255, tolerance=4e-3)


def test_what_takes_whole_numbers_prepares_them_itself(tmp_path: Path) -> None:
    project = create(tmp_path, 'scale = "1/255"\n')
    build(tmp_path / "model.onnx", kind="uint8")
    assert "takes pixels as whole numbers (uint8) and prepares them itself, found scale" in failed(project.headstart("features"))  # fmt: skip
    project.edit('scale = "1/255"\n', "")
    said = {"size": 24, "do_resize": True, "image_mean": MEAN, "image_std": STD, "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    check(project, lambda image: plain(image) / 255)


def test_a_size_that_is_free_is_asked_for(tmp_path: Path) -> None:
    project = create(tmp_path, NUMBERS)
    build(tmp_path / "model.onnx", ("height", "width"))
    line = failed(project.headstart("features"))
    assert "base 'file:model.onnx': expected the size of its images, found none; set input_size" in line
    project.edit("batch_size = 8", "batch_size = 8\ninput_size = 24")
    check(project, normed)


def test_weights_in_other_files(tmp_path: Path) -> None:
    """And a model that is cut at a tensor inside finds them too."""
    project = create(tmp_path, NUMBERS)
    build(tmp_path / "model.onnx", save_as_external_data=True, location="model.data", size_threshold=0)
    check(project, normed)
    data = (tmp_path / "model.data").read_bytes()
    project.edit("[heads", 'layer = "pooled"\n[heads')
    shutil.rmtree(project.artifacts / "features")
    check(project, normed, "pooled")
    # The content of those files is part of the key.
    project.edit('layer = "pooled"\n', "")
    (tmp_path / "model.data").write_bytes(data[:-4] + b"\0\0\x80\x3f")
    assert project.headstart("features").extracted == 12
    (tmp_path / "model.data").write_bytes(data[: len(data) // 2])
    assert "model.onnx" in failed(project.headstart("features"))
    (tmp_path / "model.data").unlink()
    assert "model.data" in failed(project.headstart("features"))


def test_the_order_of_channels_can_be_told(tmp_path: Path) -> None:
    project = create(tmp_path, 'order = "bgr"\nmean = [103.939, 116.779, 123.68]\n')
    build(tmp_path / "model.onnx")
    check(project, lambda image: plain(image)[..., ::-1] - [103.939, 116.779, 123.68])


def test_pixels_as_they_are_are_worth_a_word(tmp_path: Path) -> None:
    project = create(tmp_path)
    build(tmp_path / "model.onnx")
    outcome = project.headstart("features", "--dry-run")
    assert "so the base gets pixels from 0 to 255; scale, mean and std change them" in outcome.out
    check(project, plain)


def test_ways_to_resize_can_be_told(tmp_path: Path) -> None:
    project = create(tmp_path, 'resize = "shortest"\ncrop = 0.8\nfilter = "bicubic"\n' + NUMBERS)
    build(tmp_path / "model.onnx")
    check(project, lambda image: (shortest(image, 30, 24, Image.Resampling.BICUBIC) / 255 - MEAN) / STD)


FILES: list[tuple[str, dict[str, Any], Prepare]] = [
    ("preprocessor_config.json", {"do_resize": True, "size": {"shortest_edge": 28}, "resample": 3, "do_center_crop": True, "crop_size": {"height": 24, "width": 24}, "do_rescale": True, "rescale_factor": 1 / 255}, lambda image: shortest(image, 28, 24, Image.Resampling.BICUBIC)),
    ("preprocessor_config.json", {"do_resize": True, "size": {"height": 24, "width": 24}, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}, plain),
    ("preprocessor_config.json", {"do_resize": True, "size": {"shortest_edge": 24}, "crop_pct": 0.875, "resample": 3}, lambda image: shortest(image, 27, 24, Image.Resampling.BICUBIC)),
    ("config.json", {"architecture": "x", "pretrained_cfg": {"input_size": [3, 24, 24], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"}}, lambda image: shortest(image, 26, 24, Image.Resampling.BICUBIC)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "said", "prepare"), FILES, ids=["CLIP", "ViT", "ConvNeXt", "timm"])
def test_files_beside_the_model_say_how_images_are_prepared(
    tmp_path: Path, name: str, said: dict[str, Any], prepare: Prepare
) -> None:
    project = create(tmp_path)
    build(tmp_path / "model.onnx", ("height", "width"))
    if "pretrained_cfg" in said:
        said = said | {"pretrained_cfg": said["pretrained_cfg"] | {"mean": MEAN, "std": STD}}
    else:
        said = said | {"do_normalize": True, "image_mean": MEAN, "image_std": STD}
    (tmp_path / name).write_text(json.dumps(said))
    check(project, lambda image: (prepare(image) / 255 - MEAN) / STD)


def test_a_transformer_that_pytorch_exported(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Small(torch.nn.Module):
        """Patches, a class token, one block: as timm's vision transformers give their tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.patches = torch.nn.Conv2d(3, 8, 8, 8)
            self.cls = torch.nn.Parameter(torch.randn(1, 1, 8))
            self.block = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)

        def forward(self, images: Any) -> Any:
            x = self.patches(images).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
            return self.block(x)

    torch.manual_seed(0)
    model = Small().eval()
    torch.onnx.export(
        model, torch.zeros(1, 3, 24, 24), str(tmp_path / "model.onnx"), input_names=["pixels"], output_names=["tokens"],
        dynamic_axes={"pixels": {0: "n"}, "tokens": {0: "n"}}, dynamo=False,
    )  # fmt: skip
    for output in ("cls", "patches", "mean", "cls+mean"):
        project = create(tmp_path, NUMBERS + f'output = "{output}"\n')
        outcome = project.headstart("features")
        assert outcome.code == 0, outcome.out
        for path in project.photos.rglob("*.png"):
            with torch.no_grad():
                pixels = torch.from_numpy(normed(Image.open(path)).astype(np.float32)).permute(2, 0, 1)[None]
                tokens = model(pixels)[0].numpy()
            cls, patches = tokens[0], tokens[1:]
            expected = {
                "cls": cls, "patches": patches.reshape(3, 3, 8), "mean": patches.mean(0), "cls+mean": np.concatenate([cls, patches.mean(0)]),
            }[output]  # fmt: skip
            np.testing.assert_allclose(rows(project)[path.name], expected, atol=1e-3)
        shutil.rmtree(project.artifacts)


def test_beside_vgg16_from_photos_to_a_report_and_predictions(tmp_path: Path) -> None:
    vgg = '[bases.vgg]\nname = "VGG16"\ninput_size = 32\nweights = "random"\nlayer = "fc2"\ninclude_top = true\nrescale = "1/255"\n'
    project = create(tmp_path, NUMBERS)
    project.config.write_text(
        BASE.replace("[base]", "[bases.mine]") + NUMBERS + vgg + RIDGE + 'base = ["mine", "vgg"]\n'
    )
    write_photos(project.photos, {"cat": 10, "dog": 10}, first=500)
    build(tmp_path / "model.onnx")
    outcome = project.make("report")
    assert outcome.code == 0 and outcome.trained == ["ridge@mine", "ridge@vgg"], outcome.out
    assert "cut at fc2 → (4096,)" in outcome.out and "on CPU (ONNX Runtime) in float32" in outcome.out
    page = (project.artifacts / "report" / "index.html").read_text()
    assert "file:model.onnx" in page and "VGG16" in page
    new = write_image(tmp_path / "new.png", 5)
    predicted = project.headstart("predict", "--head", "ridge@mine", str(new))
    assert predicted.code == 0 and "new.png: " in predicted.out, predicted.out
    assert "stale" not in project.headstart("status").out
    # Heads train where neither the model nor the photos are.
    (tmp_path / "model.onnx").unlink()
    project.photos.rename(tmp_path / "elsewhere")
    shutil.rmtree(project.artifacts / "heads")
    assert project.headstart("heads").trained == ["ridge@mine", "ridge@vgg"]


def test_its_layers_are_listed(tmp_path: Path) -> None:
    project = create(tmp_path)
    build(tmp_path / "model.onnx", batch=1)
    out = project.headstart("layers", "file:model.onnx").out
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == ["convolved", "maps", "averaged", "pooled", "logits"]
    assert "12 × 12 × 6" in out and "← the default" in out.splitlines()[-2]
    project.edit("[heads", 'layer = "pooledd"\n[heads')
    line = failed(project.headstart("features"))
    assert "layer 'pooledd'" in line and "has no such layer (did you mean 'pooled'?)" in line


def test_content_makes_features_stale_and_names_and_times_do_not(tmp_path: Path) -> None:
    project = create(tmp_path, NUMBERS)
    path = build(tmp_path / "model.onnx")
    assert project.headstart("features").extracted == 12
    os.utime(path, (1, 1))
    assert "features: up to date" in project.headstart("features").out
    path.rename(tmp_path / "other.onnx")
    project.edit("file:model.onnx", "file:other.onnx")
    assert "features: up to date" in project.headstart("features").out
    model = onnx.load(str(tmp_path / "other.onnx"))
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(BIAS + 1, "bias"))
    onnx.save(model, str(tmp_path / "other.onnx"))
    assert "features" in project.headstart("status").out and "stale" in project.headstart("status").out
    assert project.headstart("features").extracted == 12


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    project = Project(tmp_path).create(BASE + NUMBERS + RIDGE)
    write_photos(project.photos, {"cat": 150, "dog": 150})
    build(tmp_path / "model.onnx", (512, 512))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*HEADSTART, "features"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 100
    while not list(project.artifacts.glob("features/*/shard-*.h5")) and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    outcome = project.headstart("features")
    assert outcome.code == 0 and 0 < outcome.extracted < 300, outcome.out
    assert len(rows(project)) == 300


# Mistakes


def cut_short(path: Path) -> None:
    build(path)
    path.write_bytes(path.read_bytes()[:-200])


def of(inputs: list[Any], nodes: list[Any], outputs: list[Any], arrays: tuple[Any, ...] = ()) -> Callable[[Path], None]:
    """Writes a model of these."""

    def write(path: Path) -> None:
        graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in arrays])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))

    return write


def value(name: str, *shape: Any, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


FLAT = np.array([-1, 4], np.int64)
MISTAKES: list[tuple[Callable[[Path], Any], str]] = [
    (cut_short, "expected a whole ONNX model, found a damaged or another file"),
    (lambda path: path.write_bytes(build(path).read_bytes()[:40]), "expected a whole ONNX model, found a damaged or another file"),
    (lambda path: path.write_bytes(b""), "expected a whole ONNX model, found a damaged or another file"),
    (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "expected a whole ONNX model, found a damaged or another file"),
    (lambda path: path.mkdir(), "expected a whole ONNX model, found a damaged or another file"),
    (lambda path: None, "base 'file:model.onnx': expected an ONNX model there, found nothing at"),
    (of([value("a", 1, 3, 8, 8), value("b", 1, 3, 8, 8)], [helper.make_node("Add", ["a", "b"], ["c"])], [value("c", 1, 3, 8, 8)]), "expected one input of RGB images, (batch, 3, height, width) or (batch, height, width, 3), found a (1, 3, 8, 8), b (1, 3, 8, 8)"),
    (of([value("words", "n", 16, kind=TensorProto.INT64)], [helper.make_node("Cast", ["words"], ["c"], to=1)], [value("c", "n", 16)]), "expected one input of RGB images, (batch, 3, height, width) or (batch, height, width, 3), found words (any, 16)"),
    (of([value("grey", "n", 1, 8, 8)], [helper.make_node("Relu", ["grey"], ["c"])], [value("c", "n", 1, 8, 8)]), "expected an input of RGB images in float32, float16, uint8, found grey (any, 1, 8, 8) in float32"),
    (of([value("x", "n", 3, 8, 8)], [helper.make_node("Reshape", ["x", "flat"], ["c"])], [value("c", "m", 4)], (("flat", FLAT),)), "expected features with a row for each of 8 images, found (384, 4); name another layer"),
    (of([value("x", 1, 3, 8, 8)], [helper.make_node("ReduceMean", ["x"], ["c"], keepdims=0)], [value("c")]), "expected features with a row for each of 1 images, found (); name another layer"),
    (of([value("x", "n", 3, 8, 8)], [helper.make_node("SequenceConstruct", ["x"], ["c"])], [helper.make_tensor_sequence_value_info("c", TensorProto.FLOAT, None)]), "name another layer"),
    (of([value("x", "n", 3, 8, 8)], [helper.make_node("Nothing", ["x"], ["c"])], [value("c", "n", 3, 8, 8)]), "expected a whole ONNX model, found a damaged or another file"),
    (lambda path: build(path, (32, 48)), "expected images of 32×48, found input_size = [24, 24]; set input_size = [32, 48]"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_what_is_no_model_of_images_is_one_line(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    project = create(tmp_path, "input_size = 24\n" if "24, 24" in message else "")
    write(tmp_path / "model.onnx")
    line = failed(project.headstart("features"))
    assert message in line and "model.onnx" in line, line


def test_without_the_packages_it_is_one_line(tmp_path: Path) -> None:
    project = create(tmp_path)
    build(tmp_path / "model.onnx")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for package in ("onnxruntime", "openvino"):
        (hidden / f"{package}.py").write_text(f"raise ImportError('No module named {package}')")
    environment = {"PYTHONPATH": f"{hidden}:{ROOT}"}
    line = failed(project.headstart("features", env=environment))
    assert (
        'engine "onnxruntime": expected the package onnxruntime, found none' in line
        and "install headstart[onnx]" in line
    )
    project.edit("batch_size = 8", 'batch_size = 8\nengine = "openvino"')
    assert "install headstart[openvino]" in failed(project.headstart("features", env=environment))
