"""headstart as a user meets it: first run, first mistake, predictions."""

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import HEADSTART, ROOT, Project, write_image, write_photos

from cache import FeatureStore, Manifest
from cache.errors import HeadstartError
from stages.heads.metrics import CALIBRATED

DENSE = '[heads.dense]\nkind = "dense"\nunits = [8]\nepochs = 3\nlearning_rate = 1e-3\n'


def only_line(outcome: object) -> str:
    """The one line of an error, without a traceback."""
    lines = [line for line in outcome.out.splitlines() if line.startswith("headstart: ")]  # type: ignore[attr-defined]
    assert outcome.code == 1 and len(lines) == 1 and "Traceback" not in outcome.out, outcome.out  # type: ignore[attr-defined]
    return lines[0]


def test_errors_are_one_line_and_debug_shows_where(empty: Callable[[], Project]) -> None:
    project = empty()
    assert "photos: expected a folder of images, found nothing; set data.root" in only_line(
        project.headstart("features")
    )
    assert "Traceback" in project.headstart("features", "--debug").out
    assert "no such configuration" in only_line(project.headstart("status", "--config", "other.toml"))


def test_commands_in_the_wrong_order_say_which_comes_first(empty: Callable[[], Project]) -> None:
    project = empty()
    write_photos(project.photos, {"cat": 20, "dog": 20})
    assert "40 images never extracted with this base; run `make features`" in only_line(project.headstart("heads"))
    assert "head 'logreg' is not up to date: never trained; run `make heads`" in only_line(project.headstart("report"))
    assert "no head is trained for this configuration; run `make heads`" in only_line(
        project.headstart("predict", "photos")
    )


def test_a_misspelt_estimator_is_found_before_anything_is_extracted(empty: Callable[[], Project]) -> None:
    project = empty()
    write_photos(project.photos, {"cat": 20, "dog": 20})
    project.edit("LogisticRegression", "LogisticRegresion")
    outcome = project.headstart("features")
    assert "[heads.logreg] estimator 'LogisticRegresion'" in only_line(outcome)
    assert not (project.artifacts / "features").exists()


def test_unknown_head_names_the_nearest(project: Project) -> None:
    assert "no head 'logre' (did you mean 'logreg'?)" in only_line(project.headstart("heads", "logre"))


def test_bad_images_are_skipped_named_and_tried_again_when_they_change(project: Project) -> None:
    bad = project.photos / "cat" / "bad.jpg"
    bad.write_bytes(b"not an image at all")
    outcome = project.make("report")
    assert outcome.code == 0 and outcome.extracted == 0
    assert "skipped: cat/bad.jpg: not an image that can be read" in outcome.out
    assert outcome.trained == []  # it is no training image, so nothing changed for the heads
    assert "cat/bad.jpg" in (project.artifacts / "report" / "index.html").read_text()
    assert "skipped: cat/bad.jpg" in project.headstart("status").out
    assert "bad.jpg" not in project.headstart("features").out.replace("skipped: cat/bad.jpg", "")
    write_image(bad, 99)
    outcome = project.make("report")
    assert outcome.extracted == 1 and outcome.trained == ["logreg", "ridge"]


def test_a_folder_of_bad_images_alone_is_an_error(empty: Callable[[], Project]) -> None:
    project = empty()
    for i in range(40):
        path = project.photos / ("cat" if i % 2 else "dog") / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bad %d" % i)
    assert "expected images, found 40 that cannot be used; the first is cat/1.jpg: not an image" in only_line(
        project.headstart("features")
    )


def test_features_are_stored_as_the_readme_says(project: Project) -> None:
    folder = next((project.artifacts / "features").iterdir())
    assert folder.name.startswith("vgg16-block5_pool-32-")
    spec = json.loads((folder / "spec.json").read_text())
    assert spec["base"] == "VGG16" and spec["preprocess"] == "caffe"
    store = FeatureStore(folder)
    assert len(store.shards()) == 3  # 40 images in shards of 16
    assert store.read(store.digests()).shape == (40, 1, 1, 512)


