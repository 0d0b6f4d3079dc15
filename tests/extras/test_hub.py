"""Bases of KerasHub, in small random configurations: features are what its own converter and backbone give of the same images."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_hub
import numpy as np
import pytest
from conftest import ROOT, Outcome, Project, write_image
from PIL import Image

from cache import FeatureStore

HUB, LAYERS = keras_hub.models, keras_hub.layers
SIZE, PATCH, WIDTH = 32, 8, 16
BLOCKS = {"num_layers": 2, "num_heads": 2, "hidden_dim": WIDTH, "patch_size": PATCH, "image_shape": (SIZE, SIZE, 3)}
TEXT = {"vocabulary_size": 20, "embedding_dim": 16, "hidden_dim": 16, "num_layers": 1, "num_heads": 2, "intermediate_dim": 32, "max_sequence_length": 8}  # fmt: skip


def _siglip() -> Any:
    vision = HUB.SigLIPVisionEncoder(**BLOCKS, intermediate_dim=32, name="vision_encoder")
    return HUB.SigLIPBackbone(vision_encoder=vision, text_encoder=HUB.SigLIPTextEncoder(**TEXT, name="text_encoder"))


def _clip() -> Any:
    vision = HUB.CLIPVisionEncoder(**BLOCKS, intermediate_dim=32, name="vision_encoder")
    text = HUB.CLIPTextEncoder(**TEXT, name="text_encoder")
    return HUB.CLIPBackbone(vision_encoder=vision, text_encoder=text, projection_dim=8)


def _mobilenet() -> Any:
    of_each = {
        "block_types": [["er"], ["uir", "uir"]], "num_blocks": [1, 2], "num_filters": [[24], [48, 48]], "strides": [[2], [2, 1]],
        "act_layers": [["relu"], ["relu", "relu"]], "exp_ratios": [[4.0], [6.0, 6.0]], "se_ratios": [[0.0], [0.0, 0.0]],
        "dw_kernel_sizes": [[0], [5, 5]], "exp_kernel_sizes": [[3], [0, 0]], "pw_kernel_sizes": [[1], [0, 0]],
        "use_cpe": [[False], [False, False]],
    }  # fmt: skip
    none = ("dw_start_kernel_sizes", "dw_end_kernel_sizes", "num_heads", "key_dims", "value_dims", "kv_strides")
    of_each |= {name: [[0], [0, 0]] for name in none}
    return HUB.MobileNetV5Backbone(**{f"stackwise_{name}": value for name, value in of_each.items()}, use_msfa=False)


def _efficientnet() -> Any:
    of_each = {
        "kernel_sizes": [3, 3], "num_repeats": [1, 1], "input_filters": [8, 8], "output_filters": [8, 16], "expansion_ratios": [1, 4],
        "squeeze_and_excite_ratios": [0.25, 0.25], "strides": [1, 2], "block_types": ["v1", "v1"], "force_input_filters": [0, 0],
        "nores_option": [False, False],
    }  # fmt: skip
    whole = {"width_coefficient": 1.0, "depth_coefficient": 1.0}
    return HUB.EfficientNetBackbone(**{f"stackwise_{name}": value for name, value in of_each.items()}, **whole)


FAMILIES: dict[str, tuple[Callable[[], Any], str]] = {
    "vit": (lambda: HUB.ViTBackbone(**BLOCKS, mlp_dim=32), "ViT"),
    "deit": (lambda: HUB.DeiTBackbone(**BLOCKS, intermediate_dim=32), "DeiT"),
    "dinov2": (
        lambda: HUB.DINOV2Backbone(
            **BLOCKS, intermediate_dim=32, num_register_tokens=4, position_embedding_shape=(48, 48, 3)
        ),
        "DINOV2",
    ),
    "dinov3": (lambda: HUB.DINOV3Backbone(**BLOCKS, intermediate_dim=32), "DINOV3"),
    "siglip": (_siglip, "SigLIP"),
    "clip": (_clip, "CLIP"),
    "swin": (
        lambda: HUB.SwinTransformerBackbone(
            image_shape=(SIZE, SIZE, 3), embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4
        ),
        "SwinTransformer",
    ),
    "mobilenetv5": (_mobilenet, "MobileNetV5"),
    "efficientnet": (_efficientnet, "EfficientNet"),
    "resnet": (
        lambda: HUB.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 64],
            stackwise_num_blocks=[1, 1],
            stackwise_num_strides=[1, 2],
            block_type="basic_block",
        ),
        "ResNet",
    ),
}
# Beside the ten as they are: what is kept of tokens, and layers inside.
MORE: dict[str, tuple[str, str]] = {
    "vit_cls": ("vit", 'output = "cls"'),
    "vit_patches": ("vit", 'output = "patches"'),
    "dinov2_both": ("dinov2", 'output = "cls+mean"'),
    "dinov3_mean": ("dinov3", 'output = "mean"'),
    "deit_mean": ("deit", 'output = "mean"'),
    "siglip_patches": ("siglip", 'output = "patches"\nlayer = "vision_encoder_post_layer_norm"'),
    "clip_cls": ("clip", 'output = "cls"'),
    "swin_mean": ("swin", 'output = "mean"'),
    "blocks": ("dinov2", 'layers = ["stage1", "stage2"]'),
    "normed": ("dinov2", 'layers = ["stage1", "stage2"]\nfinal_norm = true\noutput = "cls"'),
    "inner": ("vit", 'layers = ["vit_encoder/transformer_block_1", "vit_encoder/transformer_block_2"]\nfinal_norm = true'),
}  # fmt: skip
COUNT = 16
TOP = '[data]\nroot = "photos"\nseed = 1\n[cache]\ndtype = "float32"\n'
RIDGE = '[heads.ridge]\nkind = "sklearn"\nestimator = "RidgeClassifier"\n'


def base(name: str, preset: Path | str, more: str = "") -> str:
    return f'[bases.{name}]\nname = "hub:{preset}"\nprecision = "float32"\nbatch_size = 8\n{more}\n'


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("presets")

    @cache
    def make(family: str) -> Path:
        build, prefix = FAMILIES[family]
        keras.utils.clear_session()
        keras.utils.set_random_seed(3)
        model, rng = build(), np.random.default_rng(1)
        for weight in model.trainable_weights:  # zeros and ones would hide what is mixed up
            weight.assign(weight.numpy() + rng.normal(0, 0.1, weight.shape))
        model.save_to_preset(str(folder / family))
        scale, offset = [1 / 58.4, 1 / 57.1, 1 / 57.4], [-2.1, -2.0, -1.8]
        converter = getattr(LAYERS, f"{prefix}ImageConverter")
        converter(image_size=(SIZE, SIZE), scale=scale, offset=offset).save_to_preset(str(folder / family))
        return folder / family

    return make


def photos(project: Project, size: tuple[int, int] = (SIZE, SIZE), count: int = COUNT) -> None:
    for i in range(count):
        write_image(project.photos / ("cat" if i % 2 else "dog") / f"{i}.png", 90 + i, size)


def stored(project: Project) -> dict[tuple[str, str, str], dict[str, np.ndarray]]:
    """Features by the preset's digest, layer and key, and there by the photo's name."""
    names = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in project.photos.rglob("*.png")}
    found = {}
    for path in (project.artifacts / "features").iterdir():
        store = FeatureStore(path)
        digests = sorted(store.digests())
        rows = dict(zip([names[digest] for digest in digests], store.read(digests), strict=True))
        found[store.spec["weights"], store.spec["layer"], path.name] = rows
    return found


def own(folder: Path, project: Project, outputs: Callable[[Any], Any] | None = None) -> dict[str, np.ndarray]:
    """What KerasHub's own converter and backbone give, by the photo's name."""
    keras.utils.clear_session()
    model = HUB.Backbone.from_preset(str(folder))
    converter = LAYERS.ImageConverter.from_preset(str(folder))
    model = getattr(model, "vision_encoder", model)
    if outputs is not None:
        model = keras.Model(model.input, outputs(model))
    found = {}
    for path in project.photos.rglob("*.png"):
        pixels = converter(np.asarray(Image.open(path))[None])
        values = model(dict.fromkeys(model.input, pixels) if isinstance(model.input, dict) else pixels, training=False)
        found[path.name] = np.asarray(values)[0]
    return found


def failed(outcome: Outcome) -> str:
    """The line of an error, which must be the only one that speaks of it."""
    assert outcome.code == 1 and "Traceback" not in outcome.out, outcome.out
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("headstart: ")]
    return line


def check(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, row in expected.items():
        assert found[name].shape == row.shape
        np.testing.assert_allclose(found[name], row, atol=1e-3 * max(1.0, np.abs(row).max()))


@pytest.fixture(scope="module")
def every(preset: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run over all of them: the project, and by base and layer its features."""
    project = Project(tmp_path_factory.mktemp("every"))
    bases = {name: (name, "") for name in FAMILIES} | MORE
    project.create(TOP + RIDGE + "".join(base(name, preset(family), more) for name, (family, more) in bases.items()))
    photos(project)
    outcome = project.headstart("features")
    assert outcome.code == 0 and outcome.extracted == COUNT * len(bases), outcome.out
    assert "features: up to date" in project.headstart("features").out
    from pipeline.config import load_config
    from pipeline.graph import load_graph

    names = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in project.photos.rglob("*.png")}
    found = {}
    for name, target in load_graph(load_config(project.config)).bases.items():
        for layer, store in target.stores.items():
            digests = sorted(store.digests())
            found[name, layer] = dict(zip([names[each] for each in digests], store.read(digests), strict=True))
    return {"project": project, "features": found}


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_of_the_model_and_its_converter(
    every: dict[str, Any], preset: Callable[[str], Path], family: str
) -> None:
    check(every["features"][family, "output"], own(preset(family), every["project"]))


