"""What a trained head leaves behind of its scores: copies, calibrated predictions, looks at test, the score that ranks."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG, Project
from reports import make_data, train

from cache.files import seal
from cache.manifest import Manifest
from cache.store import FeatureStore
from stages.heads.calibration import cooled, log_probabilities
from stages.heads.dataset import Dataset
from stages.heads.looks import note_look
from stages.heads.looks import test_looks as looks_so_far
from stages.heads.results import best_on_validation, ranking, read_result
from stages.report.data import ReportData


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return make_data(tmp_path_factory.mktemp("scored"), ("train", "validation", "test"))


def test_predictions_have_the_probabilities_of_predict_and_those_before_the_temperature(data: ReportData) -> None:
    """They were those before the temperature, under the name of the others."""
    head = next(each for each in data.heads if each.name == "ridge")
    names, t = head.result["classes"], head.result["temperature"]
    assert t < 0.9
    with open(head.folder / "predictions.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    after = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows])
    before = np.array([[float(row[f"uncalibrated_{name}"]) for name in names] for row in rows])
    np.testing.assert_allclose(np.exp(cooled(log_probabilities(before), t)), after, atol=2e-4)
    assert np.abs(after - before).max() > 0.05


def test_copies_are_one_image(data: ReportData, tmp_path: Path) -> None:
    """They were counted as independent, so that intervals were too narrow."""
    manifest = data.manifest
    copied = [record for record in manifest.records if record.split == "test"]
    more = [record._replace(path=f"copy {i} {record.path}") for i in range(3) for record in copied]
    shutil.copytree(data.heads[0].folder.parents[1] / "features", tmp_path / "features")
    (tmp_path / "features" / "spec.json").unlink()  # it is of no base
    store = FeatureStore(tmp_path / "features")
    dataset = Dataset(replace(manifest, records=(*manifest.records, *more)), {"block5_pool": store})
    found = train(tmp_path, dataset, "logreg", "LogisticRegression").result["metrics"]["test"]
    expected = data.heads[0].result["metrics"]["test"]
    assert found["copies"] == 3 * len(copied) and found["n"] == expected["n"]
    assert found["accuracy_interval"] == expected["accuracy_interval"]


def test_looks_at_test_are_counted_once_for_each_head_and_anew_for_other_images(
    data: ReportData, tmp_path: Path
) -> None:
    manifest = data.manifest
    assert [note_look(tmp_path, manifest, key) for key in ("a", "b", "a", "c")] == [1, 2, 2, 3]
    assert looks_so_far(tmp_path, manifest) == 3
    others = replace(manifest, records=tuple(r for r in manifest.records if r.split != "test" or r.label == "cat"))
    assert looks_so_far(tmp_path, others) == 0 and note_look(tmp_path, others, "a") == 1
    none = replace(manifest, records=tuple(r for r in manifest.records if r.split != "test"))
    assert note_look(tmp_path, none, "a") == 0
    assert [head.result["test_looks"] for head in data.heads] == [1, 1, 1]  # each in a folder of its own here


def test_looks_go_on_where_most_test_images_are_the_same(data: ReportData, tmp_path: Path) -> None:
    """Two images that moved were enough to begin anew."""
    shutil.copytree(data.heads[0].folder.parent, tmp_path / "heads")
    test = [record for record in data.manifest.records if record.split == "test"]

    def moved(n: int) -> Manifest:
        """The first of the test images are of train by now."""
        there = {record.path for record in test[:n]}
        records = [r._replace(split="train") if r.path in there else r for r in data.manifest.records]
        return replace(data.manifest, records=tuple(records))

    before = looks_so_far(tmp_path / "heads", data.manifest)
    assert before == 1
    assert note_look(tmp_path / "heads", moved(2), "other") == looks_so_far(tmp_path / "heads", moved(2)) == before + 1
    assert note_look(tmp_path / "heads", moved(len(test) // 2), "another") == 1
    # One of the earlier heads, which is trained as it was, is known.
    (key,) = {head.result["key"] for head in data.heads}
    assert note_look(tmp_path / "heads", moved(1), key) == looks_so_far(tmp_path / "heads", moved(1)) == 1
    for folder in (tmp_path / "heads").glob("*/"):
        shutil.rmtree(folder)
    assert note_look(tmp_path / "heads", moved(3), "other") == 1


def test_the_score_that_ranks_is_the_one_that_was_asked_for() -> None:
    def result(name: str, **scores: float | None) -> dict[str, object]:
        return {"head": name, "metrics": {"validation": {"log_loss": 1.0, **scores}}}

    first = result("first", accuracy=0.9, auc=0.8, log_loss=0.5)
    second = result("second", accuracy=0.8, auc=0.9, log_loss=0.4)
    old = result("old", accuracy=0.7)
    for metric, expected in (("accuracy", "first"), ("auc", "second"), ("log_loss", "second")):
        assert best_on_validation([old, first, second], metric)["head"] == expected
    assert sorted([old, first], key=lambda each: ranking(each, "auc")) == [first, old]


def test_another_score_ranks_without_training(project: Project) -> None:
    result = read_result(project.artifacts / "heads" / "ridge")
    for metric, problem in (
        ("brier", "should be 'accuracy'"),
        ("top5_accuracy", "needs more than five classes, found 2"),
    ):
        project.create(CONFIG + f'[report]\nmetric = "{metric}"\n')
        assert problem in project.headstart("status").out
    project.create(CONFIG + '[report]\nmetric = "log_loss"\n')
    status = project.headstart("status").out
    assert "heads are ranked by another score" in status
    assert f"validation log loss {result['metrics']['validation']['log_loss']:.3f}" in status
    outcome = project.make("report")
    assert (outcome.extracted, outcome.trained, outcome.reported) == (0, [], True), outcome.out
    assert "ranked by log_loss" in outcome.out and read_result(project.artifacts / "heads" / "ridge") == result
    assert project.make("-q", "report").code == 0


def test_the_leaderboard_shows_the_intervals_of_today(project: Project) -> None:
    """It printed those that an earlier version had stored, beside those of this one."""
    board = project.headstart("leaderboard").out.splitlines()[1:]
    path = project.artifacts / "heads" / "ridge" / "result.json"
    result = read_result(path.parent)
    assert result is not None
    del result["scoring"]
    for metrics in result["metrics"].values():
        metrics["accuracy_interval"] = [0.0, 1.0]
    path.write_text(seal(json.dumps(result)))
    assert project.headstart("leaderboard").out.splitlines()[1:] == board
    (path.parent / "predictions.csv").write_text("path,split\n")
    outcome = project.headstart("leaderboard")
    assert outcome.code == 1 and "expected the predictions of a head, found a damaged file" in outcome.out
