"""Ensembles as heads like the others, from configuration to prediction; and that what they hold stays sound."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Project, result, write_image, write_photos
from ensembles import ALL, CONFIG

from cache.errors import HeadError
from cache.files import read_sealed
from headstart import load_features, load_head
from pipeline.config.load import load_config
from stages.heads.ensemble import EnsembleHead, chosen_there


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """With every head trained and the report written. Copy it before changing anything."""
    project = Project(tmp_path_factory.mktemp("mixed") / "project").create(CONFIG)
    write_photos(project.photos, {"cat": 24, "dog": 24, "owl": 24})
    outcome = project.make("sweep", "report")
    assert outcome.code == 0, outcome.out
    assert outcome.trained == ALL, outcome.out
    assert "heads: 2 trials of sweep width trained for best" in outcome.out
    return project


@pytest.fixture
def mine(mixed: Project, tmp_path: Path) -> Project:
    shutil.copytree(mixed.folder, tmp_path / "project")
    return Project(tmp_path / "project")


def table(project: Project, *names: str) -> dict[str, dict[str, str]]:
    with open(project.artifacts.joinpath("heads", *names, "predictions.csv"), newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def status_of(project: Project, target: str) -> str:
    return next(line for line in project.headstart("status").out.splitlines() if line.startswith(f"{target} "))


def said(rows: dict[str, dict[str, str]], prefix: str) -> np.ndarray:
    return np.array([[float(row[f"{prefix}_{name}"]) for name in ("cat", "dog", "owl")] for row in rows.values()])


def test_it_says_the_weighted_mean_of_what_its_heads_say(mixed: Project) -> None:
    for name, heads in {"mix": [["small"], ["logreg@a"], ["logreg@b"]], "weighted": [["logreg@a"], ["ridge"]]}.items():
        told = result(mixed, "heads", name)
        weights = np.array([each["weight"] for each in told["heads"]])
        each = np.stack([said(table(mixed, *head), "p") for head in heads])
        assert np.abs(said(table(mixed, name), "uncalibrated") - np.tensordot(weights, each, 1)).max() < 2e-6
        assert [each["head"] for each in told["heads"]] == [head[0] for head in heads]
        assert weights.sum() == pytest.approx(1)
    assert result(mixed, "heads", "mix")["base"] == "a + b"
    assert result(mixed, "heads", "mix")["heads"][0]["weight"] == pytest.approx(1 / 3)


def test_it_is_a_head_like_the_others(mixed: Project) -> None:
    told = result(mixed, "heads", "mix")
    assert told["temperature"] > 0 and told["abstention"]["thresholds"] and told["test_looks"] > 0
    assert {"accuracy_interval", "calibrated", "auc"} <= told["metrics"]["test"].keys()
    assert "stale" not in mixed.headstart("status").out
    assert mixed.headstart("prune").out.startswith("prune: nothing to remove")
    assert mixed.headstart("verify").out.endswith("0 problems\n")
    page = (mixed.artifacts / "report" / "index.html").read_text()
    assert "mean of small, logreg@a and logreg@b" in page
    assert "mean of the 2 best trials of width" in page and "weights by validation" in page


def test_weights_that_validation_chose_are_said_to_be_too_good_there(mixed: Project) -> None:
    (warning,) = result(mixed, "heads", "weighted")["warnings"]
    assert "the 2 weights were chosen on" in warning and "too good: the log loss by " in warning
    assert result(mixed, "heads", "mix")["warnings"] == []
    assert chosen_there(3, 40, 0.0123).endswith("too good: the log loss by about 0.0123")
    # Where cross-fitting chooses the same weights, no difference is seen, which is not 0.0000.
    assert chosen_there(3, 16, 0.0).endswith("too good: the log loss by less than 0.0001")
    assert chosen_there(3, 1, 0.00005).endswith(
        "on 1 validation image, so the scores there are too good: the log loss by about 0.0001"
    )


def test_from_python_it_takes_the_features_of_each_layer(mixed: Project) -> None:
    head = load_head(mixed.config, "mix")
    assert isinstance(head, EnsembleHead)
    assert head.inputs_ == [("a", "block4_pool"), ("a", "block5_pool"), ("b", "block5_pool")]
    features = {each: load_features(mixed.config, "test", *each) for each in head.inputs_}
    X = {each: found.X for each, found in features.items()}
    rows = table(mixed, "mix")
    expected = said({path: rows[path] for path in features["b", "block5_pool"].paths}, "uncalibrated")
    assert np.abs(head.predict_proba(X) - expected).max() < 1e-5
    assert set(head.predict(X)) <= {"cat", "dog", "owl"}
    with pytest.raises(HeadError, match=r'a mapping with the keys \("a", "block4_pool"\), .* found one array'):
        head.predict(X["b", "block5_pool"])
    with pytest.raises(HeadError, match=r"expected the features of \('b', 'block5_pool'\), found those of"):
        head.predict({each: x for each, x in X.items() if each[0] == "a"})
    with pytest.raises(HeadError, match="made of heads that are trained already"):
        head.fit(X["b", "block5_pool"], np.zeros(1, np.int64), X["b", "block5_pool"], np.zeros(1, np.int64))


def test_on_one_layer_it_takes_an_array_as_any_head(mixed: Project) -> None:
    X, _, paths = load_features(mixed.config, "test", "a")
    rows = table(mixed, "weighted")
    expected = said({path: rows[path] for path in paths}, "uncalibrated")
    assert np.abs(load_head(mixed.config, "weighted").predict_proba(X) - expected).max() < 1e-5


def test_predict_gives_what_its_table_says_and_reads_new_images(mixed: Project, tmp_path: Path) -> None:
    known = mixed.photos / "owl" / "owl3.png"
    copy = Path(shutil.copy(known, tmp_path / "copy.png"))
    new = write_image(tmp_path / "new.jpg", 77)
    for name in ("mix", "best"):
        outcome = mixed.headstart("predict", "--head", name, str(copy), str(new), str(tmp_path / "none.png"))
        assert outcome.code == 1 and "expected an image" in outcome.out
        outcome = mixed.headstart("predict", "--head", name, str(copy), str(new))
        assert outcome.code == 0, outcome.out
        expected = table(mixed, name)["owl/owl3.png"]
        line = next(line for line in outcome.out.splitlines() if line.startswith(str(copy)))
        assert f"{expected['predicted']} (" in line
        assert all(f"{each} {float(expected[f'p_{each}']):.3f}" in line for each in ("cat", "dog", "owl"))
        assert any(line.startswith(str(new)) for line in outcome.out.splitlines())
    with_views = mixed.headstart("predict", "--head", "mix", "--views", "1", str(new))
    assert with_views.code == 0 and "means over each image and 1 view of it" in with_views.out, with_views.out


def test_a_head_that_changes_makes_its_ensembles_stale_and_is_trained_before_them(mine: Project) -> None:
    mine.edit('layers = ["block4_pool", "block5_pool"]\npool', 'layers = ["block5_pool"]\npool')
    assert "stale: head small is stale" in status_of(mine, "head mix") and "up to date" in status_of(
        mine, "head weighted"
    )
    assert mine.make("-q", "heads").code == 1
    assert (
        mine.headstart("predict", "--head", "mix", str(mine.photos))
        .out.strip()
        .endswith("was trained with another configuration: head small is stale; run `make heads`")
    )
    outcome = mine.headstart("heads", "small")
    assert outcome.trained == ["small"]
    assert "stale: head small was trained anew" in status_of(mine, "head mix")
    outcome = mine.headstart("heads", "mix")
    assert outcome.trained == ["mix"], outcome.out
    mine.edit("epochs = 4", "epochs = 3")
    outcome = mine.headstart("heads", "mix")
    assert outcome.trained == ["mix", "small"], outcome.out
    assert "heads: small first, as what is named needs it" in outcome.out
    assert outcome.out.index("trained: small") < outcome.out.index("trained: mix")


def test_the_best_of_a_sweep_follow_it(mine: Project) -> None:
    mine.edit("epochs = 4", "epochs = 3")
    assert "stale: sweep width is not up to date (head small changed)" in status_of(mine, "head best")
    outcome = mine.make("heads")
    assert (
        outcome.code == 1
        and "head 'best': sweep width is not up to date (head small changed); run `make sweep`" in outcome.out
    )
    assert outcome.trained == ["mix", "small"]  # the others go on
    outcome = mine.make("sweep", "report")
    assert outcome.code == 0 and outcome.trained == ["best", "width"], outcome.out
    assert mine.make("-q", "sweep", "report").code == 0


def test_a_change_of_images_makes_all_stale_at_once(mine: Project) -> None:
    write_image(mine.photos / "cat" / "new.png", 99)
    outcome = mine.make("sweep", "report")
    assert outcome.code == 0 and outcome.trained == ALL, outcome.out
    assert mine.make("-q", "sweep", "report").code == 0


def test_what_it_holds_stands_on_its_own(mine: Project) -> None:
    """Heads may go, and be trained to others with the same key: it has their files, and says that they are others."""
    shutil.rmtree(mine.artifacts / "heads" / "small")
    head = load_head(mine.artifacts / "heads" / "mix")
    assert [each["head"] for each in head.heads_] == ["small", "logreg@a", "logreg@b"]
    assert "stale: head small is stale" in status_of(mine, "head mix")
    other = mine.artifacts / "heads" / "ridge" / "predictions.csv"
    told = read_sealed(other.parent / "result.json", "a head")
    told["files"]["predictions.csv"] = "0" * 64
    from cache.files import seal

    (other.parent / "result.json").write_text(seal(json.dumps(told)))
    assert "stale: head ridge was trained anew" in status_of(mine, "head weighted")
    outcome = mine.headstart("heads", "weighted")
    assert outcome.code == 1 and f"{other}: its digest does not match; delete" in outcome.out
    assert "stale" in status_of(mine, "head weighted")  # and what was there is still there
    assert (mine.artifacts / "heads" / "weighted" / "result.json").exists()


def test_damage_within_it_is_found_and_mended(mine: Project) -> None:
    inside = mine.artifacts / "heads" / "best" / "heads"
    inside.joinpath("width-2", "model.keras").write_bytes(b"x")
    outcome = mine.headstart("verify")
    assert outcome.code == 1 and "heads/best/heads/width-2/model.keras: its digest does not match" in outcome.out
    inside.joinpath("width-2", "model.keras").unlink()
    assert "stale: never trained" in status_of(mine, "head best")
    outcome = mine.headstart("heads")
    assert outcome.trained == ["best"] and "heads: 1 trial of sweep width trained for best" in outcome.out, outcome.out
    assert mine.headstart("verify").code == 0


def test_what_a_killed_run_left_is_kept_and_leftovers_go(mine: Project) -> None:
    folder = mine.artifacts / "heads" / "best"
    (folder / "result.json").unlink()
    (folder / "heads" / "width-3").mkdir()
    outcome = mine.headstart("heads")
    assert outcome.trained == ["best"] and "trials of sweep" not in outcome.out, outcome.out
    assert sorted(path.name for path in (folder / "heads").iterdir()) == ["width-1", "width-2"]


@pytest.mark.parametrize("at", ["heads/width-2/predictions.csv", "model.json", "result.json"])
def test_a_kill_while_it_is_made_costs_what_was_not_done(mine: Project, at: str) -> None:
    """SIGKILL at the moment when a file of it, or of a trial that is trained for it, is put into its place."""
    folder = mine.artifacts / "heads" / "best"
    expected = result(mine, "heads", "best")["metrics"]
    shutil.rmtree(folder)
    code = (
        "import os, signal, sys\nfrom pipeline.cli import main\nreal = os.replace\n"
        f"def replace(a, b):\n    if str(b).endswith('heads/best/{at}'): os.kill(os.getpid(), signal.SIGKILL)\n    real(a, b)\n"
        "os.replace = replace\nsys.argv = ['headstart', 'heads', 'best']\nmain()"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=mine.folder, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL and not (folder / "result.json").exists()
    outcome = mine.headstart("heads")
    assert outcome.trained == ["best"], outcome.out
    assert ("trial of sweep width trained for best" in outcome.out) == (at != "model.json" and at != "result.json")
    assert mine.headstart("verify").code == 0 and mine.headstart("prune", "--yes").code == 0
    assert not list(mine.artifacts.rglob(".tmp-*"))
    assert result(mine, "heads", "best")["metrics"] == expected


def test_a_head_that_cannot_be_trained_keeps_its_ensembles_from_it_and_no_others(mine: Project) -> None:
    mine.edit('estimator = "RidgeClassifierCV"', 'estimator = "RidgeClassifierCV"\nparams = { alphas = [-1.0] }')
    mine.edit("epochs = 4", "epochs = 3")
    outcome = mine.headstart("heads", "weighted", "mix")
    assert outcome.code == 1 and outcome.trained == ["mix", "small"], outcome.out
    assert "failed: head 'weighted': needs the head 'ridge', which could not be trained" in outcome.out
    assert "Traceback" not in outcome.out


def test_more_trials_than_there_are_is_one_line(mine: Project) -> None:
    mine.edit("best = 2", "best = 4")
    outcome = mine.headstart("heads")
    assert outcome.code == 1, outcome.out
    assert "head 'best': sweep width has 3 trials with a result, expected best = 4" in outcome.out.splitlines()[-1]


def test_the_winner_of_a_sweep_may_be_in_an_ensemble(mine: Project) -> None:
    mine.edit('heads = ["logreg@a", "ridge"]', 'heads = ["width", "ridge"]')
    outcome = mine.headstart("heads")
    assert outcome.trained == ["weighted"], outcome.out
    entry = load_config(mine.config).heads["weighted"]
    assert entry.needs == ("width", "ridge")
    exported = mine.headstart("export", "width", "--to", "keras")
    assert exported.code == 0, exported.out
    shutil.rmtree(mine.artifacts / "sweeps" / "width")
    assert "stale: sweep width is not up to date (never run)" in status_of(mine, "head weighted")
    # The winner is none of the heads then, but it was not removed, and an export of it is not forgotten.
    report = status_of(mine, "report")
    assert "; sweep width is not up to date" in report and "removed" not in report
    assert "stale: sweep width is not up to date" in status_of(mine, "export width-keras")
