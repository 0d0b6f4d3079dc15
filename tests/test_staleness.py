"""The staleness table, row by row, through real make: what changed → images extracted, heads trained, report written."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import Project, write_image

ALL = ["logreg", "ridge"]


def table(project: Project) -> tuple[int, list[str], bool]:
    outcome = project.make("report")
    assert outcome.code == 0, outcome.out
    return outcome.extracted, outcome.trained, outcome.reported


def reasons(project: Project) -> str:
    outcome = project.make("status")
    assert outcome.code == 0, outcome.out
    return outcome.out


def split_of(project: Project, path: str) -> str:
    import json

    manifest = json.loads((project.artifacts / "manifest.json").read_text())
    return str(manifest["split"][manifest["path"].index(path)])


def a_training_image(project: Project, label: str) -> Path:
    return next(
        p for p in sorted(project.photos.glob(f"{label}/*")) if split_of(project, f"{label}/{p.name}") == "train"
    )


def up_to_date(project: Project) -> bool:
    """-q says so, -n runs nothing, and make itself finds nothing to do."""
    quiet, dry = project.make("-q", "report"), project.make("-n", "report")
    assert (quiet.code == 0) == ("headstart" not in dry.out), dry.out
    return quiet.code == 0


def test_nothing(project: Project) -> None:
    assert up_to_date(project)
    assert table(project) == (0, [], False)
    assert "stale" not in reasons(project)


def test_touch_on_every_image(project: Project) -> None:
    for image in project.photos.rglob("*.png"):
        image.touch()
    assert up_to_date(project)
    assert table(project) == (0, [], False)


def test_a_copy_with_other_times(project: Project) -> None:
    for i, path in enumerate(sorted(project.artifacts.rglob("*"))):
        os.utime(path, (1_000_000_000 - 1000 * i, 1_000_000_000 - 1000 * i))
    assert up_to_date(project)
    assert table(project) == (0, [], False)


def test_images_added(project: Project) -> None:
    for i in range(3):
        write_image(project.photos / "cat" / f"new{i}.jpg", 1000 + i)
    assert "3 images added" in reasons(project)
    assert not up_to_date(project)
    assert table(project) == (3, ALL, True)
    assert up_to_date(project)


def test_images_deleted(project: Project) -> None:
    a_training_image(project, "cat").unlink()
    assert "1 image deleted" in reasons(project)
    assert table(project) == (0, ALL, True)
    assert up_to_date(project)


def test_a_file_renamed_in_its_class(project: Project) -> None:
    image = a_training_image(project, "dog")
    image.rename(image.with_name("renamed.png"))
    assert table(project) == (0, [], True)
    assert up_to_date(project)


@pytest.mark.parametrize("name", [None, "moved.png"], ids=["without a rename", "with a rename"])
def test_an_image_moved_to_another_class(project: Project, name: str | None) -> None:
    image = a_training_image(project, "dog")
    copy = image.with_name("copy.png")
    copy.write_bytes(image.read_bytes())
    assert table(project) == (0, ALL, True)
    for path in (image, copy):
        path.rename(project.photos / "cat" / ((name and f"{path.stem}-{name}") or path.name))
    assert "labels or names changed" in reasons(project) and "2 images relabelled" in reasons(project)
    assert "added" not in reasons(project) and "deleted" not in reasons(project)
    assert table(project) == (0, ALL, True)
    assert up_to_date(project)


def test_an_image_moved_to_another_split(project: Project) -> None:
    labels = ["filename,label,split"]
    for image in sorted(project.photos.rglob("*.png")):
        path = f"{image.parent.name}/{image.name}"
        labels.append(f"{path},{image.parent.name},{split_of(project, path)}")
    (project.photos / "labels.csv").write_text("\n".join(labels))
    assert table(project) == (0, [], True)  # another layout that says the same
    first = next(i for i, line in enumerate(labels) if line.endswith("train"))
    labels[first] = labels[first].replace("train", "validation")
    (project.photos / "labels.csv").write_text("\n".join(labels))
    assert "1 image moved to another split" in reasons(project)
    assert table(project) == (0, ALL, True)


def test_an_images_content_changed(project: Project) -> None:
    write_image(a_training_image(project, "cat"), 2000)
    assert "1 image changed" in reasons(project)
    assert table(project) == (1, ALL, True)
    assert up_to_date(project)


def test_labels_corrected(project: Project) -> None:
    image = a_training_image(project, "dog")
    other = next(
        path for path in sorted(project.photos.glob("cat/*")) if split_of(project, f"cat/{path.name}") == "test"
    )
    corrections = project.folder / "corrections.csv"
    corrections.write_text(f"path,label\ndog/{image.name},cat\n")
    project.edit("seed = 1", 'seed = 1\ncorrections = "corrections.csv"')
    assert "1 image relabelled" in reasons(project) and not up_to_date(project)
    assert table(project) == (0, ALL, True)
    assert up_to_date(project)
    corrections.write_text(f"path,label\ndog/{image.name},cat\ncat/{other.name},drop\n")
    assert "1 image deleted" in reasons(project)
    assert "corrections.csv: 1 label corrected, 1 image dropped" in reasons(project)
    assert f"skipped: cat/{other.name}: dropped by corrections.csv" in reasons(project)
    assert (
        "1 row of images that are gone or have no label (" in project.headstart("prune").out
    )  # a dropped image hides no others
    assert table(project) == (0, ALL, True)
    corrections.write_text(f"path,label\ncat/{other.name},drop\ndog/{image.name},cat\n")
    assert table(project) == (0, [], False)  # another order of lines that says the same
    assert up_to_date(project)


def test_images_grouped(project: Project) -> None:
    groups = project.folder / "groups.csv"
    groups.write_text("filename,group\ncat/cat0.png,0\ncat/cat1.png,0\n")
    project.edit("seed = 1", 'seed = 1\ngroup = "groups.csv"')
    assert "groups: 2 images in 1 group, 38 in none" in reasons(project)
    assert table(project) == (0, ALL, True)
    assert up_to_date(project)
    shutil.rmtree(project.photos)
    assert up_to_date(project)
    project.edit('\ngroup = "groups.csv"', "")
    assert table(project) == (0, ALL, True)


def test_one_head_edited(project: Project) -> None:
    project.edit('estimator = "LogisticRegression"', 'estimator = "LogisticRegression"\nparams = { C = 0.5 }')
    assert 'params {} → {"C": 0.5}' in reasons(project)
    assert table(project) == (0, ["logreg"], True)
    assert up_to_date(project)
    # Fields that the kind of before did not have are no edits.
    project.edit('kind = "sklearn"\nestimator = "RidgeClassifierCV"', 'kind = "dense"\nunits = []')
    assert 'stale: kind "sklearn" → "dense"\n' in project.headstart("status").out


def test_one_head_added(project: Project) -> None:
    project.config.write_text(
        project.config.read_text() + '[heads.knn]\nkind="sklearn"\nestimator="KNeighborsClassifier"\n'
    )
    assert table(project) == (0, ["knn"], True)
    assert up_to_date(project)


def test_a_head_removed(project: Project) -> None:
    text = project.config.read_text()
    project.config.write_text(text[: text.index("[heads.ridge]")])
    assert "head ridge was removed" in reasons(project)
    assert table(project) == (0, [], True)
    assert up_to_date(project)


def test_the_base_changed_and_changed_back(project: Project) -> None:
    project.edit("input_size = 32", "input_size = 40")
    assert "the base changed" in reasons(project)
    assert table(project) == (40, ALL, True)
    assert len(list((project.artifacts / "features").iterdir())) == 2
    project.edit("input_size = 40", "input_size = 32")
    assert table(project) == (0, ALL, True)
    assert up_to_date(project)


def test_the_image_folder_is_gone(project: Project) -> None:
    shutil.rmtree(project.photos)
    assert up_to_date(project)
    assert table(project) == (0, [], False)
    project.edit('estimator = "RidgeClassifierCV"', 'estimator = "RidgeClassifier"')
    assert table(project) == (0, ["ridge"], True)


def test_images_that_come_back_are_shown_again(project: Project) -> None:
    project.photos.rename(project.folder / "away")
    project.edit('estimator = "RidgeClassifierCV"', 'estimator = "RidgeClassifier"')
    assert table(project) == (0, ["ridge"], True)
    (project.folder / "away").rename(project.photos)
    assert "the images are here again" in reasons(project)
    assert table(project) == (0, [], True)
    assert up_to_date(project)


def test_the_image_folder_is_gone_and_images_are_to_be_extracted(project: Project) -> None:
    shutil.rmtree(project.photos)
    project.edit("input_size = 32", "input_size = 48")
    outcome = project.make("features")
    assert outcome.code != 0
    assert "but the folder is not here" in outcome.out


def test_a_fresh_clone_with_the_artifacts_alone(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "elsewhere").create(project.config.read_text())
    shutil.copytree(project.artifacts, other.artifacts, copy_function=shutil.copyfile)
    assert table(other) == (0, [], False)


def test_a_result_that_was_deleted_is_made_again(project: Project) -> None:
    (project.artifacts / "heads" / "ridge" / "model.skops").unlink()
    assert "head ridge" in reasons(project)
    assert table(project) == (0, ["ridge"], True)


def test_dry_run_names_the_stale_head_alone(project: Project) -> None:
    project.edit('estimator = "RidgeClassifierCV"', 'estimator = "RidgeClassifier"')
    dry = project.make("-n", "report")
    line = next(line for line in dry.out.splitlines() if " heads " in line)
    assert line.endswith("ridge") and "logreg" not in line
    assert " features " not in dry.out
    assert table(project) == (0, ["ridge"], True)


FINETUNE = """
[heads.small]
kind = "dense"
units = [4]
epochs = 2