def test_a_head_leaves_behind_what_it_should(project: Project) -> None:
    project.config.write_text(project.config.read_text() + DENSE)
    outcome = project.make("heads")
    assert outcome.trained == ["dense"], outcome.out
    folder = project.artifacts / "heads" / "dense"
    assert {p.name for p in folder.iterdir()} == {"model.keras", "result.json", "history.csv", "predictions.csv"}
    assert (project.artifacts / "heads" / "ridge" / "model.skops").exists()
    result = json.loads((folder / "result.json").read_text())
    assert result.keys() >= {"head", "kind", "key", "seed", "seconds", "versions", "metrics"}
    assert result["metrics"].keys() == {"train", "validation", "test"}
    assert result["metrics"]["test"].keys() >= {"accuracy", "balanced_accuracy", "log_loss", "per_class"}
    assert result["metrics"]["test"]["per_class"]["cat"].keys() >= {"precision", "recall", "f1", "support"}
    for split in ("validation", "test"):
        found = result["metrics"][split]
        for score in ("accuracy", "auc", "balanced_accuracy", "macro_f1", "log_loss", "brier", "calibration_error"):
            if interval := found[f"{score}_interval"]:  # too few images give none
                assert interval[0] <= found[score] <= interval[1], (split, score)
        assert found["accuracy_interval"] and found["log_loss_interval"] is None
        assert found["calibrated"].keys() == {name for name in found if name.startswith(CALIBRATED)}
    calibrated = result["metrics"]["validation"]["calibrated"]["log_loss"]
    assert result["temperature"] > 0 and calibrated <= result["metrics"]["validation"]["log_loss"] + 1e-6
    with open(folder / "history.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    with open(folder / "predictions.csv") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == 40

    # The model is an ordinary Keras model of the features, and predicts what its files say.
    manifest = Manifest.load(project.artifacts / "manifest.json")
    store = FeatureStore(next((project.artifacts / "features").iterdir()))
    model = keras.saving.load_model(folder / "model.keras", safe_mode=True)
    p = model.predict(store.read(r.sha256 for r in manifest.records), verbose=0)[:, 0]
    np.testing.assert_allclose(p, [float(rows[r.path]["uncalibrated_dog"]) for r in manifest.records], atol=2e-6)
    test = [r for r in manifest.records if r.split == "test"]
    correct = [rows[r.path]["predicted"] == r.label == rows[r.path]["true"] for r in test]
    assert result["metrics"]["test"]["accuracy"] == pytest.approx(np.mean(correct))


def test_predict_files_and_folders_with_the_best_head_or_one_by_name(project: Project, tmp_path: Path) -> None:
    new = write_image(tmp_path / "new" / "x.jpg", 50)
    (tmp_path / "new" / "bad.png").write_bytes(b"")
    cached = project.photos / "dog" / "dog3.png"
    outcome = project.headstart("predict", str(new.parent), str(cached), "--head", "ridge")
    assert outcome.code == 1, outcome.out  # one of them could not be read
    lines = outcome.out.splitlines()
    assert "head: ridge (validation accuracy" in outcome.out
    assert any(line.startswith(f"{tmp_path}/new/bad.png: skipped: the file is empty") for line in lines)
    assert any(line.startswith(f"{tmp_path}/new/x.jpg: ") and "cat 0." in line and "dog 0." in line for line in lines)
    assert any(line.startswith(f"{cached}: dog (dog ") for line in lines)


def test_predict_on_cached_images_needs_no_base(project: Project) -> None:
    outcome = project.headstart("predict", "photos/cat", env={"KERAS_BACKEND": "no such backend"})
    assert outcome.code == 0, outcome.out
    assert outcome.out.count(": cat (") + outcome.out.count(": dog (") == 20


def test_predictions_as_a_submission_to_the_cats_and_dogs_competition(empty: Callable[[], Project]) -> None:
    project = empty()
    write_photos(project.folder / "staging", {"cat": 20, "dog": 20})
    (project.photos / "train").mkdir(parents=True)
    for i, path in enumerate(sorted((project.folder / "staging").rglob("*.png"))):
        shutil.move(path, project.photos / "train" / f"{path.parent.name}.{i}.png")
    for i in (10, 2, 1):
        write_image(project.photos / "test1" / f"{i}.jpg", i)
    outcome = project.make("heads")
    assert "layout 'names'" in outcome.out and "3 images without a label" in outcome.out
    outcome = project.headstart("predict", "--csv", "out.csv", "--head", "logreg")
    assert outcome.code == 0, outcome.out
    with open(project.folder / "out.csv") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "label"] and [row[0] for row in rows[1:]] == ["1", "2", "10"]
    assert all(0 <= float(row[1]) <= 1 for row in rows[1:])


def test_predicted_probabilities_are_calibrated_by_the_heads_temperature(project: Project) -> None:
    folder = project.artifacts / "heads" / "ridge"
    temperature = json.loads((folder / "result.json").read_text())["temperature"]
    assert abs(temperature - 1) > 0.1
    assert project.headstart("predict", "photos", "--csv", "out.csv", "--head", "ridge").code == 0
    with open(folder / "predictions.csv") as file:
        trained = {Path(row["path"]).stem: row for row in csv.DictReader(file)}
    with open(project.folder / "out.csv") as file:
        predicted = {row["id"]: float(row["label"]) for row in csv.DictReader(file)}
    assert predicted.keys() == trained.keys()
    for name, row in trained.items():
        assert predicted[name] == pytest.approx(float(row["p_dog"]), abs=2e-6)
        p = float(row["uncalibrated_dog"])
        expected = 1 / (1 + ((1 - p) / p) ** (1 / temperature))
        assert predicted[name] == pytest.approx(expected, abs=2e-5)


def test_predict_says_what_is_wrong(project: Project) -> None:
    assert "nothing.jpg: expected an image or a folder of images, found nothing" in only_line(
        project.headstart("predict", "nothing.jpg")
    )
    assert "expected image files or folders to predict, found none" in only_line(project.headstart("predict"))
    project.edit("input_size = 32", "input_size = 40")
    assert "no head is trained for this configuration" in only_line(project.headstart("predict", "photos"))
    assert "was trained with another configuration: the base changed" in only_line(
        project.headstart("predict", "photos", "--head", "ridge")
    )


