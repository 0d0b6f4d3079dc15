"""The feature store compared with a dictionary, through any sequence of what can be done to it."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cache import CacheError, FeatureStore, ImageRecord, Manifest
from cache.files import digest_json
from cache.shard import ShardInfo

SPEC = {"base": "VGG16"}
INFO = ShardInfo(digest_json(SPEC), SPEC, "float32", "CPU", {})
CLASSES = ("cat", "dog")


def sha(i: int) -> str:
    return f"{i:064x}"


def record(i: int, label: str) -> ImageRecord:
    return ImageRecord(f"{label}/{i}.jpg", sha(i), label, "train")


class StoreMachine(RuleBasedStateMachine):
    """``self.model`` maps the number of an image to the value of its features and its label."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = FeatureStore(self.folder)
        self.store.create(SPEC)
        self.model: dict[int, tuple[float, str]] = {}

    @rule(
        numbers=st.lists(st.integers(0, 20), min_size=1, max_size=6, unique=True),
        compression=st.sampled_from(["zstd", "lzf", "none"]),
        dtype=st.sampled_from([np.float16, np.float32]),
        value=st.integers(0, 100),
    )
    def append(self, numbers: list[int], compression: str, dtype: type, value: int) -> None:
        rows = [record(i, CLASSES[i % 2]) for i in numbers]
        features = np.stack([np.full((2, 3), value + i, dtype) for i in numbers])
        if self.model.keys() & set(numbers):
            with pytest.raises(CacheError), self.store.writing():
                self.store.append(features, rows, CLASSES, INFO, compression)  # type: ignore[arg-type]
            return
        with self.store.writing():
            self.store.append(features, rows, CLASSES, INFO, compression)  # type: ignore[arg-type]
        self.model |= {i: (float(value + i), CLASSES[i % 2]) for i in numbers}

    @rule(numbers=st.sets(st.integers(0, 20), max_size=5))
    def drop(self, numbers: set[int]) -> None:
        with self.store.writing():
            assert self.store.drop(sha(i) for i in numbers) == len(self.model.keys() & numbers)
        for i in numbers:
            self.model.pop(i, None)

    @rule(label=st.sampled_from(CLASSES), numbers=st.sets(st.integers(0, 20), max_size=5))
    def relabel(self, label: str, numbers: set[int]) -> None:
        for i in self.model.keys() & numbers:
            self.model[i] = (self.model[i][0], label)
        with self.store.writing():
            self.store.relabel(self.manifest())
        assert self.store.outdated(self.manifest()) == []

    @rule()
    def reopen(self) -> None:
        self.store = FeatureStore(self.folder)

    @rule()
    def lose_the_index(self) -> None:
        (self.folder / "index.json").unlink(missing_ok=True)
        self.store = FeatureStore(self.folder)

    @precondition(lambda self: self.store.shards())
    @rule(data=st.data())
    def lose_a_shard(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(self.store.shards()))
        held = set(FeatureStore(self.folder).digests())
        path.unlink()
        self.store.refresh()
        for digest in held - set(self.store.digests()):
            del self.model[int(digest, 16)]

    def manifest(self) -> Manifest:
        return Manifest("classes", CLASSES, tuple(record(i, label) for i, (_, label) in self.model.items()))

    @invariant()
    def holds_what_the_dictionary_holds(self) -> None:
        if not hasattr(self, "store"):
            return
        assert set(self.store.digests()) == {sha(i) for i in self.model}
        assert self.store.missing(sha(i) for i in range(21)) == [sha(i) for i in range(21) if i not in self.model]
        numbers = sorted(self.model, reverse=True)
        if numbers:
            found = self.store.read(sha(i) for i in numbers)
            assert found[:, 0, 0].tolist() == [self.model[i][0] for i in numbers]
        assert self.store.verify() == {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
