"""Features that memory does not hold: streamed from the shards, they train the head that memory would."""

import hashlib
import os
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from forked import Forked

from cache import FeatureStore, ImageRecord, Manifest
from cache.errors import DataError
from cache.shard import ShardInfo
from stages.heads import stream
from stages.heads.dataset import Dataset
from stages.heads.stream import Streamed, likeness
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
    more = {"loss": "focal", "mixup": 0.2, "l2": 1e-3, "max_norm": 2.0}
    specs = [dense(seed=seed, optimizer=name) for seed, name in enumerate(("rmsprop", "adam"))]
    specs.append(dense(seed=2, optimizer="adam", **more))
    members = [Member(spec, data.rows("train"), data.rows("validation")) for spec in specs]
    small = with_memory(data, 400_000)
    assert data.fits("flatten") and not small.fits("flatten")
    whole = train_all(members, data.source("flatten", ("last",)), 3)
    streamed = train_all(members, small.source("flatten", ("last",)), 3)
    for one, other in zip(whole, streamed, strict=True):
        best, expected = (min(row["val_loss"] for row in each.history) for each in (other, one))
        assert best == pytest.approx(expected, rel=0.02)
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


def write_by_class(folder: Path, rows: int, shard: int = 64) -> Dataset:
    """Shards of one class each, as they were written of folders in the order of paths."""
    rng = np.random.default_rng(0)
    store = FeatureStore(folder)
    store.create({"dtype": "float16"})
    records = [
        ImageRecord(f"{i:05}.jpg", hashlib.sha256(str(i).encode()).hexdigest(), CLASSES[i * len(CLASSES) // rows], "train")
        for i in range(rows)
    ]  # fmt: skip
    for start in range(0, rows, shard):
        new = records[start : start + shard]
        X = rng.random((len(new), *SHAPE)).astype(np.float16)
        store.append(X, new, CLASSES, ShardInfo("", {}, "float32", "CPU", {}), "none")
    return Dataset(Manifest("photos", CLASSES, tuple(records)), {"last": store})


def test_shards_of_one_class_each_are_mixed_in_each_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LEAST_ROWS", 1)
    data = write_by_class(tmp_path, 1200)
    streamed = Streamed(data.records, data.y, data.stores, "flatten", 120 * 2 * 128 * 5)
    rows = data.rows("train")
    orders = []
    for epoch in (0, 1):
        parts = [block.positions for block in streamed.blocks(rows, epoch)]
        assert len(parts) == 10
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), rows)
        for part in parts:
            shares = np.bincount(data.y[part], minlength=3) / len(part)
            assert abs(shares - 1 / 3).max() < 0.17, shares
        again = [block.positions for block in streamed.blocks(rows, epoch)]
        assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))
        orders.append(np.concatenate(parts))
    assert not np.array_equal(*orders)
    # The rows of a part lie one after another in their shard: 15 of them, but where a block or a shard ends.
    names = [int(data.records[row].path[:5]) for row in orders[0]]
    assert sum(other == one + 1 for one, other in pairwise(names)) > 0.85 * len(names)


def test_the_likeness_of_labels_within_shards() -> None:
    rng = np.random.default_rng(0)
    many = rng.integers(0, 1000, 20_000)
    assert abs(likeness(np.array_split(many, 40))) < 0.01
    assert likeness(np.array_split(np.sort(rng.integers(0, 4, 2000)), 40)) > 0.9
    assert likeness([np.zeros(5, np.int64)]) == 0.0 and likeness([np.array([0]), np.array([1])]) == 0.0


def test_a_shard_may_be_float32_where_the_configuration_says_float16(tmp_path: Path) -> None:
    """As it is where float16 does not hold its values."""
    data = write_store(tmp_path, 600)
    (store,) = data.stores.values()
    X = np.full((2, *SHAPE), 1e6, np.float32)
    new = [ImageRecord(f"{i}.jpg", f"{i}" * 64, "cat", "train") for i in "ef"]
    store.append(X, new, CLASSES, ShardInfo("", {"dtype": "float16"}, "float32", "CPU", {}), "none")
    larger = Manifest("photos", CLASSES, (*data.manifest.records, *new))
    mixed = Dataset(larger, data.stores, 400_000)
    found = np.concatenate([X for _, X in mixed.parts("flatten", ("last",))])
    assert found.dtype == np.float32 and found.max() == 1e6


# All threads allocate from one heap: with one for each, of which there are as many as processors, peaks grow by what is free in them.
PEAKS = """
import ctypes, resource, sys
from pathlib import Path
M_ARENA_MAX = -8
if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
    mallopt(M_ARENA_MAX, 1)
from test_stream import Member, dense, train_all, with_memory, write_store
for rows, epochs in ((3_000, 4), (18_000, 1)):
    data = write_store(Path(sys.argv[1], str(rows)), rows, (4, 4, 256), 512)
    members = [Member(dense(units=[4], epochs=epochs), data.rows("train"), data.rows("validation"))]
    train_all(members, with_memory(data, 20_000_000).source("flatten", ("last",)), 3)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """The peak of a process after six times the rows, 123 MB more in float16, of which 20 MB may be in memory at once.

    More blocks are read of the few rows than of the many, as the allocator's heaps grow with the first ones.
    """
    process = Forked(tmp_path, str(tmp_path), code=PEAKS)
    out, _ = process.communicate()
    assert process.returncode == 0, out
    few, many = map(int, out.split()[-2:])
    assert many - few < 50_000_000, f"{few:,} and {many:,} bytes"