def test_tokens_are_the_right_ones(every: dict[str, Any]) -> None:
    """Of a class token, four registers where there are some, and 4×4 patches."""
    features = every["features"]

    def of(base: str, layer: str = "output") -> np.ndarray:
        return np.stack([features[base, layer][f"{i}.png"] for i in range(COUNT)])

    tokens = {name: of(name) for name in ("vit", "dinov2", "dinov3", "deit", "clip", "swin")}
    assert {name: each.shape[1] for name, each in tokens.items()} == {
        "vit": 17, "dinov2": 21, "dinov3": 21, "deit": 18, "clip": 17, "swin": 16,
    }  # fmt: skip
    close = {"atol": 1e-4, "rtol": 1e-4}
    np.testing.assert_allclose(of("vit_cls"), tokens["vit"][:, 0], **close)
    np.testing.assert_allclose(of("vit_patches"), tokens["vit"][:, 1:].reshape(COUNT, 4, 4, WIDTH), **close)
    both = np.concatenate([tokens["dinov2"][:, 0], tokens["dinov2"][:, 5:].mean(axis=1)], axis=1)
    np.testing.assert_allclose(of("dinov2_both"), both, **close)
    np.testing.assert_allclose(of("dinov3_mean"), tokens["dinov3"][:, 5:].mean(axis=1), **close)
    np.testing.assert_allclose(of("deit_mean"), tokens["deit"][:, 2:].mean(axis=1), **close)
    np.testing.assert_allclose(of("clip_cls"), tokens["clip"][:, 0], **close)
    np.testing.assert_allclose(of("swin_mean"), tokens["swin"].mean(axis=1), **close)
    assert of("siglip_patches", "vision_encoder_post_layer_norm").shape == (COUNT, 4, 4, WIDTH)


