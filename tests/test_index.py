"""The index of a store, which spares opening its shards: it is not believed where they are others."""

import os
from pathlib import Path
from typing import Any

import pytest
from test_store import filled, sha

from cache import FeatureStore, shard


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return filled(tmp_path / "store")


def test_another_process_sees_the_same_with_and_without_the_index(store: FeatureStore) -> None:
    assert FeatureStore(store.folder).digests() == store.digests()
    (store.folder / "index.json").unlink()
    assert FeatureStore(store.folder).digests() == store.digests()
    (store.folder / "index.json").write_text("{")
    assert FeatureStore(store.folder).digests() == store.digests()


def test_an_index_that_lies_is_not_believed(store: FeatureStore) -> None:
    os.unlink(store.folder / "shard-00000.h5")
    assert FeatureStore(store.folder).digests() == [sha(3), sha(4)]


def test_a_shard_that_goes_away_while_the_store_is_opened_is_not_there(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shard.read_table_and_key

    def late(path: Path) -> Any:
        if path.name == "shard-00000.h5":
            path.unlink()  # as another process does
        return real(path)

    (store.folder / "index.json").unlink()
    monkeypatch.setattr(shard, "read_table_and_key", late)
    assert FeatureStore(store.folder).digests() == [sha(3), sha(4)]


def test_a_link_to_a_shard_on_a_disk_that_is_not_there_is_no_shard_that_went_away(store: FeatureStore) -> None:
    (store.folder / "shard-00009.h5").symlink_to("gone.h5")
    with pytest.raises(FileNotFoundError):
        FeatureStore(store.folder).digests()
