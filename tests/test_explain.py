"""Where a head looks: maps that add up, gradients that are those of a difference, and `headstart explain`."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Project, failed, write_image
from explain_project import explain_project
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart import load_head
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph
from stages.bases.frozen import FrozenBase
from stages.explain.evidence import EXACT, GRADIENT, evidence, evidence_of
from stages.explain.layers import filter_cells
from stages.explain.maps import Seen, explain, spread, step_of
from stages.explain.occlusion import agreement, occluded
from stages.heads.pooling import pool_layers
from stages.progress import SILENT

LINEAR = ["average", "flat", "largest", "plain"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return explain_project(tmp_path_factory.mktemp("explain") / "project")


def features(project: Project, name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What a head takes of an image, by layer, and what it says of it: log-probabilities (1, classes)."""
    graph = load_graph(load_config(project.config))
    head, stores = load_head(project.config, name), graph.bases["base"].stores
    digest = graph.manifest.records[5].sha256
    layers = graph.heads[name].result["layers"]
    rows = {layer: stores[layer].read([digest]) for layer in layers}
    return {layer: row[0] for layer, row in rows.items()}, head.predict_log_proba(
        pool_layers(list(rows.values()), head.spec.pool)
    )


@pytest.mark.parametrize("name", LINEAR)
def test_an_exact_map_adds_up_to_what_the_head_says(trained: Project, name: str) -> None:
    head = load_head(trained.config, name)
    seen, logs = features(trained, name)
    for k in range(3):
        found = evidence(head, seen, k)
        assert found.method == EXACT
        assert {layer: each.shape for layer, each in found.places.items()} == {
            layer: each.shape[:2] for layer, each in seen.items()
        }
        total = sum(each.sum() for each in found.places.values()) + found.rest
        assert total == pytest.approx(evidence_of(logs, k)[0], abs=1e-3)


