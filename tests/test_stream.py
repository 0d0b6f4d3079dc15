"""Features that memory does not hold: streamed from the shards, they train the head that memory would."""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from conftest import ROOT

from cache import FeatureStore, ImageRecord, Manifest
from cache.errors import DataError
from cache.shard import ShardInfo
from stages.heads import stream
from stages.heads.dataset import Dataset
from stages.training.member import Member
from stages.training.spec import DenseSpec
from stages.training.together import train_all

SHAPE = (2, 2, 32)
CLASSES = ("cat", "dog", "cow")


def write_store(folder: Path, rows: int, shape: tuple[int, ...] = SHAPE, shard: int = 64, seed: int = 0) -> Dataset:
    """A store of made-up features around one centre a class, four fifths of them train."""
    rng = np.random.default_rng(seed)
    store = FeatureStore(folder)
    spec = {"dtype": "float16"}
    store.create(spec)
    centres = rng.normal(0, 0.12, (len(CLASSES), *shape)).astype(np.float32)
    records = []
    for start in range(0, rows, shard):
        labels = rng.integers(0, len(CLASSES), min(shard, rows - start))
        X = np.maximum(centres[labels] + rng.standard_normal((len(labels), *shape), np.float32), 0).astype(np.float16)
        new = [
            ImageRecord(f"{start + i}.jpg", f"{rng.integers(2**62):016x}{start + i:048x}", CLASSES[label], "train" if i % 5 else "validation")
            for i, label in enumerate(labels)
        ]  # fmt: skip
        store.append(X, new, CLASSES, ShardInfo("", spec, "float32", "CPU", {}), "none")
        records += new
    return Dataset(Manifest("photos", CLASSES, tuple(records)), {"last": store})


def dense(**options: object) -> DenseSpec:
    return DenseSpec.model_validate(
        {"kind": "dense", "units": [16], "dropout": 0.0, "learning_rate": 1e-3, "epochs": 12, **options}
    )


def with_memory(data: Dataset, memory: int) -> Dataset:
    return Dataset(data.manifest, data.stores, memory)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return write_store(tmp_path / "store", 1000)


@pytest.mark.parametrize("pool", ["flatten", "avg"])
def test_blocks_hold_every_row_once_and_no_more_than_the_limit(
    data: Dataset, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LEAST_ROWS", 1)
    row = {"flatten": 2 * 128, "avg": 4 * 32}[pool]
    limit = 200 * row * 5
    streamed = with_memory(data, limit).source(pool, ("last",))
    rows = data.rows("train")
    expected = data.X(pool, ("last",))
    orders = []
    for epoch in (0, 1, None):
        blocks = list(streamed.blocks(rows, epoch))
        assert len(blocks) == 4 and max(len(block.positions) for block in blocks) <= 200
        assert len({block.X.shape for block in blocks}) == 1
        positions = np.concatenate([block.positions for block in blocks])
        np.testing.assert_array_equal(np.sort(positions), rows)
        for block in blocks:
            m = len(block.positions)
            np.testing.assert_allclose(np.asarray(block.X)[:m], expected[block.positions], atol=2e-3)
            np.testing.assert_array_equal(np.asarray(block.y)[:m], data.y[block.positions])
        orders.append(tuple(positions))
    assert len(set(orders)) == 3


def test_a_streamed_head_comes_to_the_loss_of_one_in_memory(data: Dataset) -> None:
    specs = [dense(seed=seed, optimizer=name) for seed, name in enumerate(("rmsprop", "adam"))]
    members = [Member(spec, data.rows("train"), data.rows("validation")) for spec in specs]
    small = with_memory(data, 400_000)
    assert data.fits("flatten") and not small.fits("flatten")
    whole = train_all(members, data.source("flatten", ("last",)), 3)
    streamed = train_all(members, small.source("flatten", ("last",)), 3)
    for one, other in zip(whole, streamed, strict=True):
        assert other.best_loss == pytest.approx(one.best_loss, rel=0.02)
        assert len(other.history) == len(one.history)


def test_predictions_are_the_same_in_parts(data: Dataset) -> None:
    parts = list(with_memory(data, 400_000).parts("flatten", ("last",)))
    assert len(parts) > 1
    found = np.empty((1000, 128), np.float32)
    for positions, X in parts:
        found[positions] = X
    np.testing.assert_allclose(found, data.X("flatten", ("last",)), atol=2e-3)


def test_what_cannot_be_streamed_says_so(data: Dataset) -> None:
    with pytest.raises(
        DataError, match=r'1,000 rows of features, pool \'flatten\', take 2.0 MB .* set pool = "avg", or raise memory'
    ):
        with_memory(data, 400_000).X("flatten", ("last",))


PEAK = """
import resource, sys
sys.path.insert(0, "tests")
from pathlib import Path
from test_stream import Member, dense, train_all, with_memory, write_store
data = write_store(Path(sys.argv[1]), int(sys.argv[2]), (4, 4, 256), 512)
members = [Member(dense(units=[4], epochs=int(sys.argv[3])), data.rows("train"), data.rows("validation"))]
train_all(members, with_memory(data, 40_000_000).source("flatten", ("last",)), 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """A peak of a process with four times the rows, 147 MB more in float16, of which 40 MB may be in memory at once.

    As many blocks are read for both, as the allocator's heaps grow with the first ones.
    """
    peaks = []
    for rows, epochs in ((6_000, 4), (24_000, 1)):
        command = [sys.executable, "-c", PEAK, str(tmp_path / f"{rows}"), str(rows), str(epochs)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 60_000_000
