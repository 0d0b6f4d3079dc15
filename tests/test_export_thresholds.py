"""The threshold of an export: below it, it answers nothing; and another one leaves the model as it is."""

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
from conftest import Project
from export_project import HEADS, export_project
from forked import Forked

from cache.files import TEMPORARY_PREFIX
from pipeline.commands.export import compared_words
from stages.export.spec import export_key


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose head is trained."""
    return export_project(tmp_path_factory.mktemp("export") / "project", {"logreg": HEADS["logreg"]}, 3)


@pytest.fixture
def copied(project: Project, tmp_path: Path) -> Project:
    shutil.copytree(project.folder, tmp_path / "project")
    return Project(tmp_path / "project")


def test_a_threshold_keeps_unsure_answers_back(copied: Project) -> None:
    assert copied.headstart("export", "logreg", "--to", "keras", "--min-accuracy", "0.3").code == 0
    about = json.loads((copied.artifacts / "export" / "logreg-keras" / "model.json").read_text())
    assert 0 < about["threshold"] < 1 and about["min_accuracy"] == 0.3


def test_only_another_threshold_leaves_the_model_as_it_is(copied: Project) -> None:
    """Whether it is set, another, or taken away: the folder is told anew in a moment, and is as if it had been exported so."""
    folder, export = copied.artifacts / "export" / "logreg-keras", ("export", "logreg", "--to", "keras")
    assert copied.headstart(*export, "--min-accuracy", "0.3").code == 0
    set_at_once = (folder / "model.json").read_text(), (folder / "README.md").read_text()
    written = (folder / "model.keras").stat()
    for more in ([], ["--min-accuracy", "0.35"], ["--min-accuracy", "0.3"]):
        outcome = copied.headstart(*export, *more)
        assert outcome.code == 0 and "the model is up to date, and its threshold was set anew" in outcome.out
        assert "up to date: " in copied.headstart(*export, *more).out
        assert re.search("export logreg-keras +up to date", copied.headstart("status").out)
    now = (folder / "model.keras").stat()
    assert (now.st_ino, now.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert ((folder / "model.json").read_text(), (folder / "README.md").read_text()) == set_at_once
    assert copied.headstart("verify").code == 0
    refused = copied.headstart(*export, "--min-accuracy", "0.9999")
    assert refused.code == 1 and (folder / "model.json").read_text() == set_at_once[0]


def test_a_threshold_is_set_again_and_again_on_the_model_of_an_earlier_version(copied: Project) -> None:
    """It noted no key of the model, and had one script; the first time, both become what they are today."""
    folder, export = copied.artifacts / "export" / "logreg-keras", ("export", "logreg", "--to", "keras")
    assert copied.headstart(*export).code == 0
    about = json.loads((folder / "model.json").read_text())
    del about["model_key"], about["files"]["photos.py"], about["bytes"]["photos.py"]
    (folder / "photos.py").unlink()
    (folder / "model.json").write_text(json.dumps(about))
    assert "up to date: " in copied.headstart(*export).out
    for at in ("0.3", "0.35"):
        assert (
            "the model is up to date, and its threshold was set anew"
            in copied.headstart(*export, "--min-accuracy", at).out
        )
        assert (folder / "photos.py").exists() and copied.headstart("verify").code == 0


def test_a_kill_while_a_threshold_is_set_leaves_no_card_of_another(copied: Project) -> None:
    """SIGKILL once the card is written anew, and before ``model.json`` is; the threshold from before is asked for again."""
    folder, export = copied.artifacts / "export" / "logreg-keras", ("export", "logreg", "--to", "keras")
    assert copied.headstart(*export).code == 0
    written, told = (folder / "model.keras").stat().st_ino, {path: path.read_text() for path in folder.glob("*.*[nd]")}
    assert {path.name for path in told} == {"model.json", "README.md"}
    code = (
        "import os, signal\nfrom pipeline.cli import main\nreal = os.replace\ncards = []\n"
        "def hit(a, b):\n    if cards: os.kill(os.getpid(), signal.SIGKILL)\n    real(a, b)\n"
        "    cards.extend([b] if str(b).endswith('README.md') else [])\n"
        "os.replace = hit\nmain()"
    )
    killed = Forked(copied.folder, *export, "--min-accuracy", "0.3", code=code)
    out = killed.communicate()[0]
    assert killed.returncode == -signal.SIGKILL, out
    assert (folder / "README.md").read_text() != told[folder / "README.md"]
    assert not re.search("export logreg-keras +up to date", copied.headstart("status").out)
    assert "the model is up to date, and its threshold was set anew" in copied.headstart(*export).out
    assert {path: path.read_text() for path in told} == told and (folder / "model.keras").stat().st_ino == written
    assert not list(folder.glob(f"{TEMPORARY_PREFIX}*"))


@pytest.mark.parametrize(
    ("changed", "said"), [(0, "no label is another"), (1, "1 label is another"), (2, "2 labels are others")]
)
def test_the_labels_that_are_others_are_counted_in_words(changed: int, said: str) -> None:
    found = {"images": 9, "largest_difference": 0.1, "labels_changed": changed, "right": 8, "right_before": 7}
    assert f"; {said}; 8 are right, and 7 before" in compared_words({"precision": "int8", "agreement": found})[0]


def test_another_precision_that_changes_many_labels_is_a_warning() -> None:
    found = {"images": 50, "largest_difference": 0.1, "right": 30, "right_before": 36}
    words = [compared_words({"precision": "int8", "agreement": {**found, "labels_changed": n}})[1:] for n in (5, 6)]
    assert words == [
        [],
        ["warning: int8 changes more than 10% of the labels; another format or precision may cost less"],
    ]


def test_exports_of_before_are_up_to_date_but_for_baselines_in_int8() -> None:
    """These had little left of most weights; the digests are those of that version."""

    def key(precision: str, **result: object) -> str:
        trained = {"key": "k", "files": {"predictions.csv": "p"}, **result}
        return export_key(trained, "litert", precision, None)

    whole = "3c297c00bbe740dac769918a996b632598e09cd90f179408a050dc0642e08e8c"
    int8 = "e03183aa558ded6fc1e47996bd85191d03a885a34b3b382737a2dc25864f89d1"
    assert key("float32", kind="dense") == key("float32", kind="sklearn") == whole
    assert key("int8", kind="dense") == key("int8", kind="ensemble", heads=[{"kind": "dense"}]) == int8
    again = {key("int8", kind="sklearn"), key("int8", kind="ensemble", heads=[{"kind": "dense"}, {"kind": "sklearn"}])}
    assert int8 not in again
