"""Presets of KerasHub in use: in a report, fetched by their names, and what is wrong with them."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_hub
import pytest
from conftest import ROOT, Project, failed, write_image
from presets import COUNT, RIDGE, TOP, base, check, own, photos, presets, stored


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return presets(tmp_path_factory.mktemp("presets"))


def test_beside_vgg16_in_a_report_and_where_the_folder_is_not(preset: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(preset("vit"), tmp_path / "mine")
    vgg = '[bases.vgg]\nname = "VGG16"\ninput_size = 32\nweights = "random"\n'
    project = Project(tmp_path).create(TOP + base("mine", "./mine", 'output = "cls"') + vgg + RIDGE + 'base = ["mine", "vgg"]\n')  # fmt: skip
    photos(project, count=40)
    outcome = project.make("report")
    assert outcome.code == 0 and outcome.trained == ["ridge@mine", "ridge@vgg"], outcome.out
    page = (project.artifacts / "report" / "index.html").read_text()
    assert "hub:./mine" in page and "VGG16" in page
    assert "Licence of the weights" in page and "Dosovitskiy et al., An image is worth 16x16 words" in page
    new = write_image(tmp_path / "new.png", 5)
    predicted = project.headstart("predict", "--head", "ridge@mine", str(new))
    assert predicted.code == 0 and "new.png: " in predicted.out, predicted.out
    line = failed(project.headstart("export", "ridge@mine", "--to", "keras"))
    assert "found a preset of KerasHub, whose layers cannot be trained, drawn or exported here" in line
    out = project.headstart("layers", "hub:./mine").out
    whole = keras_hub.models.Backbone.from_preset(str(tmp_path / "mine"))
    told = [int(line.replace("← the default", "").split()[-1].replace(",", "")) for line in out.splitlines()[1:-1]]
    assert whole.get_layer("vit_encoder").count_params() in told and max(told) <= whole.count_params()
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
        project.headstart(
            "features", env={**closed, "KAGGLEHUB_CACHE": str(tmp_path / "kaggle"), "no_proxy": "", "NO_PROXY": ""}
        )
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
