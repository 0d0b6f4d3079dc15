"""Fine-tuning from the cache: equal to training end to end, gone on with after a kill, kept, loaded and put to use as any head."""

import csv
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Project, result, trials, write_image
from forked import Forked, slowed
from tuned_project import TINY, VGG, made

from cache.files import digest_text, read_sealed, seal
from headstart import load_features, load_head, load_image_model
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph
from stages.bases.backend import load_keras
from stages.bases.model import build, preprocessing
from stages.bases.weights import Weights
from stages.extract.decoding import load
from stages.heads.dataset import Dataset
from stages.heads.keras_fit import optimizer

VIEWED = """
[heads.viewed]
kind = "finetune"
head = "small"
from = "block2_conv"
epochs = 2
batch_size = 8
learning_rate = 1e-4
views = true
refit = true
"""


def history(project: Project, name: str) -> list[dict[str, float]]:
    with open(project.artifacts / "heads" / name / "history.csv", newline="") as file:
        return [{column: float(value) for column, value in row.items()} for row in csv.DictReader(file)]


def end_to_end(project: Project, name: str, start: str) -> list[dict[str, float]]:
    """The same training on the whole model, image by image, by Keras alone."""
    keras = load_keras()
    graph = load_graph(load_config(project.config))
    target, spec = graph.bases["base"], graph.heads[name].entry.spec
    base = build(target.spec, Weights(target.spec, project.artifacts / "weights"), "float32")
    head = keras.saving.load_model(project.artifacts / "heads" / "small" / "model.keras", compile=False)
    names = [layer.name for layer in base.layers]
    for layer in base.layers:
        later = names.index(layer.name) >= names.index(start)
        layer.trainable = later and not isinstance(layer, keras.layers.BatchNormalization)
    images = keras.Input((32, 32, 3))
    model = keras.Model(images, head(base(images, training=False), training=True))
    many = model.output_shape[-1] > 1
    loss = keras.losses.CategoricalCrossentropy() if many else keras.losses.BinaryCrossentropy()
    model.compile(optimizer(spec), loss)
    data = Dataset(graph.manifest, target.stores)
    pixels = np.stack([load(project.photos / r.path, r.sha256, target.spec) for r in data.records])
    X = np.array(preprocessing(target.spec)(pixels.astype(np.float32)))
    y = np.eye(len(data.classes), dtype=np.float32)[data.y][:, 0 if many else 1 :]
    train, held = data.rows("train"), data.rows("validation")
    rows = []
    for epoch in range(spec.epochs):
        order = np.random.default_rng([spec.seed, 1, epoch, 0]).permutation(len(train))
        losses = []
        for i in range(0, len(train), spec.batch_size):
            batch = train[order[i : i + spec.batch_size]]
            losses += [float(model.train_on_batch(X[batch], y[batch]))] * len(batch)
        rows.append({"loss": np.mean(losses), "val_loss": float(model.evaluate(X[held], y[held], verbose=0))})
    return rows


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = made(tmp_path_factory.mktemp("tuned") / "project", VGG, '"block5_conv1"', 1e-6)
    outcome = project.make("report")
    assert outcome.code == 0, outcome.out
    assert outcome.trained == ["small", "tuned"]
    return project


