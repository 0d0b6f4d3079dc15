"""ONNX files in use: in a report, listed, changed, killed, and what is wrong with them."""

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
from conftest import HEADSTART, ROOT, Project, failed, write_image, write_photos
from onnx import TensorProto, helper, numpy_helper
from onnxes import BASE, BIAS, DENSE, KERNEL, NUMBERS, RIDGE, build, create, rows


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
    told = [line.replace("← the default", "").split()[-1] for line in out.splitlines()[1:-1]]
    assert told == [str(KERNEL.size + BIAS.size), "0", "0", "0", str(DENSE.size)]
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