def test_blocks_come_with_the_final_norm_or_without(every: dict[str, Any], preset: Callable[[str], Path]) -> None:
    features, project = every["features"], every["project"]
    for stage in ("stage1", "stage2"):
        check(features["blocks", stage], own(preset("dinov2"), project, lambda model: model.pyramid_outputs[stage]))  # noqa: B023
        expected = own(preset("dinov2"), project, lambda model: model.layernorm(model.pyramid_outputs[stage]))  # noqa: B023
        check(features["normed", stage], {name: row[0] for name, row in expected.items()})
    # Behind the last block, the norm gives what the whole model gives; it is inside the encoder of this one.
    check(features["inner", "vit_encoder/transformer_block_2"], features["vit", "output"])
    first = features["inner", "vit_encoder/transformer_block_1"]
    assert np.abs(first["0.png"] - features["vit", "output"]["0.png"]).max() > 0.01


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_other_backends_give_the_same(
    every: dict[str, Any], preset: Callable[[str], Path], tmp_path: Path, backend: str
) -> None:
    bases = base("a", preset("dinov3")) + base("b", preset("vit"), MORE["inner"][1])
    project = Project(tmp_path).create(TOP + RIDGE + bases)
    photos(project)
    outcome = project.headstart("features", env={"KERAS_BACKEND": backend})
    assert outcome.code == 0 and outcome.extracted == 2 * COUNT, outcome.out
    for (_, layer, _), rows in stored(project).items():
        check(rows, every["features"]["dinov3" if layer == "output" else "inner", layer])


def test_openvino_gives_the_same(every: dict[str, Any], preset: Callable[[str], Path], tmp_path: Path) -> None:
    engine = 'engine = "openvino"\n'
    inner = 'layer = "vit_encoder/transformer_block_2"\nfinal_norm = true'
    project = Project(tmp_path).create(TOP + RIDGE + base("a", preset("dinov2"), engine) + base("b", preset("vit"), engine + inner))  # fmt: skip
    photos(project)
    outcome = project.headstart("features")
    assert outcome.code == 0 and "on CPU (OpenVINO) in float32" in outcome.out, outcome.out
    for (_, layer, _), rows in stored(project).items():
        check(rows, every["features"]["dinov2" if layer == "output" else "vit", "output"])


