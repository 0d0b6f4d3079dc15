"""A report to test: images of classes with hostile names, and heads that were trained on made-up features of them."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from pages import Seen, see
from PIL import Image

from cache.manifest import ImageRecord, Manifest
from cache.shard import ShardInfo
from cache.store import FeatureStore
from stages.bases.spec import BaseSpec
from stages.heads.dataset import Dataset
from stages.heads.spec import SklearnSpec
from stages.heads.train import HeadTask, train_heads
from stages.report.data import BaseSummary, HeadSummary, ReportData
from stages.report.page import PAGE_VERSION
from stages.report.render import write_report

HOSTILE = "<script>alert(\"1\")</script> & 'it' 😀"
BREAK = "line\nbreak"
CLASSES = tuple(sorted(["cat", HOSTILE, BREAK]))
NOTE = "weights from elsewhere & <not> for results"
PARTS = {"page": PAGE_VERSION, "heads": {"</script><b>": None, "\udcff & é": "k"}, "bases": {}}
LOADING = {"src", "srcset", "poster", "data", "action", "background", "xlink:href"}


def page(data: ReportData, path: Path) -> Seen:
    write_report(path, data)
    return see(path)


def make_data(folder: Path, splits: Sequence[str], n: int = 90, classes: tuple[str, ...] = CLASSES) -> ReportData:
    """``n`` images of classes that overlap, so that heads make mistakes, with three baselines trained on them."""
    rng = np.random.default_rng(3)
    root = folder / "photos"
    root.mkdir(parents=True)
    records = []
    for i in range(n):
        name = f'{i:03d}"<i>\udcff\n.png' if i % 3 else f"{i:03d}.png"
        Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8)).save(root / name)
        digest = sha256((root / name).read_bytes()).hexdigest()
        records.append(ImageRecord(name, digest, classes[i % len(classes)], splits[i // len(classes) % len(splits)]))
    manifest = Manifest(
        "csv", classes, tuple(records), {"gone.jpg": "a link to nothing <b>"}, {".txt": 2}, ("u.png",), ("a <note>",)
    )
    labels = np.array([classes.index(record.label) for record in records])
    features = rng.normal(size=(n, 2, 2, 4)).astype(np.float32)
    features[..., 0] += 1.5 * labels[:, None, None]
    store = FeatureStore(folder / "features")
    store.create({})
    with store.writing():
        store.append(features, records, classes, ShardInfo("k", {}, "float32", "cpu", {}), "none")
    dataset = Dataset(manifest, {"block5_pool": store})
    heads = [
        train(folder, dataset, "logreg", "LogisticRegression"),
        train(folder, dataset, "stump", "DecisionTreeClassifier", max_depth=1),
        train(folder, dataset, "ridge", "RidgeClassifier"),
    ]
    base = BaseSummary(
        "main", BaseSpec(), "block5_pool", "features", n, (2, 2, 4), 12_300_000, 1.5, ["float32"], ["cpu"], NOTE
    )
    skipped = {**manifest.skipped, "bad\udcff.jpg": "damaged: cut off"}
    return ReportData("My <photos>", manifest, skipped, root, [base], heads, PARTS)


def train(folder: Path, dataset: Dataset, name: str, estimator: str, **params: object) -> HeadSummary:
    spec = SklearnSpec(kind="sklearn", estimator=estimator, params=params)
    task = HeadTask(name, spec, "key", "main", ("block5_pool",), "base", "rows", folder / "heads" / name)
    ((_, result),) = train_heads([task], dataset)
    assert isinstance(result, dict)
    return HeadSummary(name, task.folder, result)


def as_dense(head: HeadSummary, name: str, epochs: int = 6) -> HeadSummary:
    """A folder as a dense head leaves it, with the predictions of another head."""
    folder = head.folder.with_name(name)
    folder.mkdir(exist_ok=True)
    (folder / "predictions.csv").write_bytes((head.folder / "predictions.csv").read_bytes())
    lines = [
        f"{i},{1 - 0.5**i},{0.5**i},{0.9 - 0.5**i},{'nan' if i == 1 else 0.1 + 0.5**i}" for i in range(1, epochs + 1)
    ]
    (folder / "history.csv").write_text("\n".join(["epoch,accuracy,loss,val_accuracy,val_loss", *lines, ""]))
    spec = {"kind": "dense", "units": [32], "dropout": 0.5, "optimizer": "adam", "learning_rate": 1e-3, "pool": "avg"}
    changes = {"head": name, "kind": "dense", "spec": spec, "epochs": epochs, "best_epoch": 4, "parameters": 12345}
    return HeadSummary(name, folder, {**head.result, **changes, "probabilities": "softmax", "warnings": ["Odd: <tag>"]})


def sample(folder: Path) -> ReportData:
    """Three baselines, and a head that looks as a dense one does."""
    made = make_data(folder, ("train", "validation", "test", "train", "test"))
    return replace(made, heads=[*made.heads, as_dense(made.heads[1], "dense")])
