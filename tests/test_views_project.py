"""Augmented views in a project: only training images have them, and what each change costs."""

import json
import os
import shutil
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from conftest import SMALL, Outcome, Project, write_image, write_photos
from forked import Forked, slowed
from pages import see

from cache import FeatureStore, Manifest
from cache.shard import read_info, read_shard, write_shard
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph

VIEWED = (
    SMALL.replace("batch_size = 8", "batch_size = 8\nviews = 2")
    + """
views = true

[heads.logview]
kind = "sklearn"
estimator = "LogisticRegression"
views = true

[views]
recipe = "mild"
"""
)
PLAIN = ["logreg", "ridge"]
ON_VIEWS = ["logview", "small"]


@pytest.fixture(scope="module")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("viewed") / "project").create(VIEWED)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    outcome = project.make("report")
    assert outcome.code == 0, outcome.out
    return project


@pytest.fixture
def project(viewed: Project, tmp_path: Path) -> Project:
    shutil.copytree(viewed.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def stores(project: Project) -> list[FeatureStore]:
    """Those of the views, in the order of their numbers."""
    return load_graph(load_config(project.config)).bases["base"].view_stores["block5_pool"]


def training(project: Project) -> set[str]:
    manifest = Manifest.load(project.artifacts / "manifest.json")
    return {record.sha256 for record in manifest.records if record.split == "train"}


def edit(project: Project, old: str, new: str) -> None:
    text = project.config.read_text()
    assert old in text
    project.config.write_text(text.replace(old, new))


def report(project: Project) -> Outcome:
    outcome = project.make("report")
    assert outcome.code == 0, outcome.out
    assert project.make("-q", "report").code == 0
    return outcome


def test_training_images_alone_have_views(project: Project) -> None:
    train = training(project)
    assert [set(store.digests()) for store in stores(project)] == [train, train]
    assert len(train) < 40
    assert report(project).extracted == 0


def test_a_view_differs_from_the_image_and_is_the_same_in_any_order_and_batch(project: Project) -> None:
    digests = sorted(training(project))
    before = [store.read(digests) for store in stores(project)]
    plain = FeatureStore(
        next(
            p
            for p in project.artifacts.glob("features/*")
            if json.loads((p / "spec.json").read_text())["view"] == "identity"
        )
    )
    for rows in before:
        assert (np.abs(rows - plain.read(digests)).max(axis=(1, 2, 3)) > 1e-3).mean() > 0.9
    assert np.abs(before[0] - before[1]).max() > 1e-3
    for store in stores(project):
        store.drop(digests[::2])
    edit(project, "batch_size = 8", "batch_size = 5")
    outcome = project.headstart("features")
    assert outcome.extracted == 2 * len(digests[::2]), outcome.out
    for store, rows in zip(stores(project), before, strict=True):
        np.testing.assert_allclose(store.read(digests), rows, rtol=2e-3, atol=2e-3)


def test_views_that_are_added_are_all_that_is_extracted(project: Project) -> None:
    edit(project, "views = 2", "views = 3")
    assert "view 3" in project.headstart("status").out
    plan = project.headstart("features", "--dry-run").out
    assert f"0 images to extract, and {len(training(project))} augmented views" in plan
    outcome = report(project)
    assert (outcome.extracted, outcome.trained) == (len(training(project)), ON_VIEWS)
    edit(project, "views = 3", "views = 2")  # what is there stays, and is not used
    assert report(project).extracted == 0
    assert (
        "rows" not in project.headstart("prune").out
        and "features of no configured base" in project.headstart("prune").out
    )


def test_another_recipe_costs_its_views_alone(project: Project) -> None:
    seeded, change = ('recipe = "mild"', 'recipe = "mild"\nseed = 5'), ('recipe = "mild"', 'recipe = "tutorial"')
    for one in (seeded, change):
        edit(project, *one)
        status = project.headstart("status").out
        assert f"views 1 to 2: {len(training(project))} images never extracted" in status
        assert "the base changed (VGG16, block5_pool, or its views)" in status
        if one == seeded:
            edit(project, *one[::-1])
    outcome = report(project)
    assert (outcome.extracted, outcome.trained) == (2 * len(training(project)), ON_VIEWS)
    edit(project, *change[::-1])
    again = report(project)
    assert (again.extracted, again.trained) == (0, ON_VIEWS)


def test_an_image_that_is_added_is_extracted_as_often_as_its_split_asks(project: Project) -> None:
    write_image(project.photos / "cat" / "new.png", 999)
    before = len(training(project))
    outcome = report(project)
    assert outcome.extracted == 1 + 2 * (len(training(project)) - before)
    assert outcome.trained == sorted(PLAIN + ON_VIEWS)


def test_a_head_that_comes_to_use_views_is_trained_anew(project: Project) -> None:
    edit(project, 'estimator = "RidgeClassifierCV"', 'estimator = "RidgeClassifierCV"\nviews = true')
    assert "views false → true" in project.headstart("status").out
    assert report(project).trained == ["ridge"]


def test_the_report_tells_apart_heads_with_and_without_views(project: Project) -> None:
    text = see(project.artifacts / "report" / "index.html").text
    assert "LogisticRegression() · averaged features · with augmented views" in text
    assert text.count("with augmented views") >= 2 and "frozen + views" in text
    assert "RidgeClassifierCV() · averaged features · with" not in text


def test_a_damaged_view_is_extracted_again(project: Project) -> None:
    path = stores(project)[0].shards()[0]
    path.write_bytes(path.read_bytes()[:-100])
    assert project.headstart("verify").code == 1
    outcome = report(project)
    assert 0 < outcome.extracted <= len(training(project)) and outcome.trained == []


def test_views_that_are_whole_and_wrong_are_found_by_computing_them_again(project: Project) -> None:
    outcome = project.headstart("verify", "--images")
    assert outcome.code == 0 and outcome.out.count(" rows computed again from the images") == 3, outcome.out
    first, second = stores(project)
    for path, other in zip(second.shards(), first.shards(), strict=True):
        table = read_shard(path)[1]
        assert read_shard(other)[1].sha256 == table.sha256
        write_shard(path, read_shard(other)[0].copy(), table, read_info(path))  # the rows of another view
    assert project.headstart("verify").code == 0
    outcome = project.headstart("verify", "--images")
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("wrong: ")]
    assert outcome.code == 1 and line.startswith("wrong: VGG16, block5_pool, view 2: ")