def test_what_openvino_cannot_convert_is_one_line(preset: Callable[[str], Path], tmp_path: Path) -> None:
    """Swin, as long as OpenVINO lacks one of its operations."""
    project = Project(tmp_path).create(TOP + RIDGE + base("a", preset("swin"), 'engine = "openvino"'))
    photos(project)
    outcome = project.headstart("features")
    assert outcome.code == 0 or 'take engine = "keras"' in failed(outcome), outcome.out


@pytest.mark.parametrize("crop", [True, False], ids=["crop", "stretch"])
@pytest.mark.parametrize(("interpolation", "antialias"), [("bilinear", False), ("bicubic", False), ("bicubic", True)])
def test_photos_of_other_sizes_are_what_its_converter_makes_of_them(
    preset: Callable[[str], Path], tmp_path: Path, interpolation: str, antialias: bool, crop: bool
) -> None:
    """Its resizing is followed to the pixel: what is cut off, how it is interpolated, and how it is rounded."""
    shutil.copytree(preset("vit"), tmp_path / "mine")
    file = tmp_path / "mine" / "image_converter.json"
    said = json.loads(file.read_text())
    said["config"] |= {"interpolation": interpolation, "antialias": antialias, "crop_to_aspect_ratio": crop}
    file.write_text(json.dumps(said))
    project = Project(tmp_path).create(TOP + RIDGE + base("a", "./mine"))
    photos(project, (75, 50))
    write_image(project.photos / "cat" / "tall.png", 1, (21, 300))
    assert project.headstart("features").code == 0
    ((_, rows),) = stored(project).items()
    check(rows, own(tmp_path / "mine", project))


