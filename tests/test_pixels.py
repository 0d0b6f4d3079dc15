"""From an image to numbers: resizing by the rules of others, numbers in ``[base]``, and the files beside a model that say them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cache.errors import BaseError
from stages.bases import beside
from stages.bases.brought import completed, known
from stages.bases.spec import BaseSpec
from stages.data.policy import SQUASH, Resize
from stages.data.resizing import resized

CLIP = {
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
    "image_mean": [0.4, 0.5, 0.6], "image_std": [0.1, 0.2, 0.3], "resample": 3, "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}  # fmt: skip
NUMBERS = {"order": "rgb", "scale": 1 / 255, "mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]}
TIMM = {
    "input_size": [3, 224, 224], "mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3], "interpolation": "bicubic",
    "crop_pct": 0.9, "crop_mode": "center",
}  # fmt: skip
CONVERTER = {
    "image_size": [32, 48], "scale": [0.5, 0.25, 1.0], "offset": [-2.0, 1.0, 0.0], "interpolation": "bilinear", "antialias": False,
    "crop_to_aspect_ratio": True, "pad_to_aspect_ratio": False,
}  # fmt: skip


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def torchvision(image: Image.Image, whole: int, size: int, kernel: Image.Resampling) -> np.ndarray:
    """``Resize(whole)`` and ``CenterCrop(size)`` as torchvision defines them on Pillow images."""
    short, long = sorted(image.size)
    other = int(whole * long / short)
    width, height = (whole, other) if image.width <= image.height else (other, whole)
    larger = image if (width, height) == image.size else image.resize((width, height), kernel)
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return np.asarray(larger.crop((left, top, left + size, top + size)))


@given(
    width=st.integers(1, 120), height=st.integers(1, 120), size=st.integers(12, 40), more=st.integers(0, 9),
    kernel=st.sampled_from(["bilinear", "bicubic", "lanczos", "box", "hamming", "nearest"]),
)  # fmt: skip
def test_the_shorter_side_is_resized_and_the_middle_cut_out_as_torchvision_does(
    width: int, height: int, size: int, more: int, kernel: str
) -> None:
    whole = size + more
    if whole * max(width, height) / min(width, height) > 8 * size:  # of strips, the middle alone is resized
        return
    image = noise(width, height)
    found = resized(image, (size, size), Resize("shortest", size / whole, kernel))
    expected = torchvision(image, whole, size, Image.Resampling[kernel.upper()])
    np.testing.assert_array_equal(np.asarray(found), expected)


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)), target=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    mode=st.sampled_from(["squash", "shortest", "crop", "stretch"]), crop=st.sampled_from([1.0, 0.95, 0.875, 0.5]),
    kernel=st.sampled_from(["bilinear", "nearest", "bicubic"]), antialias=st.booleans(),
)  # fmt: skip
def test_any_image_comes_to_the_input_size(
    size: tuple[int, int], target: tuple[int, int], mode: Any, crop: float, kernel: str, antialias: bool
) -> None:
    how = Resize(mode, 1.0 if mode in ("crop", "stretch") else crop, kernel, antialias)
    found = np.asarray(resized(Image.new("RGB", size, (200, 100, 50)), target, how))
    assert found.shape == (*target, 3) and (found == [200, 100, 50]).all()  # no border comes in


def test_a_strip_comes_to_nearly_what_it_would_whole() -> None:
    image = Image.fromarray(np.repeat(np.linspace(0, 255, 1200).astype(np.uint8)[None, :, None], 60, 0).repeat(3, 2))
    found = np.asarray(resized(image, (32, 32), Resize("shortest", 0.875))).astype(int)
    expected = torchvision(image, 36, 32, Image.Resampling.BILINEAR).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_squash_with_a_crop_resizes_both_sides_and_cuts_the_middle_out() -> None:
    image = noise(90, 50)
    found = np.asarray(resized(image, (28, 28), SQUASH._replace(crop=0.875)))
    expected = image.resize((32, 32), Image.Resampling.BILINEAR).crop((2, 2, 30, 30))
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_resizing_has_words_of_its_own_where_it_does_something_else() -> None:
    ways = [
        Resize(mode, crop, kernel, antialias)
        for mode in ("squash", "shortest", "crop", "stretch")
        for crop in ((1.0,) if mode in ("crop", "stretch") else (1.0, 0.9))
        for kernel in ("bilinear", "nearest")
        for antialias in (True, False)
    ]
    assert len({how.words for how in ways}) == len(ways) - 2  # without antialiasing, to stretch is to squash


# Numbers


def spec(**options: Any) -> BaseSpec:
    return BaseSpec.model_validate(options)


def test_numbers_are_those_of_the_formula() -> None:
    base = spec(scale="1/255", mean=[0.5, 0.25, 0.0], std=[0.5, 0.25, 2.0], order="bgr")
    found = base.affine()
    assert found is not None
    times, plus = found
    pixel = np.array([10.0, 20.0, 30.0])
    np.testing.assert_allclose(pixel * times + plus, (pixel / 255 - [0.5, 0.25, 0.0]) / [0.5, 0.25, 2.0])
    assert spec().affine() is None and spec(rescale="1/255").affine() == ([1 / 255] * 3, [0.0] * 3)


@pytest.mark.parametrize("ratio", ["1/255", " 1 / 255 ", 1 / 255])
def test_a_ratio_is_a_number(ratio: Any) -> None:
    assert spec(rescale=ratio).numbers == spec(scale=1 / 255).numbers


# Files beside a model


def written(folder: Path, name: str, content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (CLIP, {**NUMBERS, "filter": "bicubic", "resize": "shortest", "input_size": [224, 224]}),
        (CLIP | {"size": 256, "crop_size": 224}, {**NUMBERS, "filter": "bicubic", "resize": "shortest", "input_size": [224, 224], "crop": 224 / 256}),
        (CLIP | {"size": 256, "crop_size": 224, "feature_extractor_type": "DeiTFeatureExtractor"}, {**NUMBERS, "filter": "bicubic", "resize": "squash", "input_size": [224, 224], "crop": 224 / 256}),
        (CLIP | {"size": {"height": 224, "width": 192}, "do_center_crop": False, "crop_size": None, "resample": 2}, {**NUMBERS, "filter": "bilinear", "resize": "squash", "input_size": [224, 192]}),
        (CLIP | {"size": 224, "do_center_crop": None, "crop_size": None}, {**NUMBERS, "filter": "bicubic", "resize": "squash", "input_size": [224, 224]}),
        (CLIP | {"crop_size": None, "do_center_crop": False, "crop_pct": 0.875}, {**NUMBERS, "filter": "bicubic", "resize": "shortest", "input_size": [224, 224], "crop": 0.875}),
        (CLIP | {"size": {"shortest_edge": 384}, "crop_size": None, "do_center_crop": False, "crop_pct": 0.875}, {**NUMBERS, "filter": "bicubic", "resize": "squash", "input_size": [384, 384]}),
        (CLIP | {"crop_pct": 0.9}, {**NUMBERS, "filter": "bicubic", "resize": "shortest", "input_size": [224, 224], "crop": 0.9}),
        (CLIP | {"do_normalize": False, "do_flip_channel_order": True}, {"order": "bgr", "scale": 1 / 255, "filter": "bicubic", "resize": "shortest", "input_size": [224, 224]}),
        ({"do_resize": True, "do_rescale": False, "size": {"height": 8, "width": 8}}, {"order": "rgb", "resize": "squash", "input_size": [8, 8]}),
        (CLIP | {"include_top": True, "rescale_offset": True, "do_resize": False}, {**NUMBERS, "mean": [1.4, 1.5, 1.6], "std": [0.1**2, 0.2**2, 0.3**2], "input_size": [224, 224]}),
        ({"image_processor": CLIP}, {**NUMBERS, "filter": "bicubic", "resize": "shortest", "input_size": [224, 224]}),
        ({"feature_extractor_type": "of sounds"}, {}),
    ],
    ids=["CLIP", "resize and crop", "old DeiT", "ViT", "old ViT", "ConvNeXt", "large ConvNeXt", "PoolFormer", "MobileViT", "pixels", "EfficientNet", "nested", "other"],
)  # fmt: skip
def test_a_file_of_transformers_is_read(tmp_path: Path, said: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert beside.told(written(tmp_path, "preprocessor_config.json", said)) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"pretrained_cfg": TIMM}, {"filter": "bicubic", "resize": "shortest", "input_size": [224, 224], "crop": 0.9}),
        (TIMM | {"crop_mode": "squash", "crop_pct": 1.0}, {"filter": "bicubic", "resize": "squash", "input_size": [224, 224], "crop": 1.0}),
        ({name: TIMM[name] for name in ("input_size", "mean", "std")}, {"filter": "bicubic", "resize": "shortest", "input_size": [224, 224], "crop": 0.875}),
    ],
)  # fmt: skip
def test_a_file_of_timm_is_read(tmp_path: Path, said: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert beside.told(written(tmp_path, "config.json", said)) == NUMBERS | expected


def test_a_configuration_of_something_else_says_nothing(tmp_path: Path) -> None:
    assert beside.told(written(tmp_path, "config.json", {"model_type": "vit", "image_size": 224})) == {}


@pytest.mark.parametrize("nested", [False, True])
def test_an_image_converter_is_read(tmp_path: Path, nested: bool) -> None:
    converter = {"class_name": "ImageConverter", "config": CONVERTER}
    whole = {"class_name": "Preprocessor", "config": {"image_converter": converter}} if nested else converter
    told = beside.told(written(tmp_path, "preprocessor.json" if nested else "image_converter.json", whole))
    assert told.pop("input_size") == [32, 48]
    base = spec(name="hub:x", **told)
    found = base.affine()
    assert found is not None
    np.testing.assert_allclose(found, ([0.5, 0.25, 1.0], [-2.0, 1.0, 0.0]))
    assert base.resizing == Resize("crop", 1.0, "bilinear", False)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("preprocessor_config.json", "{", "expected how images are prepared, found what cannot be read"),
        ("preprocessor_config.json", "[1]", "expected how images are prepared, found what cannot be read"),
        ("preprocessor_config.json", CLIP | {"resample": 9}, "found what cannot be read"),
        ("preprocessor_config.json", CLIP | {"image_std": [0.0, 1, 1]}, "std: expected numbers above 0"),
        ("config.json", TIMM | {"interpolation": "random"}, "config.json: "),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(BaseError, match=message) as caught:
        beside.told(written(tmp_path, name, content))
    assert "\n" not in str(caught.value) and name in str(caught.value)


# A preset in a folder: nothing of it is built here


def preset(folder: Path, converter: Mapping[str, Any] | None = CONVERTER, weights: str = "some") -> Path:
    shape = {"image_shape": [None, None, 3]}
    config = {"module": "keras_hub.src.models.vit.vit_backbone", "class_name": "ViTBackbone", "registered_name": "keras_hub>ViTBackbone"}  # fmt: skip
    written(folder, "config.json", config | {"config": shape})
    if converter is not None:
        written(folder, "image_converter.json", {"class_name": "ImageConverter", "config": dict(converter)})
    return written(folder, "model.weights.h5", weights)


def base_of(folder: Path, **options: Any) -> BaseSpec:
    return spec(name=f"hub:{folder}", **options).model_copy(update={"weights": str(folder)})


def test_what_the_configuration_says_goes_before_what_files_say(tmp_path: Path) -> None:
    folder = preset(tmp_path / "preset")
    plain = completed(base_of(folder), tmp_path)
    assert plain.input_size == (32, 48) and plain.resizing.mode == "crop" and plain.prefix_tokens == 1
    other = completed(base_of(folder, input_size=64, resize="squash", filter="bicubic", prefix_tokens=5), tmp_path)
    assert (other.input_size, other.prefix_tokens) == ((64, 64), 5)
    assert other.resizing == Resize("squash", 1.0, "bicubic", False) and other.numbers == plain.numbers


def test_what_files_ask_for_and_cannot_be_had_is_said_unless_the_configuration_decides(tmp_path: Path) -> None:
    padded = preset(tmp_path / "p", CONVERTER | {"pad_to_aspect_ratio": True, "crop_to_aspect_ratio": False})
    with pytest.raises(BaseError, match=r"its image converter pads images, which headstart does not; set resize$"):
        completed(base_of(padded), tmp_path)
    assert completed(base_of(padded, resize="crop"), tmp_path).resizing.mode == "crop"
    folder = preset(tmp_path / "q")
    with pytest.raises(BaseError, match="with what its files say: .*antialias = false goes with filter"):
        completed(base_of(folder, filter="lanczos"), tmp_path)
    with pytest.raises(BaseError, match="expected the size of its images, found none; set input_size"):
        completed(base_of(preset(tmp_path / "r", None)), tmp_path)


def test_a_preset_is_known_by_its_content(tmp_path: Path) -> None:
    """And where only a record of it came along, by that."""
    folder = preset(tmp_path / "preset")
    before = known(base_of(folder), tmp_path)["sha256"]
    folder.rename(tmp_path / "other")
    assert known(base_of(folder), tmp_path)["sha256"] == before  # from the record
    assert known(base_of(tmp_path / "other"), tmp_path)["sha256"] == before
    preset(tmp_path / "other", weights="others")
    assert known(base_of(tmp_path / "other"), tmp_path)["sha256"] != before


def test_a_file_that_comes_to_lie_beside_a_model_is_noticed(tmp_path: Path) -> None:
    folder = preset(tmp_path / "preset", None)
    assert known(base_of(folder), tmp_path)["told"] == {"prefix_tokens": 1}
    preset(folder)
    assert completed(base_of(folder), tmp_path).input_size == (32, 48)


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"module": "os", "class_name": "system", "registered_name": "keras_hub>ViTBackbone"}, "found 'system' of 'os'"),
    ({"module": "keras_hubris.evil", "class_name": "ViTBackbone"}, "found 'ViTBackbone' of 'keras_hubris.evil'"),
    ({"module": "keras.utils", "class_name": "get_file"}, "found 'get_file' of 'keras.utils'"),
    ({"module": "keras.layers", "class_name": "Lambda"}, "found 'Lambda' of 'keras.layers'"),
    ({"module": "keras.layers", "class_name": "TorchModuleWrapper"}, "found 'TorchModuleWrapper'"),
    ({"module": "keras.layers", "class_name": "TFSMLayer"}, "found 'TFSMLayer'"),
    ({"class_name": "__lambda__", "config": {"value": "gASV"}}, "found '__lambda__'"),
    ({"class_name": "Mine", "registered_name": "mine>Mine"}, "found 'Mine' of 'mine'"),
    ({"module": 3, "class_name": "x"}, "found 'x' of 3"),
]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("found", "message"), HOSTILE, ids=[message for _, message in HOSTILE])
def test_a_preset_that_names_code_from_elsewhere_is_refused(
    tmp_path: Path, found: dict[str, Any], message: str, nested: bool
) -> None:
    folder = preset(tmp_path / "preset")
    config = json.loads((folder / "config.json").read_text())
    written(folder, "config.json", config | {"config": {"layers": [found]}} if nested else config | found)
    with pytest.raises(BaseError, match=f"expected classes of keras and keras_hub alone, {message}") as caught:
        completed(base_of(folder), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_preset_is_one_line(tmp_path: Path) -> None:
    folder = preset(tmp_path / "preset")
    (folder / "model.weights.h5").unlink()
    with pytest.raises(BaseError, match=r"expected weights \(model.weights.h5, or model.safetensors\) .*, found none"):
        completed(base_of(folder), tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(BaseError, match="expected the configuration of a KerasHub preset, found none"):
        completed(base_of(folder), tmp_path)
    with pytest.raises(
        BaseError, match="expected the folder of a KerasHub preset there, found nothing at .*none; mend name"
    ):
        completed(base_of(tmp_path / "none"), tmp_path)
