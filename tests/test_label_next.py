"""Which images to label next: unsure ones, unlike one another; and `headstart label-next`."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Project, failed, store_of, write_photos
from PIL import Image

from stages.search.labelling import NEIGHBOUR, near_distance, to_label


def directions(n: int, d: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_the_unsure_are_drawn_and_the_sure_are_not() -> None:
    p = np.full((200, 2), [0.999999, 0.000001])
    p[::10] = [0.55, 0.45]
    p[30] = [0.5, 0.5]
    found = to_label(p, directions(200, 16), 15, seed=0)
    assert found.chosen[0] == 30 and (found.chosen % 10 == 0).all() and len(set(found.chosen.tolist())) == 15
    assert to_label(p, directions(200, 16), 15, seed=0).chosen.tolist() == found.chosen.tolist()


def test_a_burst_of_near_copies_stands_there_once() -> None:
    different = directions(60, 32)
    burst = different[:1] + 0.02 * directions(300, 32, seed=1)
    unit = np.concatenate([different, burst / np.linalg.norm(burst, axis=1, keepdims=True)])
    p = np.full((len(unit), 3), 1 / 3)
    near = near_distance(directions(100, 32, seed=2))
    found = to_label(p, unit, 60, seed=0, near=near)
    assert sum(i == 0 or i >= 60 for i in found.chosen) == 1 and len(found.chosen) == 60 and found.copies == 300
    assert sum(i == 0 or i >= 60 for i in to_label(p, unit, 60, seed=0).chosen) > 1, "without the limit they come again"


def test_all_places_are_visited() -> None:
    """Two thousand images lie around twenty places, most of them around one: each place is drawn from."""
    places = directions(20, 64)
    of = np.concatenate([np.zeros(1620, int), np.repeat(np.arange(1, 20), 20)])
    unit = places[of] + 0.05 * directions(len(of), 64, seed=1)
    p = np.full((len(of), 2), 0.5)
    found = to_label(p, unit / np.linalg.norm(unit, axis=1, keepdims=True), 40, seed=0)
    assert set(of[found.chosen]) == set(range(20))


def test_too_few_images_have_no_usual_distance() -> None:
    assert near_distance(directions(NEIGHBOUR, 8)) == 0 < near_distance(directions(NEIGHBOUR + 1, 8))
    found = to_label(np.full((3, 2), 0.5), directions(3, 8), 10, seed=0)
    assert sorted(found.chosen.tolist()) == [0, 1, 2] and found.copies == 0


@pytest.fixture(scope="module")
def asked(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a folder of images beside its data: six different ones, copies of one, one with a label, and a bad one."""
    project = Project(tmp_path_factory.mktemp("next") / "project")
    shutil.copytree(built.folder, project.folder, symlinks=True)
    new = project.folder / "new"
    write_photos(new, {"a": 3, "b": 3}, first=500)
    with Image.open(new / "a" / "a0.png") as image:
        for i in range(5):
            pixels = np.asarray(image).copy()
            pixels[0, i] += 1
            Image.fromarray(pixels).save(new / f"copy{i}.png")
    shutil.copy(new / "b" / "b1.png", new / "same.png")
    shutil.copy(project.photos / "cat" / "cat1.png", new / "known.png")
    (new / "text.jpg").write_text("no image")
    return project


def test_a_list_is_written_and_the_features_are_kept(asked: Project, tmp_path: Path) -> None:
    before = len(store_of(asked))
    table, page = tmp_path / "next.csv", tmp_path / "next.html"
    done = asked.headstart(
        "label-next", "new", "--head", "logreg", "-k", "20", "--csv", str(table), "--page", str(page)
    )
    assert done.code == 1 and "text.jpg: skipped: " in done.out  # as predict does for a bad file
    assert "1 image has a label already, left out" in done.out and "1 image is a copy, left out" in done.out
    assert "the features of 11 images are extracted and kept" in done.out
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    names = [Path(row["path"]).name for row in rows]
    assert len(names) == len(set(names)) <= 6, "near-copies stand there once"
    assert sum(name.startswith("copy") or name == "a0.png" for name in names) <= 1
    for row in rows:
        assert float(row["margin"]) == pytest.approx(
            float(row["probability"]) - float(row["next_probability"]), abs=2e-6
        )
    assert float(rows[0]["margin"]) == min(float(row["margin"]) for row in rows)
    assert page.read_text().count("data:image/jpeg;base64,") == len(rows)
    assert len(store_of(asked)) == before + 11
    again = asked.headstart("label-next", "new", "--head", "logreg", "-k", "2")
    assert "extracted" not in again.out and "base: " not in again.out
    # Nothing that was up to date is stale by it, and an image that gets a label is not extracted again.
    assert asked.make("report", "-q").code == 0
    (asked.folder / "new" / "a" / "a1.png").rename(asked.photos / "cat" / "new.png")
    features = asked.headstart("features")
    assert features.code == 0 and features.extracted == 0 and "labels and names brought up to date in" in features.out
    assert asked.headstart("verify").code == 0


def test_what_cannot_be_asked_is_one_line(asked: Project) -> None:
    assert "expected images without a label, found none" in failed(asked.headstart("label-next"))
    assert "no head 'nope'" in failed(asked.headstart("label-next", "new", "--head", "nope"))