def test_beside_vgg16_in_a_report_and_where_the_folder_is_not(preset: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(preset("vit"), tmp_path / "mine")
    vgg = '[bases.vgg]\nname = "VGG16"\ninput_size = 32\nweights = "random"\n'
    project = Project(tmp_path).create(TOP + base("mine", "./mine", 'output = "cls"') + vgg + RIDGE + 'base = ["mine", "vgg"]\n')  # fmt: skip
    photos(project, count=40)
    outcome = project.make("report")
    assert outcome.code == 0 and outcome.trained == ["ridge@mine", "ridge@vgg"], outcome.out
    page = (project.artifacts / "report" / "index.html").read_text()
    assert "hub:./mine" in page and "VGG16" in page
    new = write_image(tmp_path / "new.png", 5)
    predicted = project.headstart("predict", "--head", "ridge@mine", str(new))
    assert predicted.code == 0 and "new.png: " in predicted.out, predicted.out
    out = project.headstart("layers", "hub:./mine").out
    assert "vit_encoder/transformer_block_1" in out and "← the default" in out.splitlines()[-2]
    project.edit('output = "cls"', 'layer = "transformer_block_1"')
    line = failed(project.headstart("features"))
    assert "hub:./mine has no such layer (did you mean 'vit_encoder/transformer_block_1'?)" in line
    project.edit('layer = "transformer_block_1"', 'output = "cls"')
    # The cache is copied without the folder and the photos.
    (tmp_path / "elsewhere").mkdir()
    for name in ("artifacts", "headstart.toml"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    other = Project(tmp_path / "elsewhere")
    shutil.rmtree(other.artifacts / "heads")
    trained = other.headstart("heads")
    assert trained.code == 0 and trained.trained == ["ridge@mine", "ridge@vgg"], trained.out


def test_a_preset_by_its_name_is_fetched_once_and_kept(preset: Callable[[str], Path], tmp_path: Path) -> None:
    """From a place that KerasHub knows how to copy from; Kaggle and Hugging Face are others."""
    project = Project(tmp_path / "p").create(TOP + RIDGE + base("a", f"file://{preset('vit')}"))
    photos(project)
    environment = {"KERAS_HOME": str(tmp_path)}
    assert "was not fetched yet" in project.headstart("status").out
    outcome = project.headstart("features", env=environment)
    assert outcome.code == 0 and "base: fetching hub:file://" in outcome.out and outcome.extracted == COUNT, outcome.out
    shutil.rmtree(tmp_path / "models")  # KerasHub's own copy
    ((_, rows),) = stored(project).items()
    check(rows, own(preset("vit"), project))
    shutil.rmtree(project.artifacts / "features")
    again = project.headstart("features", env=environment)
    assert again.code == 0 and again.extracted == COUNT and "fetching" not in again.out, again.out


def test_what_cannot_be_fetched_is_one_line(tmp_path: Path) -> None:
    project = Project(tmp_path).create(TOP + RIDGE + base("a", "vit_base_patch16_224_imagenett"))
    photos(project)
    line = failed(project.headstart("features"))
    assert (
        "expected a preset of KerasHub, or the folder of one, found neither (did you mean 'vit_base_patch16_224_imagenet'?)"
        in line
    )
    project.edit("imagenett", "imagenet")
    # No proxy listens at this port, so that nothing can be reached, wherever this runs.
    closed = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    line = failed(
        project.headstart("features", env={**closed, "KAGGLEHUB_CACHE": str(tmp_path / "kaggle"), "no_proxy": ""})
    )
    assert "base 'hub:vit_base_patch16_224_imagenet' cannot be fetched (" in line
    assert (
        'connect this machine once, or name the folder of a preset that was saved elsewhere with save_to_preset: name = "hub:path/to/folder"'
        in line
    )


def change(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def test_a_preset_that_is_fetched_is_looked_at_before_anything_is_built(
    preset: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(preset("vit"), tmp_path / "evil")
    change(tmp_path / "evil", module="os", class_name="system")
    project = Project(tmp_path / "p").create(TOP + RIDGE + base("a", f"file://{tmp_path / 'evil'}"))
    photos(project)
    line = failed(project.headstart("features", env={"KERAS_HOME": str(tmp_path)}))
    assert "expected classes of keras and keras_hub alone, found 'system' of 'os'" in line


MISTAKES: list[tuple[Callable[[Path], Any], str, str]] = [
    (lambda folder: change(folder, module="os", class_name="system"), "", "found 'system' of 'os'; headstart runs no code from a preset"),
    (lambda folder: change(folder, registered_name="mine>Backbone"), "", "of 'mine'; headstart runs no code from a preset"),
    (lambda folder: (folder / "model.weights.h5").unlink(), "", "expected weights (model.weights.h5, or model.safetensors) in the folder of the preset, found none"),
    (lambda folder: (folder / "model.weights.h5").write_bytes(b"\x89HDF"), "", "expected a KerasHub preset of an image model, found "),
    (lambda folder: change(folder, class_name="Nothing", registered_name="keras_hub>Nothing"), "", "expected a KerasHub preset of an image model, found "),
    (lambda folder: (folder / "config.json").unlink(), "", "expected the configuration of a KerasHub preset, found none"),
    (shutil.rmtree, "", "expected the folder of a KerasHub preset there, found nothing at "),
    (lambda folder: None, "input_size = 64", "expected images of 32×32, found input_size = [64, 64]; set input_size = [32, 32]"),
    (lambda folder: None, 'layer = "vit_encoder"\noutput = "patches"\nprefix_tokens = 3', "set prefix_tokens"),
    (lambda folder: None, 'layer = "vit_patching_and_embedding/patch_embedding"\nfinal_norm = true', "final_norm: expected tokens (tokens, 16) at layer 'vit_patching_and_embedding/patch_embedding', found (4, 4, 16)"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "more", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_what_is_wrong_is_one_line(
    preset: Callable[[str], Path], tmp_path: Path, spoil: Callable[[Path], Any], more: str, message: str
) -> None:
    shutil.copytree(preset("vit"), tmp_path / "mine")
    spoil(tmp_path / "mine")
    project = Project(tmp_path).create(TOP + RIDGE + base("a", "./mine", more))
    photos(project)
    line = failed(project.headstart("features"))
    assert message in line and "\n" not in line, line


def test_a_norm_where_there_is_none_is_one_line(preset: Callable[[str], Path], tmp_path: Path) -> None:
    project = Project(tmp_path).create(TOP + RIDGE + base("a", preset("resnet"), "final_norm = true"))
    photos(project)
    assert "final_norm: expected a transformer with a norm at its end" in failed(project.headstart("features"))


def test_without_the_package_it_is_one_line(preset: Callable[[str], Path], tmp_path: Path) -> None:
    project = Project(tmp_path / "p").create(TOP + RIDGE + base("a", preset("vit")))
    photos(project)
    (tmp_path / "keras_hub.py").write_text("raise ImportError('No module named keras_hub')")
    line = failed(project.headstart("features", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}))
    assert "expected the package keras_hub, found none" in line and "install headstart[hub]" in line
