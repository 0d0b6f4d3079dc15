"""The audit of a real project: when it runs, what the commands and make say, and its section of the report."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Project, write_image
from pages import see
from PIL import Image, ImageEnhance
from test_rooms import HEAVY

from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph


@pytest.fixture(scope="module")
def audited(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with an audit in its report."""
    folder = tmp_path_factory.mktemp("audited") / "project"
    shutil.copytree(built.folder, folder, symlinks=True)
    project = Project(folder)
    outcome = project.make("report", "audit")
    assert outcome.code == 0 and outcome.reported and "audit: 40 images in" in outcome.out, outcome.out
    assert outcome.out.index("audit: 40") < outcome.out.index("report: written")
    return project


@pytest.fixture
def project(audited: Project, tmp_path: Path) -> Project:
    shutil.copytree(audited.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def test_one_that_was_never_asked_for_is_nothing_to_do(built: Project) -> None:
    assert "audit" not in built.headstart("status").out
    assert built.make("-q", "report").code == 0
    assert "make audit" in see(built.artifacts / "report" / "index.html").text


def test_nothing_changed(project: Project) -> None:
    before = {path: path.read_bytes() for path in (project.artifacts / "audit").rglob("*.*")}
    assert project.make("-q", "audit", "report").code == 0 and project.make("-q", "report").code == 0
    outcome = project.headstart("audit")
    assert outcome.code == 0 and "audit: up to date" in outcome.out and "learning curve" in outcome.out, outcome.out
    assert {path: path.read_bytes() for path in (project.artifacts / "audit").rglob("*.*")} == before
    (line,) = [line for line in project.headstart("status").out.splitlines() if line.startswith("audit ")]
    assert "up to date" in line and "near-copies" in line


def test_an_up_to_date_audit_imports_nothing_heavy(project: Project) -> None:
    for arguments in (["audit"], ["status"], ["report"]):
        code = (
            "import sys\nfrom pipeline.cli import app\n"
            f"try:\n    app({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
            f"print('HEAVY', [name for name in {sorted(HEAVY | {'numpy', 'PIL'})!r} if name in sys.modules])"
        )
        environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=project.folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0 and "HEAVY []" in done.stdout, done.stderr + done.stdout


def test_an_audit_imports_no_keras(project: Project) -> None:
    shutil.rmtree(project.artifacts / "audit")
    code = (
        "import sys\nfrom pipeline.cli import app\n"
        "try:\n    app(['audit'])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('HEAVY', [name for name in ('keras', 'tensorflow', 'torch') if name in sys.modules])"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project.folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "HEAVY []" in done.stdout, done.stderr + done.stdout


def reasons(project: Project) -> tuple[str, ...]:
    (target,) = load_graph(load_config(project.config)).audits.values()
    return target.reasons


def test_what_makes_it_stale(project: Project) -> None:
    image = next(iter(sorted(project.photos.glob("cat/*"))))
    renamed = image.with_name("renamed.png")
    image.rename(renamed)
    assert reasons(project) == ("names of images changed",)
    outcome = project.make("audit", "report")
    assert outcome.code == 0 and (outcome.extracted, outcome.trained, outcome.reported) == (0, [], True), outcome.out
    assert reasons(project) == ()
    write_image(project.photos / "cat" / "new.png", 77)
    assert reasons(project) == ("images, labels or splits changed",)
    (project.photos / "cat" / "new.png").unlink()
    assert reasons(project) == ()
    project.edit("input_size = 32", "input_size = 48")
    assert "the base changed" in reasons(project)
    project.edit("input_size = 48", "input_size = 32")
    project.edit('estimator = "RidgeClassifierCV"', 'estimator = "RidgeClassifier"')
    assert reasons(project) == ()


def test_a_stale_audit_is_not_in_the_report(project: Project) -> None:
    write_image(project.photos / "cat" / "new.png", 77)
    outcome = project.make("report")
    assert outcome.code == 0 and outcome.reported
    page = see(project.artifacts / "report" / "index.html").text
    assert "The images were not audited as they are now" in page
    assert "stale: images, labels or splits changed" in project.headstart("status").out
    assert project.make("-q", "report").code == 0 and project.make("-q", "report", "audit").code == 1


def test_it_needs_features_and_travels_without_images(project: Project) -> None:
    shutil.rmtree(project.photos)
    assert project.headstart("audit").code == 0
    shutil.rmtree(project.artifacts / "audit")
    outcome = project.headstart("audit")
    assert outcome.code == 0 and "the images are not on this machine" in outcome.out, outcome.out
    shutil.rmtree(project.artifacts / "audit")
    shutil.rmtree(project.artifacts / "features")
    outcome = project.headstart("audit")
    assert outcome.code == 1 and "run `make features`" in outcome.out.splitlines()[-1], outcome.out


def test_another_base_and_one_that_there_is_not(project: Project) -> None:
    outcome = project.headstart("audit", "--base", "bas")
    assert outcome.code == 1 and "no base 'bas' in the configuration (did you mean 'base'?)" in outcome.out
    assert project.headstart("audit", "--base", "base").code == 0


def test_verify_and_prune_know_it(project: Project) -> None:
    assert project.headstart("verify").code == 0
    with open(project.artifacts / "audit" / "base" / "map.csv", "a") as file:
        file.write("more\n")
    outcome = project.headstart("verify")
    assert outcome.code == 1 and "map.csv: expected a file of an audit" in outcome.out, outcome.out
    (project.artifacts / "audit" / "base").rename(project.artifacts / "audit" / "gone")
    assert "an audit on no configured base" in project.headstart("prune").out
    assert project.headstart("prune", "--yes").code == 0
    assert not (project.artifacts / "audit" / "gone").exists()


def test_near_copies_of_real_images_are_named_and_shown(project: Project) -> None:
    """Photos of noise are alike to a random base, so that the images are made far apart here, and copies near."""
    for number in range(60):
        name = "cat" if number % 2 else "dog"
        picture = Image.open(write_image(project.photos / name / f"more{number}.png", 500 + number, (8, 7)))
        picture.resize((64, 56), Image.Resampling.NEAREST).save(project.photos / name / f"more{number}.png")
        if number < 12:
            copy = ImageEnhance.Brightness(Image.open(project.photos / name / f"more{number}.png")).enhance(1.02)
            copy.save(project.photos / name / f"again{number}.jpg", quality=95)
    outcome = project.make("audit", "report")
    assert outcome.code == 0, outcome.out
    assert "near-copies: " in outcome.out
    page = see(project.artifacts / "report" / "index.html")
    assert "again" in page.text and "Near-copies" in page.text
    outcome = project.headstart("audit", "--write", "groups.csv", "--write-corrections", "corrections.csv")
    assert outcome.code == 0, outcome.out
    lines = (project.folder / "groups.csv").read_text().splitlines()
    assert lines[0] == "filename,group" and all((project.photos / line.split(",")[0]).exists() for line in lines[1:])
    assert (project.folder / "corrections.csv").read_text().startswith("path,label")