def test_views_that_come_out_differently_here_are_drift(project: Project) -> None:
    for store in stores(project):
        for path in store.shards():
            features, table = read_shard(path)
            write_shard(path, (features * 1.05).astype(features.dtype), table, read_info(path))
    write_photos(project.photos, {"cat": 6}, first=900)
    before = [len(store) for store in stores(project)]
    outcome = project.headstart("features")
    assert outcome.code == 1 and "differ from those stored (float32 on CPU, " in outcome.out, outcome.out
    assert "--allow-drift" in outcome.out and [len(store) for store in stores(project)] == before
    assert project.headstart("features", "--allow-drift").code == 0
    assert all(training(project) <= set(store.digests()) for store in stores(project))


def test_a_killed_extraction_of_views_goes_on_where_it_was(viewed: Project, tmp_path: Path) -> None:
    project = Project(tmp_path / "killed").create(VIEWED.replace("shard_images = 16", "shard_images = 8"))
    shutil.copytree(viewed.photos, project.photos)
    process = Forked(project.folder, "features", code=slowed(0.1))
    end = time.monotonic() + 100
    while len({path.parent for path in project.artifacts.glob("features/*/shard-*.h5")}) < 2:  # the second is of views
        assert time.monotonic() < end
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert sum(map(len, stores(project))) < 2 * len(training(viewed))
    outcome = project.headstart("features")
    assert outcome.code == 0 and outcome.extracted < 40 + 2 * len(training(viewed)), outcome.out
    digests = sorted(training(viewed))
    for found, expected in zip(stores(project), stores(viewed), strict=True):
        assert found.verify() == {} and sorted(found.digests()) == digests
        np.testing.assert_allclose(found.read(digests), expected.read(digests), rtol=2e-3, atol=2e-3)


def test_heads_on_views_need_a_base_with_some(project: Project) -> None:
    edit(project, "views = 2\n", "")
    outcome = project.headstart("status")
    assert outcome.code == 1
    assert "[heads.small] views: expected augmented views of the base 'base', found none; set views = 4" in outcome.out


def test_what_cannot_be_a_recipe_is_one_line(project: Project) -> None:
    edit(project, 'recipe = "mild"', 'recipe = "mild"\nrotate = 10')
    assert "[views] rotate: unknown field (did you mean 'rotation'?)" in project.headstart("status").out


def test_sweeps_vary_views_and_keep_an_image_and_its_views_in_one_fold(project: Project) -> None:
    project.config.write_text(
        project.config.read_text()
        + """
[sweeps.augmented]
head = "small"
cv = 2
grid = { views = [false, true], units = [[], [4]] }
[sweeps.linear]
head = "logview"
cv = 2
grid = { views = [false, true] }
"""
    )
    outcome = project.make("sweep", "report")
    assert outcome.code == 0, outcome.out
    assert "sweep augmented: 4 trials, best" in outcome.out and "views true" in outcome.out
    assert project.make("-q", "sweep", "report").code == 0
    edit(project, 'recipe = "mild"', 'recipe = "crop"')
    lines = [line.split() for line in project.headstart("status").out.splitlines() if "stale: the base changed" in line]
    assert [name for kind, name, *_ in lines if kind == "sweep"] == ["augmented", "linear"]


def test_predict_averages_over_views(project: Project) -> None:
    plain = project.headstart("predict", "photos/cat", "--head", "logreg")
    averaged = project.headstart("predict", "photos/cat", "--head", "logreg", "--views", "3")
    assert averaged.code == 0 and "the base computes 4 times as much" in averaged.out
    lines = [out.out.splitlines()[:20] for out in (plain, averaged)]
    assert len(lines[0]) == len(lines[1]) and lines[0] != lines[1]


def test_own_heads_draw_views(project: Project) -> None:
    (project.folder / "mine.py").write_text(
        "import keras\ndef build(shape, classes):\n    return [keras.layers.Flatten(), keras.layers.Dense(4)]\n"
    )
    project.config.write_text(
        project.config.read_text()
        + '\n[heads.mine]\nkind = "keras"\nbuild = "mine.py:build"\nepochs = 3\nviews = true\nrefit = true\n[heads.mixed]\nkind = "keras"\nbuild = "mine.py:build"\nepochs = 2\nviews = true\nmixup = 0.3\n'
    )
    outcome = report(project)
    assert outcome.trained == ["mine", "mixed"]
    model = keras.saving.load_model(project.artifacts / "heads" / "mixed" / "model.keras", safe_mode=True)
    assert model.output_shape == (None, 1)


def test_streamed_heads_draw_views(project: Project) -> None:
    edit(project, "shard_images = 16", 'shard_images = 16\nmemory = "1 kB"')
    edit(project, "learning_rate = 1e-2", "learning_rate = 2e-2")
    shutil.rmtree(project.artifacts / "heads" / "small")
    outcome = project.headstart("heads", "small")
    assert outcome.code == 0 and "they are streamed" in outcome.out, outcome.out
