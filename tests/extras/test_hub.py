"""Bases of KerasHub, in small random configurations: features are what its own converter and backbone give of the same images."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Project, failed, write_image
from presets import COUNT, FAMILIES, RIDGE, TOP, WIDTH, base, check, own, photos, presets, stored

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


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return presets(tmp_path_factory.mktemp("presets"))


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
    from pipeline.config.load import load_config
    from pipeline.targets.graph import load_graph

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


def test_what_tensorflow_writes_when_it_starts_is_kept_away(preset: Callable[[str], Path]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    for command in ("layers", "bases"):
        words = [sys.executable, "-m", "pipeline", command, f"hub:{preset('vit')}"]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and done.stderr == "" and "17" in done.stdout, done.stderr