[heads.tuned]
kind = "finetune"
head = "small"
from = "block5_conv3"
epochs = 1

[heads.scratch]
kind = "cnn"
input_size = 32
filters = [4]
units = []
epochs = 1
"""


def test_heads_beyond_frozen_features(project: Project) -> None:
    """A layer that is added is extracted alone; what is trained on it is stale with the head that it begins with, and on its own."""
    project.config.write_text(project.config.read_text() + FINETUNE)
    project.edit('name = "VGG16"', 'name = "VGG16"\nlayers = ["block5_conv2", "block5_pool"]')
    assert table(project) == (40, ["scratch", "small", "tuned"], True)
    assert up_to_date(project)
    project.edit("batch_size = 8", "batch_size = 8\n[views]\nseed = 1")  # which none of them uses
    assert up_to_date(project)
    project.edit('from = "block5_conv3"', "from = 1")
    assert 'from "block5_conv3" → 1' in reasons(project)
    project.edit("from = 1", 'from = "block5_conv3"\npatience = 1')
    assert table(project) == (0, ["tuned"], True)
    project.edit("units = [4]", "units = [5]")
    assert "head small is stale" in reasons(project)
    assert table(project) == (0, ["small", "tuned"], True)
    project.edit("filters = [4]", "filters = [5]")
    assert table(project) == (0, ["scratch"], True)
    assert up_to_date(project)
    shutil.rmtree(project.photos)
    assert up_to_date(project)
