"""`headstart bases`: what can be had, at a glance."""

import json
from pathlib import Path

import pytest
from conftest import CONFIG, Project, write_photos

from stages.bases.available import where
from stages.bases.catalogue import BASES
from stages.bases.figures import FIGURES
from stages.bases.licences import licence_of
from stages.bases.spec import BaseSpec


def test_all_bases_are_listed_with_their_figures(tmp_path: Path) -> None:
    out = Project(tmp_path).headstart("bases").out
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines.keys() >= BASES.keys() == FIGURES.keys()
    for part in ("224×224", "14.7 M", "7×7×512", "50.2", "30.7", "packaged", "CC BY 4.0"):
        assert part in lines["VGG16"], part
    # Keras has none of its weights.
    for part in ("224×224", "3.4 M", "7×7×1280", "packaged", "Apache 2.0 (Google, in the package efficientnet-lite0"):
        assert part in lines["EfficientNetLite0"], part


def test_those_of_the_configuration_come_first(tmp_path: Path) -> None:
    project = Project(tmp_path).create(CONFIG.replace("[base]", "[bases.mine]"))
    write_photos(project.photos, {"cat": 2, "dog": 2})
    first, mine = project.headstart("bases").out.splitlines()[:2]
    assert first.startswith("base ") and mine.startswith("mine: VGG16 ")
    # At 32 pixels, and not as in the table.
    assert "32×32" in mine and "1×1×512" in mine and " 0.626 " in mine and "none: random weights" in mine


def test_the_named_ones_are_timed(tmp_path: Path) -> None:
    project = Project(tmp_path).create()
    write_photos(project.photos, {"cat": 2, "dog": 2})
    lines = project.headstart("bases", "--time").out.splitlines()
    (line,) = (line for line in lines if line.startswith("VGG16"))
    assert any("images/s" in line for line in lines) and float(line.split(" 0.626 ")[1].split()[0].replace(",", "")) > 0


def test_what_is_not_here_is_a_dash_with_the_reason(tmp_path: Path) -> None:
    absent = {
        "preset": '"hub:dinov2_small"',
        "folder": '"hub:./nothing"\ninput_size = 224',
        "model": '"file:nothing.onnx"',
        "own": '"file:nothing.keras"',
        "mine": '"VGG16"\ninput_size = 40\nweights = "nothing.weights.h5"',
    }
    tables = "".join(f"[bases.{name}]\nname = {value}\n" for name, value in absent.items())
    project = Project(tmp_path).create(CONFIG.replace("[base]", f"{tables}[bases.last]"))
    outcome = project.headstart("bases")
    assert outcome.code == 0, outcome.out
    rows = {name: next(line for line in outcome.out.splitlines() if line.startswith(f"{name}: ")) for name in absent}
    assert all("–" in row and "missing" in row for name, row in rows.items() if name != "preset"), rows
    assert "fetched once" in rows["preset"] and "224×224" in rows["folder"] and "40×40" in rows["mine"]
    assert "preset: hub:dinov2_small: not fetched yet; `make features` fetches it" in outcome.out
    for name in ("folder", "model", "own", "mine"):
        why = outcome.out.splitlines()[-3 - 5 :]
        assert any(line.startswith(f"{name}: ") and str(tmp_path / "nothing") in line for line in why), (name, why)
    assert "last: VGG16 " in outcome.out and "Xception " in outcome.out
    # One that is named by hand is an error, but for a preset that is still to be fetched.
    assert "mend name" in (named := project.headstart("bases", "file:nothing.onnx")).out and named.code == 1
    assert project.headstart("bases", "hub:dinov2_small").code == 0


def test_a_named_one_is_told_of_as_in_the_list(tmp_path: Path) -> None:
    """And not as with random weights, which nobody asked for."""
    project = Project(tmp_path)
    lines = {line.split()[0]: line.split() for line in project.headstart("bases").out.splitlines() if line}
    for name, licence in (("MobileNetV2", "packaged: BSD 3-Clause (torchvision"), ("ResNet50", "MIT (He et al.")):
        line = project.headstart("bases", name).out.splitlines()[1]
        assert line.split() == lines[name] and licence in line and "random" not in line


def test_a_base_that_there_is_not(tmp_path: Path) -> None:
    outcome = Project(tmp_path).headstart("bases", "ResNet5")
    assert outcome.code == 1 and "no base 'ResNet5' (did you mean 'ResNet50'?)" in outcome.out
    outcome = Project(tmp_path).headstart("bases", "file:model.pt")
    assert outcome.out == 'headstart: name: expected "file:….keras" or "file:….onnx", found \'file:model.pt\'\n'


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "VGG16"),
        ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", "MobileNetV2"),
        ("mobilenet_1_0_224_tf_no_top.h5", "MobileNet"),
        ("weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", "MobileNetV3Small"),
        ("resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "ResNet50"),
        ("resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "ResNet50V2"),
        ("efficientnetv2-b0_notop.h5", "EfficientNetV2B0"),
        ("convnext_tiny_notop.h5", "ConvNeXtTiny"),
    ],
)
def test_weights_that_keras_fetched_are_here(
    file: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / file).touch()
    here = {base for base in BASES if "imagenet" in where(BaseSpec(name=base), tmp_path / "weights")}
    assert here == {name}


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("dinov3_vit_small", "DINOv3 License: gated, to be accepted before the download"),
        ("convnextv2_tiny.fcmae", "CC BY-NC 4.0: non-commercial"),
        ("something", "not known: ask who made the file"),
        ("dino_vits16", "Apache 2.0"),
        ("vitdet_base_sa1b", "Apache 2.0"),
        ("vitb", "Apache 2.0"),
        ("activity", "not known: ask who made the file"),
        ("eclipse_swing", "not known: ask who made the file"),
    ],
)
def test_licences_of_files_are_told_by_their_names_or_by_what_lies_beside(
    tmp_path: Path, name: str, terms: str
) -> None:
    folder = tmp_path / "clip" / "files"  # of folders above, a name says nothing
    folder.mkdir(parents=True)
    path = folder / f"{name}.onnx"
    spec = BaseSpec(name=f"file:{path}").model_copy(update={"weights": str(path)})
    found = licence_of(spec, tmp_path)
    assert found.terms == terms and found.source.startswith(("going by its name", "a file of your own"))
    (folder / "README.md").write_text("---\ntags: [a]\nlicense: mit\n---\n# Model\nlicense: other\n")
    assert licence_of(spec, tmp_path).terms == "mit"
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": {"license": "apache-2.0"}}))
    assert licence_of(spec, tmp_path).terms == "apache-2.0"


def test_the_licence_of_a_preset_is_told_by_the_class_in_its_folder(tmp_path: Path) -> None:
    spec = BaseSpec(name=f"hub:{tmp_path}").model_copy(update={"weights": str(tmp_path)})
    assert licence_of(spec, tmp_path).source == "a preset of KerasHub"
    (tmp_path / "config.json").write_text(json.dumps({"class_name": "DINOV3Backbone"}))
    found = licence_of(spec, tmp_path)
    assert found.terms.startswith("DINOv3 License: gated") and found.source.startswith("going by its name or class")
    for kind, terms in (("ViTBackbone", "Apache 2.0"), ("CLIPBackbone", "MIT"), ("SwinTransformerBackbone", "MIT")):
        (tmp_path / "config.json").write_text(json.dumps({"class_name": kind}))
        assert licence_of(spec, tmp_path).terms == terms
    named = BaseSpec(name="hub:dinov2_small").model_copy(update={"weights": "dinov2_small"})
    assert licence_of(named, tmp_path).source == "Oquab et al., DINOv2, 2024"