@pytest.mark.parametrize("name", ["hidden", "own", "tuned"])
def test_grad_cam_is_that_of_differences(trained: Project, name: str) -> None:
    head = load_head(trained.config, name)
    seen, _ = features(trained, name)
    found = evidence(head, seen, 1)
    assert found.method == GRADIENT
    for layer, maps in seen.items():
        slopes = np.empty(maps.shape[-1])
        for channel in range(maps.shape[-1]):
            step = np.zeros_like(maps)
            step[..., channel] = 1e-2
            said = [
                head.predict_log_proba(
                    pool_layers(
                        [seen[each][None] + (sign * step if each == layer else 0) for each in seen], head.spec.pool
                    )
                )
                for sign in (1, -1)
            ]
            slopes[channel] = (evidence_of(said[0], 1) - evidence_of(said[1], 1))[0] / 2e-2 / maps[..., 0].size
        expected = np.maximum(maps @ slopes, 0)
        np.testing.assert_allclose(found.places[layer], expected, rtol=0.05, atol=0.02 * max(expected.max(), 1e-6))


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 300), st.integers(20, 300))
def test_places_lie_where_they_are(height: int, width: int) -> None:
    """A base halves three times: its places are 8 pixels apart, whatever pooling left out at the edge."""
    rows, columns = height // 8, width // 8
    if min(rows, columns) < 3:
        return
    assert step_of(height, rows) == pytest.approx(8, rel=0.05) or height % rows == 0
    places = np.zeros((rows, columns))
    places[rows // 2, columns // 2] = 1
    heat = spread(places, (height, width), (height, width))
    top, left = np.unravel_index(heat.argmax(), heat.shape)
    for found, place, count, side in ((top, rows // 2, rows, height), (left, columns // 2, columns, width)):
        assert abs(found + 0.5 - (place + 0.5) * step_of(side, count)) <= 1


def test_occlusion_finds_the_part_that_a_head_looks_at() -> None:
    image = np.full((64, 96, 3), 200, np.uint8)
    image[8:20, 60:76] = 0  # all that this head sees

    def speak(images: dict[str, np.ndarray]) -> np.ndarray:
        dark = (images["base"] < 100).mean(axis=(1, 2, 3))
        return np.stack([-10 * dark, 10 * dark], axis=1)

    heat = occluded({"base": image}, speak, 1, (64, 96))
    top, left = np.unravel_index(heat.argmax(), heat.shape)
    assert 4 <= top <= 24 and 52 <= left <= 84 and heat.max() == 1 and heat[40:, :40].max() < 0.1
    assert not occluded({"base": image}, speak, 0, (64, 96)).any(), "nothing speaks for the other class"
    assert agreement(heat, heat) == pytest.approx(1) and agreement(heat, 1 - heat) == pytest.approx(-1)
    assert agreement(heat, np.zeros_like(heat)) == 0


@pytest.mark.parametrize("name", [*LINEAR, "hidden", "own", "tuned", "scratch", "whole", "both"])
def test_every_kind_of_head_is_explained(trained: Project, name: str, tmp_path: Path) -> None:
    out = tmp_path / "seen.png"
    done = trained.headstart("explain", "new.png", "photos/cow/cow1.png", "--head", name, "--out", str(out))
    assert done.code == 0, done.out
    assert ("(exact" if name in LINEAR else "(mean of maps" if name == "both" else "(Grad-CAM") in done.out
    assert f"{out}: 2 images drawn" in done.out
    with Image.open(out) as picture:
        assert picture.format == "PNG" and picture.width > picture.height // 2 > 200


def test_the_map_of_an_ensemble_is_the_mean_of_those_of_its_heads(trained: Project) -> None:
    head, size = load_head(trained.config, "both"), (40, 40)
    seen = [Seen(features(trained, name)[0], size) for name in ("average", "flat")]
    maps = [
        explain(load_head(trained.config, name), [each], 2, size)[0]
        for name, each in zip(("average", "flat"), seen, strict=True)
    ]
    found, method = explain(head, seen, 2, size)
    expected = sum(maps)
    np.testing.assert_allclose(found, expected / max(expected.max(), 1e-9), atol=1e-5)
    # Also of two maps that are exact: probabilities are averaged, and not evidence.
    assert method == "mean of maps" and found.dtype == np.float32 and found.shape == size


def test_what_cannot_be_explained_is_one_line(trained: Project, tmp_path: Path) -> None:
    out = str(tmp_path / "seen.png")
    line = failed(trained.headstart("explain", "new.png", "--head", "knn"))
    assert "KNeighborsClassifier is neither linear nor a Keras model" in line and "--occlusion" in line
    asked = trained.headstart("explain", "new.png", "--head", "knn", "--occlusion", "--out", out)
    assert asked.code == 0 and "(occlusion" in asked.out
    assert "no class 'cta' (did you mean 'cat'?)" in failed(trained.headstart("explain", "new.png", "--class", "cta"))
    assert "expected a name that ends in .png" in failed(
        trained.headstart("explain", "new.png", "--head", "flat", "--out", "seen.jpg")
    )
    shutil.copy(trained.folder / "own.py", tmp_path / "text.jpg")
    done = trained.headstart(
        "explain", str(tmp_path / "text.jpg"), "new.png", "--head", "flat", "--class", "cow", "--out", out
    )
    assert done.code == 1 and "text.jpg: skipped: " in done.out and "new.png: cow " in done.out


def test_a_layer_is_drawn(trained: Project, tmp_path: Path) -> None:
    out = str(tmp_path / "layer.png")
    done = trained.headstart("explain", "new.png", "--features", "first", "--out", out)
    assert done.code == 0 and "first: the strongest channels for new.png" in done.out, done.out
    with Image.open(out) as picture:
        assert picture.width > 8 * 96 and picture.height > 2 * 96  # eight channels and the image, in rows of eight
    assert trained.headstart("explain", "--filters", "second", "--out", out).code == 0
    assert "no such layer (did you mean 'second'?)" in failed(trained.headstart("explain", "--filters", "secnd"))
    assert "expected one image, found 0" in failed(trained.headstart("explain", "--features", "first"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--features", "first", "--filters", "second"], "--features and --filters: expected one of them, found both"),
        (["--features", "first", "--head", "flat", "--class", "cat"], "--features with --head and --class: a layer is drawn as it is"),
        (["--filters", "first", "--occlusion"], "--filters with --occlusion"),
        (["--base", "base"], "--base: expected --features or --filters beside it"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_one_line(trained: Project, options: list[str], says: str) -> None:
    assert says in failed(trained.headstart("explain", "new.png", *options))


def test_images_of_one_name_have_pictures_of_their_own(trained: Project, tmp_path: Path) -> None:
    folder = trained.artifacts / "explain"
    files = [write_image(tmp_path / name / "1.png", seed) for seed, name in enumerate(("cat", "dog"))]

    def drawn(*options: str) -> list[str]:
        done = [trained.headstart("explain", str(file), *options) for file in files]
        assert all(each.code == 0 for each in done), done
        return [each.out.split(f"{folder.relative_to(trained.folder)}/")[1].split(".png")[0] for each in done]

    first, second = drawn("--head", "flat")
    assert first == "1" and second.startswith("1-") and drawn("--head", "flat") == [first, second]
    assert (folder / f"{first}.png").read_bytes() != (folder / f"{second}.png").read_bytes()
    first, second = drawn("--features", "first")
    assert first == "features-first" and second.startswith("features-first-")


def test_the_pattern_of_a_filter_drives_it_up(trained: Project) -> None:
    graph = load_graph(load_config(trained.config))
    target = graph.bases["base"]
    cells = filter_cells(target.spec, target.weights, "second", [3, 5], 0, SILENT)
    base = FrozenBase(target.spec, target.weights, ["second"], "float32")
    grey = np.full((1, 40, 40, 3), 128, np.uint8)
    for channel, cell in zip((3, 5), cells, strict=True):
        assert cell.words == [str(channel)]
        (means,) = base(np.stack([cell.pictures[0]]))["second"].mean(axis=(1, 2))
        (before,) = base(grey)["second"].mean(axis=(1, 2))
        assert means[channel] > before[channel]


def test_the_report_shows_where_the_head_looked_only_where_that_is_asked(trained: Project, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    text = project.config.read_text()
    # A head that was hardly trained makes mistakes.
    start, end = text.index("[heads.hidden]"), text.index("[heads.own]")
    project.config.write_text(text[: text.index("[heads.average]")] + text[start:end])
    page = project.artifacts / "report" / "index.html"
    assert project.headstart("report").code == 0
    plain = page.read_text()
    assert "labelled <b>" in plain and "what spoke for" not in plain and '"maps"' not in plain
    with open(project.config, "a") as file:
        file.write("[report]\nmaps = true\n")
    assert "maps of the mistakes were switched on or off" in project.headstart("status").out
    assert project.headstart("report").code == 0
    assert page.read_text().count('alt="what spoke for') == plain.count("labelled <b>") > 0
    assert "report: up to date" in project.headstart("report").out
    project.edit("maps = true", "maps = false")
    assert project.headstart("report").code == 0 and page.read_text() == plain
