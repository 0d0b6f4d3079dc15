"""Samples of a folder are drawn by contents, so that they hold all of its classes, and are the same everywhere."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from cache import FeatureStore, ImageRecord, Manifest
from cache.skipped import SkippedImages
from stages.bases.spec import BaseSpec
from stages.data.policy import EXACT
from stages.data.spec import DataSpec
from stages.extract import precision
from stages.extract.decoding import sample, sampled
from stages.extract.features import LayerStore, Stage
from stages.extract.spec import CacheSpec


def record(i: int, label: str) -> ImageRecord:
    return ImageRecord(f"{label}/{i}.png", hashlib.sha256(f"{label}{i}".encode()).hexdigest(), label, "train")


RECORDS = [record(i, label) for label in "ab" for i in range(200)]


def test_a_sample_holds_all_classes_whatever_the_order() -> None:
    found = sampled(RECORDS, 32)
    assert len(found) == 32 and {each.label for each in found} == {"a", "b"}
    assert sampled(RECORDS[::-1], 32) == found
    assert len(sampled(RECORDS[:3], 32)) == 3


def test_precision_is_measured_on_images_of_all_classes(tmp_path: Path) -> None:
    records = []
    for shade, label in enumerate("ab"):
        for i in range(32):
            path = tmp_path / label / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (200 * shade, i, 0)).save(path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            records.append(ImageRecord(f"{label}/{i}.png", digest, label, "train"))
    spec = BaseSpec.model_validate({"input_size": 8})
    batch = sample(tmp_path, records, spec, precision.IMAGES)
    assert batch is not None and set(np.unique(batch.images[..., 0])) == {0, 200}


def test_images_are_extracted_in_the_order_of_digests(tmp_path: Path) -> None:
    """So that each shard holds all classes."""
    layers = {"last": LayerStore(FeatureStore(tmp_path / "store"), "", {})}
    data = DataSpec(root=tmp_path)
    manifest = Manifest("classes", ("a", "b"), tuple(RECORDS))
    stage = Stage(data, manifest, layers, SkippedImages(tmp_path / "skipped.json", EXACT), CacheSpec(dir=tmp_path))
    wanted = stage.wanted()
    assert wanted == sorted(each.sha256 for each in RECORDS)
    for start in range(0, len(wanted), 50):
        labels = [manifest.by_digest[digest].label for digest in wanted[start : start + 50]]
        assert 10 < labels.count("a") < 40