def test_it_is_equal_to_training_end_to_end(tuned: Project) -> None:
    expected, found = end_to_end(tuned, "tuned", "block5_conv1"), history(tuned, "tuned")
    assert len(found) == 3 and abs(found[0]["loss"] - found[2]["loss"]) > 0.01
    for row, other in zip(found, expected, strict=True):
        assert {name: row[name] for name in other} == pytest.approx(other, abs=1e-3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """With shortcuts, batch normalisation, and three classes."""
    project = made(tmp_path_factory.mktemp("tiny") / "project", TINY, "2", 1e-3, bird="")
    project.edit("[cache]", "views = 1\n[cache]")
    project.config.write_text(project.config.read_text() + VIEWED)
    outcome = project.make("heads")
    assert outcome.code == 0, outcome.out
    return project


def test_it_is_so_with_shortcuts_batch_normalisation_and_three_classes(tiny: Project) -> None:
    expected, found = end_to_end(tiny, "tuned", "block2_conv"), history(tiny, "tuned")
    assert abs(found[0]["loss"] - found[2]["loss"]) > 0.01
    for row, other in zip(found, expected, strict=True):
        assert {name: row[name] for name in other} == pytest.approx(other, abs=1e-3)
    assert result(tiny, "heads", "tuned")["tuned"] == {"from": "block2_conv", "to": "block3_out"}


def test_it_draws_cached_views_and_can_be_refitted(tiny: Project) -> None:
    found, plain = result(tiny, "heads", "viewed"), result(tiny, "heads", "tuned")
    assert found["spec"]["views"] and found["images_read"] == 0 and found["base_key"] != plain["base_key"]
    one, other = history(tiny, "viewed")[0], history(tiny, "tuned")[0]
    assert abs(one["loss"] - other["loss"]) > 1e-4  # the same batches, of which some images are another view
    best = history(tiny, "viewed")[found["best_epoch"] - 1]
    assert found["metrics"]["validation"]["log_loss"] == pytest.approx(best["val_loss"], abs=1e-4)


def test_what_it_leaves_behind(tuned: Project) -> None:
    found = result(tuned, "heads", "tuned")
    assert found["layers"] == ["block4_pool"] and found["feature_shapes"] == {"block4_pool": [2, 2, 512]}
    assert found["tuned"] == {"from": "block5_conv1", "to": "block5_pool"} and found["images_read"] == 0
    assert found["needs"]["small"]["key"] == result(tuned, "heads", "small")["key"]
    assert not list(tuned.artifacts.rglob("checkpoint*"))
    assert tuned.headstart("verify").code == 0
    page = (tuned.artifacts / "report" / "index.html").read_text()
    assert "fine-tuned from the cache" in page and "small and the base from block5_conv1" in page


def test_it_says_the_same_of_features_of_images_and_of_files(tuned: Project, tmp_path: Path) -> None:
    head = load_head(tuned.config, "tuned")
    features = load_features(tuned.config, "test", layer="block4_pool")
    with open(tuned.artifacts / "heads" / "tuned" / "predictions.csv", newline="") as file:
        told = {row["path"]: float(row["uncalibrated_dog"]) for row in csv.DictReader(file)}
    expected = [told[path] for path in features.paths]
    assert head.predict_proba(features.X)[:, 1] == pytest.approx(expected, abs=1e-5)
    model = load_image_model(tuned.config, "tuned")
    model.save(tmp_path / "whole.keras")
    model = load_keras().saving.load_model(tmp_path / "whole.keras")  # of Keras's own layers alone
    graph = load_graph(load_config(tuned.config))
    records = {record.path: record for record in graph.manifest.records}
    spec = graph.bases["base"].spec
    pixels = np.stack([load(tuned.photos / path, records[path].sha256, spec) for path in features.paths])
    assert np.array(model(pixels.astype(np.float32)))[:, 0] == pytest.approx(expected, abs=1e-4)
    shutil.copy(tuned.photos / features.paths[0], tmp_path / "copy.png")
    other = write_image(tmp_path / "other.png", 77)
    outcome = tuned.headstart("predict", str(tmp_path / "copy.png"), str(other), "--head", "tuned")
    assert outcome.code == 0 and outcome.out.count(" (cat ") + outcome.out.count(" (dog ") == 2, outcome.out


def test_the_model_of_images_of_a_dense_head_and_of_one_that_is_none(tuned: Project) -> None:
    model = load_image_model(tuned.config, "small")
    images = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    graph = load_graph(load_config(tuned.config))
    base = build(graph.bases["base"].spec, graph.bases["base"].weights, "float32")
    X = np.array(base(np.array(preprocessing(graph.bases["base"].spec)(images.copy())), training=False))
    expected = load_head(tuned.config, "small").predict_proba(X)[:, 1:]
    assert np.array(model(images)) == pytest.approx(expected, abs=1e-4)


CHANCE = (
    """dropout = 0.0
epochs = 3""",
    """dropout = 0.5
epochs = 3""",
)
LONG = (
    """epochs = 3
batch_size = 8
learning_rate = 0.001""",
    """epochs = 8
batch_size = 8
learning_rate = 0.001
optimizer = "adam"
mixup = 0.2
warmup = 1.5
cosine = true
class_weight = "balanced"
refit = true""",
)


def test_a_killed_run_goes_on_at_the_next_epoch_and_ends_as_one_that_was_not(tiny: Project, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "killed", symlinks=True)
    killed = Project(tmp_path / "killed")
    killed.edit(*CHANCE)
    killed.edit(*LONG)
    shutil.copytree(killed.folder, tmp_path / "whole", symlinks=True)
    whole = Project(tmp_path / "whole")
    process = Forked(killed.folder, "heads", "tuned", code=slowed(0.2))
    checkpoint, end = killed.artifacts / "heads" / "tuned" / "checkpoint.npz", time.monotonic() + 100
    while not (checkpoint.exists() and len(kept(checkpoint)["history"]) > 3):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    done = len(kept(checkpoint)["history"])
    assert 3 < done < 8
    assert result(killed, "heads", "tuned")["epochs"] == 3  # the head of before, until there is another
    outcome = killed.headstart("heads", "tuned")
    assert outcome.code == 0 and f"head tuned: goes on after epoch {done} of 8" in outcome.out
    assert whole.headstart("heads", "tuned").code == 0
    assert history(killed, "tuned") == [pytest.approx(row, abs=1e-5) for row in history(whole, "tuned")]
    broken, other = (result(each, "heads", "tuned") for each in (killed, whole))
    assert broken["best_epoch"] == other["best_epoch"] and broken["epochs"] == 8
    assert broken["metrics"]["test"]["log_loss"] == pytest.approx(other["metrics"]["test"]["log_loss"], abs=1e-4)
    assert not list(killed.artifacts.rglob("checkpoint*"))


def kept(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return json.loads(str(file["told"]))


def test_it_is_streamed_where_memory_does_not_hold_the_activations(tiny: Project, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    project.edit("shard_images", "memory = 1000\nshard_images")
    shutil.rmtree(project.artifacts / "heads" / "tuned")
    outcome = project.headstart("heads")
    assert outcome.code == 0 and "54 rows of block1_out do not fit into 1.0 kB; they are streamed" in outcome.out
    for row, other in zip(history(project, "tuned"), history(tiny, "tuned"), strict=True):
        assert row["val_loss"] == pytest.approx(other["val_loss"], abs=0.2)  # another order of batches


def test_a_sweep_varies_where_training_begins(tiny: Project, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    grid = '[sweeps.start]\nhead = "tuned"\nrepeats = 2\ngrid = { from = ["block2_conv", "block3_conv"] }\n'
    project.config.write_text(project.config.read_text() + grid)
    outcome = project.headstart("sweep")
    # What the second begins with is not in the cache, which is found before the first is trained.
    said = "[sweeps.start] from = \"block3_conv\": training begins with 'block3_conv', on the activations of 'block2_out' (15 × 15 × 8, 3.6 kB"
    assert outcome.code == 1 and said in outcome.out, outcome.out
    assert not outcome.trained and not (project.artifacts / "sweeps" / "start").exists()
    project.edit('from = ["block2_conv", "block3_conv"]', 'from = ["block2_conv", 2]')
    outcome = project.headstart("sweep")
    assert outcome.code == 0 and outcome.trained == ["start"], outcome.out
    assert result(project, "heads", "start")["tuned"]["from"] == "block2_conv"
    first, second = trials(project, "start")
    assert first["accuracy"] == second["accuracy"] and {first["from"], second["from"]} == {"block2_conv", "2"}
    project.edit('from = ["block2_conv", 2]', "learning_rate = [0.001, 0.01]")
    project.edit("repeats = 2", "repeats = 1")
    averaged = '[heads.mean]\nkind = "ensemble"\nsweep = "start"\nbest = 2\n'
    project.config.write_text(project.config.read_text() + averaged)
    assert project.headstart("sweep").code == 0
    assert project.headstart("heads", "mean").trained == ["mean"]
    outcome = project.headstart("predict", str(sorted(project.photos.glob("*/*"))[0]), "--head", "mean")
    assert outcome.code == 0, outcome.out
    assert not list(project.artifacts.rglob("checkpoint*"))
    _the_head_that_trials_begin_with_is_trained_to_another_under_the_same_key(project)


def _the_head_that_trials_begin_with_is_trained_to_another_under_the_same_key(project: Project) -> None:
    """The trials of a sweep that knows with which one they began are trained again; those of an earlier version's are held to the one
    that is there.
    """
    sweep, small = project.artifacts / "sweeps" / "start", project.artifacts / "heads" / "small" / "result.json"
    assert re.search("sweep start +up to date", project.headstart("status").out)
    edit_sealed(small, lambda told: told["files"].update({"predictions.csv": "0" * 64}))
    assert re.search("sweep start +stale: head small was trained anew", project.headstart("status").out)
    outcome = project.headstart("sweep")
    assert outcome.code == 0 and "sweep start: 2 trials\n" in outcome.out and outcome.trained == ["start"], outcome.out
    assert re.search("sweep start +up to date", project.headstart("status").out)

    edit_sealed(sweep / "result.json", lambda told: told.pop("needs"))
    bodies = [json.loads(line.partition(" ")[2]) for line in (sweep / "trials.jsonl").read_text().splitlines()]
    lines = [json.dumps({name: value for name, value in body.items() if name != "begun"}) for body in bodies]
    (sweep / "trials.jsonl").write_text("".join(f"{digest_text(line)[:16]} {line}\n" for line in lines))
    edit_sealed(small, lambda told: told["files"].update({"predictions.csv": "1" * 64}))
    assert re.search("sweep start +up to date", project.headstart("status").out)
    project.edit("learning_rate = [0.001, 0.01]", "learning_rate = [0.001, 0.01, 0.1]")
    outcome = project.headstart("sweep")
    assert outcome.code == 0 and "3 trials, 2 of them known before" in outcome.out, outcome.out
    edit_sealed(small, lambda told: told["files"].update({"predictions.csv": "2" * 64}))
    assert "sweep start: 3 trials\n" in project.headstart("sweep").out


def edit_sealed(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    told = read_sealed(path, "a result")
    edit(told)
    path.write_text(seal(json.dumps(told)))


def test_the_piece_of_python_on_the_page_of_fine_tuning(tuned: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "finetuning.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tuned.folder)
    space: dict[str, Any] = {"images": np.zeros((2, 32, 32, 3), np.float32)}
    exec(code, space)
    assert space["probabilities"].shape == (2, 1)
