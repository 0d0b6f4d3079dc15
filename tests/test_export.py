"""A head as one model from pixels to probabilities: the same as ``predict``, whole, and of use without headstart."""

import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import Project, failed, write_photos
from export_project import HEADS, OTHERS, export_project, probabilities, used
from forked import Forked
from PIL import Image

from cache.files import TEMPORARY_PREFIX, atomic_folder, remove_temporaries
from pipeline.commands.predict import predicted
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph
from stages.bases.backend import load_keras
from stages.data.images import decode
from stages.export.model import Built, whole_model
from stages.heads.train import load_head
from stages.progress import SILENT

TWO = ("ridge", "lda", "sgd")
# The call, and the expression for where it acts: what is to be a folder named ridge-keras.
MOMENTS = {
    "a file of it is written": ("fsync", "os.path.dirname(os.readlink(f'/proc/self/fd/{a[0]}'))"),
    "it takes its place": ("replace", "str(a[1])"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose heads are trained."""
    return export_project(tmp_path_factory.mktemp("export") / "project", HEADS | OTHERS, 3)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of two classes, for which heads have one output."""
    heads = {name: HEADS[name] for name in TWO}
    return export_project(tmp_path_factory.mktemp("export") / "project", heads | {"small": HEADS["small"]}, 2)


@pytest.fixture
def copied(project: Project, tmp_path: Path) -> Project:
    shutil.copytree(project.folder, tmp_path / "project")
    return Project(tmp_path / "project")


def photos(project: Project, count: int) -> list[Path]:
    return sorted(project.photos.rglob("*.png"))[:count]


def predictions(project: Project, name: str, paths: list[Path]) -> np.ndarray:
    """What ``headstart predict`` says: probabilities (n, classes)."""
    graph = load_graph(load_config(project.config))
    head = graph.heads[name]
    return np.array([each.probabilities for each in predicted(graph, head, load_head(head.folder), paths, SILENT)])


@pytest.mark.parametrize("name", ["small@tiny", "small@other", *(name for name in HEADS if name != "small")])
def test_every_kind_of_head_gives_the_probabilities_of_predict(project: Project, tmp_path: Path, name: str) -> None:
    check(project, tmp_path, name)


@pytest.mark.parametrize("name", ["small@tiny", *TWO])
def test_of_two_classes_too(of_two: Project, tmp_path: Path, name: str) -> None:
    check(of_two, tmp_path, name)


def check(project: Project, folder: Path, name: str) -> None:
    keras = load_keras()
    graph = load_graph(load_config(project.config))
    bases = {each: Built(base.spec, base.weights) for each, base in graph.bases.items()}
    whole_model(graph.heads[name].folder, bases).save(folder / "model.keras")
    model = keras.saving.load_model(folder / "model.keras", safe_mode=True)
    kinds = {type(each).__module__ for each in model._flatten_layers() if each is not model}
    assert all(kind.startswith("keras.") and "lambda" not in kind for kind in kinds), kinds
    paths = photos(project, 6)
    expected = predictions(project, name, paths)
    found = [keras.ops.convert_to_numpy(model(decode(path.read_bytes())[None], training=False))[0] for path in paths]
    # Of noise, a step of a pixel changes more than of photographs, and of an analysis that fits noise, the most.
    most = 1e-2 if name == "lda" else 1e-3
    np.testing.assert_allclose(found, expected, atol=most)
    assert np.ptp(expected, axis=0).max() > 10 * most, "a head that says the same of all images would pass"
    two = np.stack([decode(paths[0].read_bytes(), (50, 60))] * 2)  # a batch
    assert model(two).shape == (2, len(graph.manifest.classes))


def odd_photos(folder: Path, photo: Path) -> list[Path]:
    """A photo as files whose pixels are no RGB of 8 bits."""
    image = Image.open(photo).convert("RGB")
    alpha = image.convert("L").point(lambda value: 2 * value % 256)
    clear = image.convert("P", palette=Image.Palette.ADAPTIVE)
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200)
    files = [folder / name for name in ("alpha.png", "palette.png", "deep.png", "cmyk.jpg", "turned.jpg", "grey.gif")]
    Image.merge("RGBA", (*image.split(), alpha)).save(files[0])
    clear.save(files[1], transparency=3)
    deep.save(files[2])
    image.convert("CMYK").save(files[3])
    image.save(files[4], exif=exif)
    image.convert("L").save(files[5])
    return files


@pytest.mark.parametrize("to", ["keras", "saved_model"])
def test_a_short_script_uses_it_without_headstart(project: Project, tmp_path: Path, to: str) -> None:
    outcome = project.headstart("export", "both", "--to", to)
    assert outcome.code == 0 and "probabilities differ from those of `headstart predict` by" in outcome.out, outcome.out
    folder = project.artifacts / "export" / f"both-{to}"
    paths = photos(project, 3)
    told = used(folder, *paths)
    np.testing.assert_allclose(probabilities(told), predictions(project, "both", paths), atol=1e-3)
    about = json.loads((folder / "model.json").read_text())
    assert [list(each["probabilities"]) for each in told] == [about["classes"]] * 3
    assert about["agreement"]["largest_difference"] < 2e-3 and about["agreement"]["labels_changed"] == 0
    assert about["metrics"]["test"]["scores"]["accuracy"]["interval"] and len(about["bases"]) == 2
    odd, bad = odd_photos(tmp_path, paths[0]), tmp_path / "text.png"
    bad.write_text("no image")
    told = used(folder, bad, *odd)
    assert "cannot identify" in told[0]["error"]
    np.testing.assert_allclose(probabilities(told[1:]), predictions(project, "both", odd), atol=2e-3)
    card = (folder / "README.md").read_text()
    assert "{" not in card and "| accuracy | " in card and "not known: ask who made the file" in card
    assert project.headstart("export", "both", "--to", to).out.startswith("export: up to date")


def test_it_is_stale_when_its_head_is_trained_anew_and_goes_with_it(copied: Project) -> None:
    assert copied.headstart("export", "ridge", "--to", "keras").code == 0
    folder = copied.artifacts / "export" / "ridge-keras"
    assert re.search(r"export ridge-keras +up to date ", copied.headstart("status").out)
    assert "nothing to remove" in copied.headstart("prune").out
    copied.edit('"RidgeClassifierCV"', '"RidgeClassifier"')
    assert re.search(r"export ridge-keras +stale: head ridge is stale", copied.headstart("status").out)
    assert copied.headstart("heads").code == 0
    assert "stale: head ridge was trained anew" in copied.headstart("status").out
    before = (folder / "model.keras").stat().st_ino
    assert "up to date" not in copied.headstart("export", "ridge", "--to", "keras").out
    assert (folder / "model.keras").stat().st_ino != before
    copied.edit("[heads.ridge]", "[heads.other]")
    assert (
        f"{folder.relative_to(copied.folder)}: an export of a head that is not configured"
        in copied.headstart("prune").out
    )


def test_a_head_that_does_not_know_a_new_class_is_compared_on_those_it_knows(copied: Project) -> None:
    write_photos(copied.photos, {"aaa": 12}, first=500)
    outcome = copied.headstart("export", "ridge", "--to", "keras")
    assert outcome.code == 0 and "head ridge is not up to date: 12 images added" in outcome.out, outcome.out
    assert re.search(r"on \d+ validation images, probabilities differ", outcome.out)


def test_damage_is_found_and_what_an_earlier_version_wrote_is_whole(copied: Project) -> None:
    assert copied.headstart("export", "ridge", "--to", "keras").code == 0
    folder = copied.artifacts / "export" / "ridge-keras"
    about, model = folder / "model.json", folder / "model.keras"
    told, weights = json.loads(about.read_text()), model.read_bytes()

    def stale() -> bool:
        outcome = copied.headstart("status")
        assert outcome.code == 0, outcome.out
        return bool(re.search(r"export ridge-keras +stale: a file of it is damaged or gone", outcome.out))

    def wrong() -> list[str]:
        outcome = copied.headstart("verify")
        assert "Traceback" not in outcome.out and "unexpected" not in outcome.out, outcome.out
        return re.findall(r"damaged: .*/export/ridge-keras/(\S+): expected a file of an export", outcome.out)

    assert not stale() and wrong() == []
    lacking = [{name: value for name, value in told.items() if name != each} for each in ("key", "head", "files")]
    for bad in ({}, [], {"files": {}}, *lacking, told | {"files": ["model.keras"]}, told | {"min_accuracy": "x"}):
        about.write_text(json.dumps(bad))
        assert stale() and wrong() == ["model.json"]
    about.write_text(json.dumps({name: value for name, value in told.items() if name != "bytes"}))
    assert not stale() and wrong() == []
    about.write_text(json.dumps(told))
    model.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert wrong() == ["model.keras"]
    for damage in (lambda: model.write_bytes(b"x"), model.unlink):
        damage()
        assert stale() and wrong() == ["model.keras"]
    outcome = copied.headstart("export", "ridge", "--to", "keras")
    assert outcome.code == 0 and "up to date" not in outcome.out and not stale() and wrong() == []


@pytest.mark.parametrize("at", MOMENTS)
def test_a_kill_while_it_is_written_leaves_no_half_export(copied: Project, at: str) -> None:
    """SIGKILL when the first of its files was written and is to be synced, or when the whole folder is to take its place."""
    export = ("export", "ridge", "--to", "keras")
    folder = copied.artifacts / "export" / "ridge-keras"
    others = {path.name for path in folder.parent.glob("*")}  # of tests before this one
    assert copied.headstart(*export).code == 0
    copied.edit('"RidgeClassifierCV"', '"RidgeClassifier"')
    assert copied.headstart("heads").code == 0
    name, where = MOMENTS[at]
    code = (
        f"import os, signal\nfrom pipeline.cli import main\nreal = os.{name}\n"
        f"def hit(*a):\n    if {where}.endswith('ridge-keras'): os.kill(os.getpid(), signal.SIGKILL)\n    return real(*a)\n"
        f"os.{name} = hit\nmain()"
    )
    killed = Forked(copied.folder, *export, code=code)
    out = killed.communicate()[0]
    assert killed.returncode == -signal.SIGKILL, out
    assert list(folder.parent.glob(f"{TEMPORARY_PREFIX}*")), "it was killed before it wrote anything"
    assert folder.exists() == (name == "fsync")  # the one before stands until the new one is whole
    assert not re.search("export ridge-keras +up to date", copied.headstart("status").out)
    outcome = copied.headstart(*export)
    assert outcome.code == 0 and "up to date" not in outcome.out, outcome.out
    assert copied.headstart("verify").code == 0 and "export: up to date" in copied.headstart(*export).out
    assert {path.name for path in folder.parent.iterdir()} == {".lock", "ridge-keras"} | others


def test_without_the_images_it_is_exported_and_not_compared(copied: Project) -> None:
    shutil.rmtree(copied.photos)
    outcome = copied.headstart("export", "ridge", "--to", "keras")
    assert outcome.code == 0 and "not compared" in outcome.out, outcome.out
    card = (copied.artifacts / "export" / "ridge-keras" / "README.md").read_text()
    assert "so it was not compared" in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ridge", "--to", "torch"], "--to: expected one of keras, saved_model, litert, onnx, openvino, found 'torch'"),
        (["ridge", "--to", "keras", "--precision", "int8"], "keras is written in float32, found 'int8'; litert, onnx, openvino have it"),
        (["nobody", "--to", "keras"], "no head 'nobody'"),
    ],
    ids=["format", "precision", "head"],
)  # fmt: skip
def test_what_cannot_be_exported_is_one_line(project: Project, arguments: list[str], message: str) -> None:
    assert message in failed(project.headstart("export", *arguments))


def test_a_baseline_that_has_no_form_as_layers_names_those_that_have(project: Project) -> None:
    for name, what in (("knn", "KNeighborsClassifier"), ("svm", "SVC")):
        line = failed(project.headstart("export", name, "--to", "keras"))
        assert "LogisticRegression, " in line and f"found {what}, which has no form as layers" in line
        assert not (project.artifacts / "export" / f"{name}-keras").exists()


def test_a_folder_is_whole_or_as_it_was(tmp_path: Path) -> None:
    home = tmp_path / "model"
    with atomic_folder(home) as new:
        (new / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(home) as new:
        (new / "a").write_text("2")
        raise RuntimeError
    assert (home / "a").read_text() == "1"
    with atomic_folder(home) as new:
        (new / "b").mkdir()
    assert [path.name for path in home.iterdir()] == ["b"] and [path.name for path in tmp_path.iterdir()] == ["model"]
    killed = (
        tmp_path / f"{TEMPORARY_PREFIX}99999999-0-model"
    )  # as a run leaves it that was killed; the next one removes it
    killed.mkdir()
    (killed / "a").write_text("half")
    remove_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
