"""The dog breeds of Kaggle from the folder to the submission, first with a part of the images."""

import csv
from collections.abc import Callable
from pathlib import Path

from conftest import CONFIG, Project, write_image
from test_ids import BREEDS, ident, write_dogs, write_sample


def test_a_trial_on_a_part_then_the_whole_and_a_submission(empty: Callable[[str], Project]) -> None:
    project = empty(CONFIG.replace("seed = 1", "seed = 1\nlimit = 0.5"))
    write_dogs(project.photos)
    tests = tuple(ident(1000 + i) for i in range(3))
    write_sample(project.photos, "id", *sorted(BREEDS, reverse=True), ids=tests)
    outcome = project.make("report")
    assert outcome.code == 0 and outcome.extracted == 30, outcome.out
    assert "data: 30 images in 3 classes, layout 'ids'" in outcome.out
    assert "data: 30 of 60 images, drawn by [data] limit" in outcome.out
    page = (project.artifacts / "report" / "index.html").read_text()
    assert page.count("30 of 60 images, drawn by [data] limit") == 2  # among the notices, and beside the data
    assert "nothing to remove" in project.headstart("prune").out

    project.edit("limit = 0.5", "limit = 45")
    outcome = project.make("report")
    assert outcome.extracted == 15 and outcome.trained == ["logreg", "ridge"], outcome.out
    project.edit("limit = 45", "per_class = 10")
    status = project.headstart("status").out
    assert "15 images not drawn or deleted" in status and "drawn by [data] per_class" in status, status
    outcome = project.make("report")
    assert outcome.extracted == 0 and outcome.trained == ["logreg", "ridge"], outcome.out
    # Rows of images that are here and were not drawn are kept: the next limit may draw them.
    assert "nothing to remove" in project.headstart("prune").out
    project.edit("per_class = 10", "")
    outcome = project.make("report")
    assert outcome.extracted == 15 and "drawn by" not in outcome.out, outcome.out

    outcome = project.headstart("predict", "--csv", "out.csv")
    assert outcome.code == 0 and "out.csv: 3 of 3 predictions written" in outcome.out, outcome.out
    with open(project.folder / "out.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", *sorted(BREEDS, reverse=True)] and [row[0] for row in rows] == sorted(tests)
    assert all(abs(sum(map(float, row[1:])) - 1) < 1e-6 for row in rows)

    write_image(project.folder / "more" / "new.png", 3)
    outcome = project.headstart("predict", "more", "--csv", "out.csv")
    assert "warning: 3 ids of sample_submission.csv missing" in outcome.out and outcome.code == 0
    sample = Path(project.photos / "sample_submission.csv")
    sample.write_text(sample.read_text().replace("chow", "chou"))
    outcome = project.headstart("predict", "--csv", "out.csv")
    assert outcome.code == 1 and "found 'chou' (did you mean 'chow'?); mend or remove it" in outcome.out


def test_a_part_travels(empty: Callable[[str], Project]) -> None:
    project = empty(CONFIG.replace("seed = 1", "seed = 1\nlimit = 30"))
    write_dogs(project.photos)
    assert project.make("report").code == 0
    project.photos.rename(project.folder / "elsewhere")
    outcome = project.make("report")
    assert outcome.code == 0 and (outcome.extracted, outcome.trained, outcome.reported) == (0, [], False), outcome.out
    assert "data: 30 of 60 images, drawn by [data] limit" in project.headstart("status").out