def test_several_bases_in_one_report(project: Project) -> None:
    text = project.config.read_text()
    base = text[text.index("[base]") : text.index("[cache]")]
    other = base.replace("[base]", "[bases.wide]").replace("input_size = 32", "input_size = 40")
    text = text.replace(base, base.replace("[base]", "[bases.small]") + other)
    project.config.write_text(text.replace('kind = "sklearn"', 'kind = "sklearn"\nbase = ["small", "wide"]'))
    outcome = project.make("report")
    assert outcome.code == 0, outcome.out
    assert outcome.extracted == 40  # the small base is cached
    assert outcome.trained == ["logreg@small", "logreg@wide", "ridge@small", "ridge@wide"]
    page = (project.artifacts / "report" / "index.html").read_text()
    assert "logreg@wide" in page


def test_every_error_of_ours_is_a_headstart_error() -> None:
    import cache.errors

    kinds = [kind for kind in vars(cache.errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, HeadstartError) for kind in kinds)


def test_a_misspelt_root_is_an_error_and_a_root_that_is_gone_is_not(project: Project) -> None:
    project.photos.rename(project.folder / "away")
    outcome = project.make("report")
    assert outcome.code == 0 and "the manifest of the last scan stands in" in outcome.out
    project.photos.mkdir()  # an empty mount point
    assert project.make("-q", "heads").code == 0
    project.edit('root = "photos"', 'root = "photso"')
    outcome = project.make("report")
    assert outcome.code != 0 and "photso: expected a folder of images, found nothing" in outcome.out
    assert "is of 'photos'" in outcome.out


def test_a_head_that_cannot_be_trained_does_not_keep_the_others_from_it(project: Project) -> None:
    project.config.write_text(
        project.config.read_text().replace(
            "[heads.logreg]", '[heads.nb]\nkind = "sklearn"\nestimator = "MultinomialNB"\n[heads.logreg]'
        )
        + '[heads.knn]\nkind = "sklearn"\nestimator = "KNeighborsClassifier"\nparams = { n_neighbors = 1000 }\n'
        + '[heads.svm]\nkind = "sklearn"\nestimator = "LinearSVC"\n'
    )
    outcome = project.headstart("heads")
    assert outcome.trained == ["svm"]
    assert "head 'nb': MultinomialNB: cannot be fitted: Negative values" in only_line(outcome)
    assert "failed: head 'knn': KNeighborsClassifier: cannot be fitted: Expected n_neighbors" in outcome.out


def test_one_of_twenty_heads_edited_is_the_one_that_is_trained(project: Project) -> None:
    more = "".join(
        f'[heads.h{i}]\nkind = "dense"\npool = "avg"\nunits = [4]\nepochs = 1\nseed = {i}\n' for i in range(18)
    )
    project.config.write_text(project.config.read_text() + more)
    outcome = project.make("heads")
    assert outcome.code == 0 and len(outcome.trained) == 18, outcome.out
    project.edit("epochs = 1\nseed = 7\n", "epochs = 2\nseed = 7\n")
    outcome = project.make("heads", cold=True)
    assert outcome.trained == ["h7"]
    assert re.search(r"heads: 1 trained of 20 in \d+\.\d s, of which loading TensorFlow took \d+\.\d s", outcome.out), (
        outcome.out
    )


def test_a_users_own_files_beside_a_head_survive(project: Project) -> None:
    notes = project.artifacts / "heads" / "ridge" / "notes.txt"
    notes.write_text("mine")
    project.edit('estimator = "RidgeClassifierCV"', 'estimator = "RidgeClassifier"')
    assert project.headstart("heads").trained == ["ridge"]
    assert notes.read_text() == "mine"


def test_a_renamed_file_keeps_its_head_and_shows_its_new_name(project: Project) -> None:
    for path in sorted(project.photos.glob("cat/*")):
        path.rename(path.with_name(f"renamed_{path.name}"))
    outcome = project.make("report")
    assert outcome.reported and outcome.trained == []
    page = (project.artifacts / "report" / "index.html").read_text()
    assert "the file is no longer there" not in page


def test_a_layer_that_is_misspelt_in_the_second_base_is_found_before_the_first_runs(project: Project) -> None:
    text = project.config.read_text()
    base = text[text.index("[base]") : text.index("[cache]")]
    other = base.replace("[base]", "[bases.b]").replace("input_size = 32", 'input_size = 40\nlayer = "block6_pool"')
    first = base.replace("[base]", "[bases.a]").replace("input_size = 32", "input_size = 48")
    project.config.write_text(text.replace(base, first + other))
    outcome = project.headstart("features")
    assert "layer 'block6_pool': VGG16 has no such layer" in only_line(outcome) and outcome.extracted == 0


def test_the_version_is_told() -> None:
    done = subprocess.run([*HEADSTART, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("headstart 0.")
