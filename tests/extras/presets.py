"""Presets of KerasHub, small and random, one of each family, and projects with them as bases."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
from conftest import Project, write_image
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


COUNT = 16
TOP = '[data]\nroot = "photos"\nseed = 1\n[cache]\ndtype = "float32"\n'
RIDGE = '[heads.ridge]\nkind = "sklearn"\nestimator = "RidgeClassifier"\n'


def base(name: str, preset: Path | str, more: str = "") -> str:
    return f'[bases.{name}]\nname = "hub:{preset}"\nprecision = "float32"\nbatch_size = 8\n{more}\n'


def presets(folder: Path) -> Callable[[str], Path]:
    """Makes the preset of a family below ``folder`` when it is first asked for; gives its folder."""

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


def check(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, row in expected.items():
        assert found[name].shape == row.shape
        np.testing.assert_allclose(found[name], row, atol=1e-3 * max(1.0, np.abs(row).max()))
