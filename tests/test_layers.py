"""Several layers in one pass, a user's own base, the plan, and what may be cut: stage one as a configuration asks for it."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from conftest import CONFIG, Project, look, write_image, write_photos
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cache import FeatureStore, ImageRecord
from cache.shard import ShardInfo
from pipeline.config import load_config
from stages.bases import backend
from stages.bases.frozen import FrozenBase
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.data.images import decode
from stages.extract.precision import stored_precision, suitable_base
from stages.extract.spec import CacheSpec
from stages.extract.writing import ShardWriter, as_float16
from stages.heads.train import load_head
from stages.progress import SILENT

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


def stores(project: Project) -> dict[str, FeatureStore]:
    found = [FeatureStore(path) for path in (project.artifacts / "features").iterdir()]
    return {store.spec["layer"]: store for store in found}


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
    assert re.search(r"base: about 0\.\d MB on disk \(\d+\.\d kB an image\)", outcome.out)
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


# A user's own base


def own_model(path: Path, size: int | None = 40) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Input((size, size, 3)),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="first"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="second"),
            keras.layers.GlobalAveragePooling2D(name="pooled"),
        ]
    )
    model.save(path)
    return model


OWN = '[data]\nroot = "photos"\n[base]\nname = "file:mine.keras"\ninput_size = 40\nprecision = "float32"\npreprocess = "tf"\n'
HEAD = '[heads.ridge]\nkind = "sklearn"\nestimator = "RidgeClassifier"\n'


def test_a_base_of_ones_own(tmp_path: Path) -> None:
    project = Project(tmp_path).create(OWN + HEAD)
    write_photos(project.photos, {"cat": 12, "dog": 12})
    model = own_model(tmp_path / "mine.keras")
    outcome = project.make("report")
    assert outcome.code == 0 and outcome.extracted == 24, outcome.out
    (store,) = stores(project).values()
    image = sorted(project.photos.glob("cat/*"))[0]
    digest = next(digest for digest, path in store.paths().items() if path == f"cat/{image.name}")
    pixels = decode(image.read_bytes(), (40, 40)).astype(np.float32)[None]
    expected = model.predict(pixels / 127.5 - 1, verbose=0)[0]
    np.testing.assert_allclose(store.read([digest])[0], expected, rtol=2e-3, atol=1e-5)
    # The same file under another name, then another model under the same name.
    (tmp_path / "mine.keras").rename(tmp_path / "other.keras")
    project.edit("file:mine.keras", "file:other.keras")
    assert project.headstart("features").extracted == 0
    keras.Sequential([keras.layers.Input((40, 40, 3)), keras.layers.Flatten()]).save(tmp_path / "other.keras")
    assert "24 images never extracted with this base" in project.headstart("status").out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: own_model(path, 32), r"expected images of 32×32, found input_size = \[40, 40\]; set input_size = \[32, 32\]"),
        (lambda path: path.write_bytes(b"no model"), "found another kind of file"),
        (
            lambda path: keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)]).save(path),
            r"expected a model of RGB images \(height, width, 3\) with one output",
        ),
    ],
    ids=["another size", "no model", "no images"],
)  # fmt: skip
def test_a_base_of_ones_own_that_cannot_be_used_is_one_line(tmp_path: Path, make: object, message: str) -> None:
    from cache.errors import BaseError

    make(tmp_path / "mine.keras")  # type: ignore[operator]
    (tmp_path / "headstart.toml").write_text(OWN + HEAD)
    spec = load_config(tmp_path / "headstart.toml").bases["base"]
    with pytest.raises(BaseError, match=message):
        FrozenBase(spec, Weights(spec, tmp_path / "weights"))


# Precision


def test_auto_takes_the_fast_precision_where_the_base_bears_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG16 is within 1e-2 of float32 in bfloat16; MobileNetV2, of many thin layers, is not."""
    monkeypatch.setattr(
        backend, "CPU_FLAGS_BFLOAT16", ("fpu",)
    )  # this machine may have no units for it, but computes it
    write_photos(tmp_path, {"cat": 12, "dog": 12})
    manifest = look(tmp_path)
    said: list[str] = []
    progress = SimpleNamespace(say=said.append, task=SILENT.task)
    found = {}
    for name in ("VGG16", "MobileNetV2"):
        spec = BaseSpec.model_validate({"name": name, "weights": "random", "input_size": 32})
        weights = Weights(spec, tmp_path / "weights")
        found[name] = suitable_base(spec, weights, (), [], manifest.records, tmp_path, progress)
    assert {name: base.precision for name, base in found.items()} == {"VGG16": "bfloat16", "MobileNetV2": "float32"}
    (line,) = said
    assert "MobileNetV2 in bfloat16 is" in line and "so it computes in float32" in line
    # Rows that are stored decide: a store is not begun in one precision and continued in another.
    store = FeatureStore(tmp_path / "store")
    rows = found["MobileNetV2"](np.zeros((1, 32, 32, 3), np.uint8))["out_relu"]
    store.append(rows, manifest.records[:1], manifest.classes, ShardInfo("k", {}, "bfloat16", "CPU", {}))
    assert suitable_base(spec, weights, (), [store], manifest.records, tmp_path, progress).precision == "bfloat16"
    assert stored_precision(spec, [store]) == "bfloat16"


