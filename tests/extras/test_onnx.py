"""Bases in ONNX files: features are those that the model gives of what NumPy and Pillow prepare, whatever its input looks like."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Project, failed
from onnxes import BIAS, CHANNELS, DENSE, KERNEL, MEAN, NUMBERS, STD, build, create, rows
from PIL import Image


def computed(x: np.ndarray, layer: str = "logits") -> np.ndarray:
    """The same function of prepared pixels (n, height, width, 3), in NumPy; maps have their channels last."""
    padded = np.pad(x.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]  # n, h, w, 3, 3, 3
    maps = np.maximum(np.einsum("nhwcij,ocij->nhwo", windows, KERNEL) + BIAS, 0)
    pooled = maps.mean(axis=(1, 2))
    return {"maps": maps, "pooled": pooled, "logits": pooled @ DENSE}[layer]


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
