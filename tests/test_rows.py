"""Rows on their way to a shard: the precision they are computed in, how images are decoded, and how they are written."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import look, write_photos
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cache import FeatureStore, ImageRecord
from cache.shard import ShardInfo
from stages.bases import backend
from stages.bases.frozen import FrozenBase
from stages.bases.spec import BaseSpec
from stages.bases.weights import Weights
from stages.data.images import decode
from stages.extract.precision import stored_precision, suitable_base
from stages.extract.spec import CacheSpec
from stages.extract.writing import ShardWriter, as_float16
from stages.progress import SILENT


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
        spec = BaseSpec.model_validate({"name": name, "weights": "random", "input_size": 32, "batch_size": 8})
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


def test_the_batch_size_never_changes_a_row(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)

    def rows(size: int) -> np.ndarray:
        spec = BaseSpec.model_validate(
            {"weights": "random", "precision": "float32", "input_size": 32, "batch_size": size}
        )
        base = FrozenBase(spec, Weights(spec, tmp_path))
        parts = [base(images[i : i + size])["block5_pool"] for i in range(0, len(images), size)]
        return np.concatenate(parts)

    expected = rows(5)
    for size in (1, 7, 32):
        np.testing.assert_allclose(rows(size), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


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
