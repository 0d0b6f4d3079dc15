"""Heads that are trained on image files: from scratch and end to end. They exist to be compared, and are heads like the others."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, Project, result, write_image
from forked import Forked, slowed

from cache.errors import ConfigError, HeadError
from headstart import load_head, load_image_model
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph
from stages.bases.backend import load_keras
from stages.data.views import View, ViewsSpec
from stages.extract.decoding import load
from stages.heads.batches import ImageBatches
from stages.heads.spec import head_key
from stages.heads.tuned import network
from stages.heads.tuned_spec import CnnSpec, EndToEndSpec, FinetuneSpec

HEADS = """
[heads.scratch]
kind = "cnn"
input_size = 32
filters = [4, 8]
units = [8]
epochs = 3
batch_size = 8

[heads.whole]
kind = "end_to_end"
units = [8]
epochs = 2
batch_size = 8
learning_rate = 1e-6

[heads.last]
kind = "end_to_end"
from = 1
units = []
pool = "avg"
epochs = 2
batch_size = 8
learning_rate = 1e-6
views = true

[heads.both]
kind = "ensemble"
heads = ["scratch", "last", "ridge"]
"""
NAMES = ["both", "last", "scratch", "whole"]


@pytest.fixture(scope="module")
def trained(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("images") / "project"
    shutil.copytree(built.folder, folder, symlinks=True)
    project = Project(folder)
    project.config.write_text(project.config.read_text() + HEADS)
    outcome = project.make("report")
    assert outcome.code == 0, outcome.out
    assert outcome.trained == NAMES and outcome.extracted == 0
    return project


@pytest.fixture
def copy(trained: Project, tmp_path: Path) -> Project:
    shutil.copytree(trained.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def counts(project: Project) -> dict[str, int]:
    records = load_graph(load_config(project.config)).manifest.records
    return {split: sum(r.split == split for r in records) for split in ("train", "validation")}


def test_images_read_are_counted_and_the_report_compares_methods(trained: Project) -> None:
    seen = sum(counts(trained).values())
    read = {name: result(trained, "heads", name)["images_read"] for name in ("scratch", "whole", "last")}
    assert read == {"scratch": 3 * seen, "whole": 2 * seen, "last": 2 * seen}
    assert result(trained, "heads", "scratch")["base"] == "" and result(trained, "heads", "whole")["layers"] == []
    page = (trained.artifacts / "report" / "index.html").read_text()
    assert all(
        words in page for words in ("from scratch", "end to end", "convolutions of 4 → 8 filters", "base last 1 block")
    )
    assert trained.headstart("verify").code == 0


def test_what_is_frozen_stays_as_it_was_and_what_is_not_is_trained(trained: Project) -> None:
    base = load_graph(load_config(trained.config)).bases["base"]
    from stages.bases.model import build

    before = build(base.spec, base.weights, "float32")
    for name, changed in (("whole", set[str]()), ("last", {f"block5_conv{i}" for i in (1, 2, 3)})):
        model = load_image_model(trained.config, name)
        body = next(layer for layer in model.layers if isinstance(layer, load_keras().Model))
        assert {
            layer.name
            for layer in body.layers
            if layer.weights
            and not np.array_equal(layer.get_weights()[0], before.get_layer(layer.name).get_weights()[0])
        } == changed


def test_they_say_the_same_of_pixels_and_of_files_alone_and_in_an_ensemble(trained: Project, tmp_path: Path) -> None:
    graph = load_graph(load_config(trained.config))
    records = [r for r in graph.manifest.records if r.split == "test"]
    spec = graph.bases["base"].spec
    pixels = np.stack([load(trained.photos / r.path, r.sha256, spec) for r in records]).astype(np.float32)
    for name in ("scratch", "whole", "last"):
        head = load_head(trained.config, name)
        lines = (trained.artifacts / "heads" / name / "predictions.csv").read_text().splitlines()
        told = {line.split(",")[0]: float(line.split(",")[-1]) for line in lines[1:]}
        assert head.predict_proba(pixels)[:, 1] == pytest.approx([told[r.path] for r in records], abs=1e-4)
        assert np.array(load_image_model(trained.config, name)(pixels))[:, 0] == pytest.approx(
            [told[r.path] for r in records], abs=1e-4
        )
    new = write_image(tmp_path / "new.png", 99)
    (tmp_path / "bad.png").write_bytes(b"no image")
    for name in NAMES:
        outcome = trained.headstart("predict", str(new), str(tmp_path / "bad.png"), "--head", name)
        assert "bad.png: skipped: " in outcome.out and "new.png: cat (" in outcome.out.replace(": dog (", ": cat (")
    assert trained.headstart("predict", str(new), "--head", "scratch", "--views", "2").code == 0
    with pytest.raises(HeadError, match="its head 'scratch' takes images and no features"):
        load_head(trained.config, "both").predict(np.zeros((1, 512), np.float32))


def test_training_images_alone_have_views_also_where_a_head_is_refitted(trained: Project) -> None:
    graph = load_graph(load_config(trained.config))
    records, spec = graph.manifest.records, CnnSpec.model_validate({"kind": "cnn", "input_size": 32, "batch_size": 8})
    y, rows = np.zeros(len(records), np.int64), np.arange(len(records))
    view = View(ViewsSpec(recipe="tutorial").whole, 0, 1)
    batches = ImageBatches(trained.photos, records, y, spec.images, spec, rows, rows, 2, lambda epoch: view)
    plain, viewed = (
        np.concatenate([images for _, images in batches.decoded(rows, 8, each)]).astype(int) for each in (None, view)
    )
    changed = (plain != viewed).any(axis=(1, 2, 3))
    assert list(changed) == [record.split == "train" for record in records]


def test_a_checkpoint_that_cannot_be_kept_or_is_left_over(copy: Project) -> None:
    folder = copy.artifacts / "heads" / "scratch"
    (folder / "checkpoint.npz").write_bytes(b"left")
    assert f"{folder / 'checkpoint.npz'}: a checkpoint of a head that is up to date" in copy.headstart("prune").out
    assert copy.headstart("prune", "--yes").code == 0 and not (folder / "checkpoint.npz").exists()
    (folder / "checkpoint.npz" / "in the way").mkdir(parents=True)
    copy.edit("epochs = 3", "epochs = 2")
    outcome = copy.headstart("heads", "scratch")
    assert outcome.code == 0 and outcome.trained == ["scratch"], outcome.out
    assert outcome.out.count("checkpoint.npz: cannot be written") == 1


# A small network from scratch, and a base whose last block alone is trained.
KILLED = {
    "scratch": (25, "epochs = 3", 'epochs = 25\nviews = true\noptimizer = "adam"\nlearning_rate = 1e-3'),
    "last": (6, "epochs = 2\nbatch_size = 8\nlearning_rate = 1e-6\nviews", "epochs = 6\nbatch_size = 8\nlearning_rate = 1e-4\nviews"),
}  # fmt: skip


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(copy: Project, tmp_path: Path, name: str) -> None:
    epochs, *edit = KILLED[name]
    copy.edit(*edit)
    shutil.copytree(copy.folder, tmp_path / "whole", symlinks=True)
    whole = Project(tmp_path / "whole")
    process = Forked(copy.folder, "heads", name, code=slowed(0.2))
    checkpoint, end = copy.artifacts / "heads" / name / "checkpoint.npz", time.monotonic() + 100
    while not (checkpoint.exists() and done(checkpoint) > 2):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    at = done(checkpoint)
    assert 2 < at < epochs
    outcome = copy.headstart("heads", name)
    assert outcome.code == 0 and f"head {name}: goes on after epoch {at} of {epochs}" in outcome.out, outcome.out
    assert whole.headstart("heads", name).code == 0
    found, expected = (result(each, "heads", name) for each in (copy, whole))
    assert found["images_read"] == expected["images_read"] == epochs * sum(counts(copy).values())
    lines = [(each.artifacts / "heads" / name / "history.csv").read_text().splitlines()[1:] for each in (copy, whole)]
    for line, other in zip(*lines, strict=True):
        assert list(map(float, line.split(","))) == pytest.approx(list(map(float, other.split(","))), abs=1e-4)


def done(checkpoint: Path) -> int:
    with np.load(checkpoint) as file:
        return len(json.loads(str(file["told"]))["history"])


def test_without_the_image_folder_they_are_up_to_date_or_an_error_that_keeps_no_other_from_being_trained(
    copy: Project,
) -> None:
    assert copy.headstart("status").code == 0  # another test may have looked at the cache by another name of the folder
    shutil.rmtree(copy.photos)
    assert copy.headstart("heads").out.endswith("heads: up to date\n")
    copy.edit("filters = [4, 8]", "filters = [4]")
    copy.edit('estimator = "RidgeClassifierCV"', 'estimator = "RidgeClassifier"')
    outcome = copy.headstart("heads")
    assert outcome.code == 1 and outcome.trained == ["ridge"]
    assert (
        "head 'scratch': a head of kind 'cnn' is trained on the image files, and their folder is not here"
        in outcome.out
    )
    assert "head 'both': needs the head 'scratch', which could not be trained" in outcome.out


def test_an_image_that_changes_or_breaks_under_it_is_an_error_that_names_it(copy: Project) -> None:
    graph = load_graph(load_config(copy.config))
    record = next(r for r in graph.manifest.records if r.split == "train")
    from stages.heads.batches import ImageBatches
    from stages.heads.dataset import Dataset

    data = Dataset(graph.manifest, {})
    spec = CnnSpec.model_validate({"kind": "cnn", "input_size": 32})

    def batches() -> ImageBatches:
        told = (data.rows("train"), data.rows("validation"), 2)
        return ImageBatches(copy.photos, data.records, data.y, spec.images, spec, *told)

    assert sum(len(batch.y) for batch in batches().training(0)) == len(data.rows("train"))
    write_image(copy.photos / record.path, 4321)
    with pytest.raises(HeadError, match=f"{record.path}: expected the image that was scanned, found another"):
        list(batches().training(0))


STALE = [
    ("filters = [4, 8]", "filters = [4]", ["both", "scratch"]),
    ("from = 1", 'from = "block5_conv2"', ["both", "last"]),
    ("input_size = 32\nweights", "input_size = 40\nweights", ["both", "last", "logreg", "ridge", "whole"]),
    ("[heads.logreg]", '[views]\nrecipe = "tutorial"\n[heads.logreg]', ["both", "last"]),
    ("C = 1", "C = 1", []),
]


@pytest.mark.parametrize(("old", "new", "names"), STALE[:-1])
def test_what_makes_them_stale(trained: Project, tmp_path: Path, old: str, new: str, names: list[str]) -> None:
    config = tmp_path / "other.toml"
    text = trained.config.read_text()
    assert old in text
    config.write_text(
        text.replace(old, new, 1)
        .replace('root = "photos"', f'root = "{trained.photos}"')
        .replace("[cache]", f'[cache]\ndir = "{trained.artifacts}"')
    )
    graph = load_graph(load_config(config))
    assert sorted(name for name, head in graph.heads.items() if head.stale) == names


def key(spec: Any) -> str:
    return head_key(spec, "b", "r", ["k"])


def test_every_field_is_in_the_key() -> None:
    others: dict[str, Any] = {
        "seed": 1, "optimizer": "adam", "learning_rate": 1.0, "weight_decay": 0.1, "epochs": 7, "batch_size": 1, "patience": 1,
        "class_weight": "balanced", "label_smoothing": 0.1, "refit": True, "loss": "focal", "mixup": 0.2, "monitor": "accuracy",
        "views": True, "warmup": 1.0, "cosine": True,
    }  # fmt: skip
    kinds = (
        (FinetuneSpec, {"kind": "finetune", "head": "h"}, {"from": 2, "head": "i"}),
        (EndToEndSpec, {"kind": "end_to_end"}, {"from": 1, "pool": "avg", "units": [1], "activation": "tanh", "dropout": 0.1, "batch_norm": True}),
        (CnnSpec, {"kind": "cnn"}, {"input_size": 64, "filters": [1], "units": [1], "dropout": 0.1, "momentum": 0.5}),
    )  # fmt: skip
    for spec, plain, more in kinds:
        changed = others | more
        idle = {"kind", "base", "layers", "focal_gamma", "momentum"} | ({"pool"} if spec is not EndToEndSpec else set())
        assert changed.keys() - {"momentum"} == spec.model_fields.keys() - idle, spec
        found = {key(spec.model_validate(plain | {name: value})) for name, value in changed.items()}
        assert len(found | {key(spec.model_validate(plain))}) == len(changed) + 1, spec


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('kind = "cnn"\nbase = "base"', "base: a network from scratch has no base; leave it out"),
        ('kind = "cnn"\nfilters = []', "filters: expected one at least, found none"),
        ('kind = "end_to_end"\nlayers = ["block4_pool"]', "layers: the base extracts no layer 'block4_pool'"),
        ('kind = "end_to_end"\nwarmup = 40', "warmup: expected fewer than the 30 epochs, found 40"),
        ('kind = "end_to_end"\ndrop = 0.1', "drop: unknown field"),
    ],
)
def test_a_table_that_cannot_be(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(f"{CONFIG}\n[heads.x]\n{table}\n")
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "c.toml")
    assert message in str(error.value)


def test_images_that_are_too_small_for_a_network() -> None:
    with pytest.raises(ValueError, match="images of 20×20 are too small for 3 convolutions with pooling"):
        CnnSpec.model_validate({"kind": "cnn", "input_size": 20})
    assert network(CnnSpec.model_validate({"kind": "cnn", "input_size": 22}), 2).output_shape == (None, 1)
    model = network(CnnSpec.model_validate({"kind": "cnn"}), 3)
    assert model.input_shape == (None, 150, 150, 3) and model.output_shape == (None, 3)
    assert [layer.filters for layer in model.layers if hasattr(layer, "filters")] == [32, 32, 64]
