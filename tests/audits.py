"""Data sets for tests of the audit: rows of made-up features in a store, as heads are trained on them, and image files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cache import FeatureStore, ImageRecord, Manifest
from cache.shard import ShardInfo
from stages.audit.audit import AuditTask
from stages.audit.contents import Contents
from stages.heads.dataset import Dataset

LAYER = "block5_pool"
CLASSES = ["class0", "class1", "class2"]


def sha(i: int) -> str:
    """A digest, as evenly spread as a real one."""
    return f"{(int(i) + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC8341082276BF3A27251F86C6A11D0C18E95 % 2**256:064x}"


def dataset(
    folder: Path,
    X: np.ndarray,
    labels: Sequence[str],
    splits: Sequence[str],
    paths: Sequence[str] | None = None,
    digests: Sequence[str] | None = None,
) -> Dataset:
    """Rows X (n, d), with their labels and splits, in a store below ``folder``; equal digests are copies."""
    paths = paths or [f"{label}/{i}.jpg" for i, label in enumerate(labels)]
    digests = digests or [sha(i) for i in range(len(X))]
    classes = tuple(sorted(set(labels)))
    rows = zip(paths, digests, labels, splits, strict=True)
    records = [ImageRecord(*each) for each in rows]
    store = FeatureStore(folder / "store")
    store.create({})
    once = list({digest: i for i, digest in reversed(list(enumerate(digests)))}.values())
    with store.writing():
        info = ShardInfo("k", {}, "float32", "cpu", {})
        store.append(X[once].astype(np.float32), [records[i] for i in once], classes, info, "none")
    return Dataset(Manifest("csv", classes, tuple(sorted(records))), {LAYER: store})


def classes_of(
    n: int, d: int = 48, classes: int = 3, apart: float = 1.2, seed: int = 0
) -> tuple[np.ndarray, list[str]]:
    """Rows (n, d) of classes that overlap little, none below zero, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = rng.normal(0, apart, (classes, d))[y] + rng.normal(1, 1, (n, d))
    return np.maximum(X, 0) + 0.01, [f"class{i}" for i in y]


def splits_of(n: int, seed: int = 1) -> list[str]:
    """Three fifths train, one fifth each of the others."""
    return [str(each) for each in np.random.default_rng(seed).choice(["train"] * 3 + ["validation", "test"], n)]


def contents_of(data: Dataset) -> Contents:
    """The contents of its rows at the layer."""
    return Contents.read(data, LAYER)


def task(folder: Path, root: Path | None = None) -> AuditTask:
    """An audit whose files lie below ``folder``."""
    return AuditTask(
        "base", "VGG16", LAYER, "key", {"schema": 1}, folder / "audit" / "base", root, folder / "pixels.json"
    )


def with_copies(X: np.ndarray, originals: np.ndarray, noise: float = 0.05, seed: int = 2) -> np.ndarray:
    """The rows, and behind them changed copies of some."""
    return np.concatenate([X, X[originals] * np.random.default_rng(seed).normal(1, noise, X[originals].shape)])