# Rows


@settings(deadline=None, max_examples=150)
@given(
    rows=hnp.arrays(np.float32, (4, 6), elements=st.floats(0, 1, width=32)),
    scales=st.lists(st.sampled_from([0.0, 1e-30, 1e-9, 1e-7, 1e-5, 1.0, 6e4, 1e6]), min_size=4, max_size=4),
)
def test_float16_holds_each_row_or_none_is_stored_as_float16(rows: np.ndarray, scales: list[float]) -> None:
    features = rows * np.array(scales, np.float32)[:, None]
    found = as_float16(features)
    with np.errstate(over="ignore"):
        plain = features.astype(np.float16).astype(np.float64)
    exact = features.astype(np.float64)
    lost = np.linalg.norm(plain - exact, axis=1) / np.maximum(np.linalg.norm(exact, axis=1), 1e-300)
    assert (found is not None) == bool((lost <= 1e-3).all())
    if found is not None:
        np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_the_batch_size_never_changes_a_row(tmp_path: Path, batch_size: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)

    def rows(size: int) -> np.ndarray:
        spec = BaseSpec.model_validate(
            {"weights": "random", "precision": "float32", "input_size": 32, "batch_size": size}
        )
        base = FrozenBase(spec, Weights(spec, tmp_path))
        parts = [base(images[i : i + size])["block5_pool"] for i in range(0, len(images), size)]
        return np.concatenate(parts)

    np.testing.assert_allclose(rows(batch_size), rows(5), rtol=1e-4, atol=1e-4 * np.abs(rows(5)).max())


def test_scaled_decoding_is_near_exact_decoding_and_in_the_key(tmp_path: Path) -> None:
    from PIL import Image

    y, x = np.mgrid[0:1:600j, 0:1:800j]
    smooth = np.stack([255 * x, 255 * y, 255 * (1 - x) * y], axis=-1).astype(np.uint8)
    path = tmp_path / "large.jpg"
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(smooth).save(path, quality=95, exif=exif)
        exact, scaled = (decode(path.read_bytes(), (100, 90), scaled=each) for each in (False, True))
        assert exact.shape == scaled.shape == (100, 90, 3)
        difference = np.abs(exact.astype(int) - scaled.astype(int))
        assert 0 < difference.max() < 12 and difference.mean() < 1.5
    exact_spec, scaled_spec = BaseSpec(weights="random"), BaseSpec(weights="random", decode="scaled")
    assert exact_spec.identity("w", "float16", "x") != scaled_spec.identity("w", "float16", "x")


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 9), max_size=12),
    shard_images=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    held=st.sets(st.integers(0, 60), max_size=20),
)
def test_the_writer_writes_each_row_once_and_never_holds_more_than_a_shard(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], shard_images: int, batch_size: int, held: set[int]
) -> None:
    """Two layers, of which the second has some of the rows already."""
    folder = tmp_path_factory.mktemp("writer")
    info = ShardInfo("k", {}, "float32", "CPU", {})
    both = {layer: FeatureStore(folder / layer) for layer in ("a", "b")}
    cache = CacheSpec(dir=folder, shard_images=shard_images)

    def record(i: int) -> ImageRecord:
        return ImageRecord(f"{i}.jpg", f"{i:064x}", "cat", "train")

    if held:
        rows = np.stack([np.full(3, -i, np.float32) for i in sorted(held)])
        both["b"].append(rows, [record(i) for i in sorted(held)], ["cat"], info)
    writer = ShardWriter({layer: (each, info) for layer, each in both.items()}, ["cat"], cache, batch_size, SILENT)
    added = 0
    for size in (min(size, batch_size) for size in sizes):
        writer.make_room(size)
        at_risk = added + size - len(both["a"])
        assert at_risk <= max(shard_images, size)
        numbers = range(added, added + size)
        rows = np.stack([np.full(3, i, np.float32) for i in numbers])
        writer.add({"a": rows, "b": rows}, [record(i) for i in numbers])
        added += size
    writer.flush()
    writer.close()
    assert both["a"].digests() == [f"{i:064x}" for i in range(added)]
    assert sorted(both["b"].digests()) == [f"{i:064x}" for i in sorted(held | set(range(added)))]
    if added:
        np.testing.assert_array_equal(both["a"].read([f"{i:064x}" for i in range(added)])[:, 0], np.arange(added))
        expected = [-i if i in held else i for i in range(added)]
        np.testing.assert_array_equal(both["b"].read([f"{i:064x}" for i in range(added)])[:, 0], expected)
