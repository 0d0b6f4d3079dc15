"""Several layers in one pass, what may be cut, and the plan: stage one as a configuration asks for it."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import CONFIG, Project, stores, write_image, write_photos

from stages.heads.train import load_head

LAYERS = CONFIG.replace(
    'weights = "random"', 'weights = "random"\nlayers = ["block3_pool", "block4_pool", "block5_pool"]'
) + (
    '\n[heads.both]\nkind = "dense"\nunits = [8]\nepochs = 2\npool = "avg"\nlayers = ["block4_pool", "block3_pool"]\n'
    '\n[heads.early]\nkind = "sklearn"\nestimator = "RidgeClassifier"\nlayers = ["block3_pool"]\n'
)


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("layered")).create(LAYERS)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    outcome = project.make("report")
    assert outcome.code == 0, outcome.out
    assert outcome.extracted == 40 and outcome.out.count("images extracted") == 1
    assert outcome.trained == ["both", "early", "logreg", "ridge"]
    return project


def test_each_layer_has_a_store_of_its_own_that_one_layer_alone_would_have(layered: Project, tmp_path: Path) -> None:
    found = stores(layered)
    assert {layer: store.read(()).shape[1:] for layer, store in found.items()} == {
        "block3_pool": (4, 4, 256), "block4_pool": (2, 2, 512), "block5_pool": (1, 1, 512),
    }  # fmt: skip
    assert "features block4_pool" in layered.headstart("status").out
    text = layered.config.read_text()
    for layer in found:
        one = re.sub(r"layers = \[.*\]", f'layer = "{layer}"', text[: text.index("[heads")], count=1)
        (layered.folder / "one.toml").write_text(one)
        outcome = layered.headstart("features", "--config", "one.toml")
        assert outcome.code == 0 and "features: up to date" in outcome.out, outcome.out
    (layered.folder / "one.toml").unlink()


def test_a_head_on_two_layers_is_an_ordinary_model_of_two_inputs_that_predicts_what_its_result_says(
    layered: Project,
) -> None:
    folder = layered.artifacts / "heads" / "both"
    result = json.loads((folder / "result.json").read_text())
    assert result["layers"] == ["block4_pool", "block3_pool"]
    assert result["feature_shapes"] == {"block4_pool": [2, 2, 512], "block3_pool": [4, 4, 256]}
    model = keras.saving.load_model(folder / "model.keras", safe_mode=True)
    found = stores(layered)
    digests = found["block3_pool"].digests()
    features = [found[layer].read(digests) for layer in result["layers"]]
    (second,) = model.predict(features, verbose=0).T
    head = load_head(folder)
    pooled = np.concatenate([each.mean(axis=(1, 2)) for each in features], axis=1)
    np.testing.assert_allclose(head.predict_proba(pooled)[:, 1], second, rtol=1e-5, atol=1e-6)
    lines = (folder / "predictions.csv").read_text().splitlines()[1:]
    told = {line.split(",")[4]: float(line.split(",")[-1]) for line in lines}
    np.testing.assert_allclose([told[digest] for digest in digests], second, atol=2e-6)


def test_predict_extracts_the_layers_of_its_head(layered: Project) -> None:
    new = write_image(layered.folder / "new.png", 77)
    outcome = layered.headstart("predict", str(new), "--head", "both")
    assert outcome.code == 0 and "new.png: " in outcome.out
    assert "cut at block4_pool → (2, 2, 512), block3_pool → (4, 4, 256)" in outcome.out


def test_the_report_compares_layers(layered: Project) -> None:
    page = (layered.artifacts / "report" / "index.html").read_text()
    for layer in ("block3_pool", "block4_pool", "block5_pool"):
        assert f'<th scope="col">{layer}</th>' in page
    assert "On disk, for one image" in page and "ms an image" in page


def test_a_layer_that_lost_its_store_is_extracted_alone(layered: Project) -> None:
    before = {layer: store.shards()[0].stat().st_mtime_ns for layer, store in stores(layered).items()}
    lost = stores(layered)["block4_pool"]
    for path in lost.shards():
        path.unlink()
    outcome = layered.make("report")
    assert (outcome.extracted, outcome.trained) == (40, []), outcome.out
    assert "cut at block4_pool → (2, 2, 512), weights" in outcome.out
    after = {layer: store.shards()[0].stat().st_mtime_ns for layer, store in stores(layered).items()}
    assert [layer for layer in after if after[layer] != before[layer]] == ["block4_pool"]


def test_a_plan_counts_and_writes_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path).create(LAYERS)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    (project.photos / "cat" / "copy.png").write_bytes((project.photos / "cat" / "cat0.png").read_bytes())
    outcome = project.headstart("features", "--dry-run")
    assert outcome.code == 0, outcome.out
    assert "base: 40 images to extract (1 copies of others are not extracted again)" in outcome.out
    assert re.search(r"base: about \d+ s at [\d,.]+ images/s, as \d+ timed images went", outcome.out)
    assert re.search(r"base: about \d+\.\d kB on disk \(\d+\.\d kB an image\)", outcome.out)
    assert not (project.artifacts / "features").exists()


def test_a_plan_of_nothing(project: Project) -> None:
    assert "base: nothing to extract" in project.headstart("features", "--dry-run").out


def test_layers_are_listed_with_shapes_and_bytes() -> None:
    project = Project(Path.cwd())
    out = project.headstart("layers", "VGG16", "--input-size", "150x100").out
    assert re.search(r"block1_conv1 +Conv2D +150 × 100 × 64 +1,920\.0", out)
    assert re.search(r"block5_pool +MaxPooling2D +4 × 3 × 512 +12\.3 +0  ← the default", out)
    assert "did you mean 'VGG19'" in project.headstart("layers", "VGG91").out
    assert (
        "expected a whole number or HEIGHTxWIDTH, found 'big'"
        in project.headstart("layers", "VGG16", "--input-size", "big").out
    )
