"""Shards and the feature store: what is written is read back, and damage is noticed."""

import json
import os
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cache import CacheError, FeatureStore, ImageRecord, Manifest
from cache.files import digest_json
from cache.shard import ShardInfo, ShardTable, read_info, read_shard, write_shard

SPEC = {"base": "VGG16"}
INFO = ShardInfo(digest_json(SPEC), SPEC, "float32", "CPU", {"keras": "3"}, {"largest": 0.001})


def sha(i: int) -> str:
    return f"{i:064x}"


def records(*numbers: int, label: str = "cat") -> list[ImageRecord]:
    return [ImageRecord(f"{label}/{i}.jpg", sha(i), label, "train") for i in numbers]


def rows(*numbers: int, dtype: str = "float16") -> np.ndarray:
    return np.stack([np.full((4, 4, 8), i, dtype) for i in numbers])


def filled(folder: Path) -> FeatureStore:
    """Of five images, in two shards."""
    store = FeatureStore(folder)
    store.create(SPEC)
    with store.writing():
        store.append(rows(0, 1, 2), records(0, 1, 2), ["cat", "dog"], INFO)
        store.append(rows(3, 4), records(3, 4, label="dog"), ["cat", "dog"], INFO)
    return store


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return filled(tmp_path / "store")


finite = hnp.arrays(
    st.sampled_from([np.float16, np.float32]),
    hnp.array_shapes(min_dims=2, max_dims=4, max_side=5),
    elements=st.floats(-1000, 1000, width=16),
)


@settings(deadline=None, max_examples=40)
@given(features=finite, compression=st.sampled_from(["zstd", "lzf", "none"]), data=st.data())
def test_a_shard_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, features: np.ndarray, compression: str, data: st.DataObject
) -> None:
    names = st.text(st.characters(exclude_characters="\0", exclude_categories=()), min_size=1)
    # Surrogates stand for bytes that are not UTF-8, as they do in the names that Python reads from a folder.
    escaped = names.map(
        lambda s: "".join(c if not 0xD800 <= ord(c) <= 0xDFFF else chr(0xDC80 + ord(c) % 128) for c in s)
    )
    n = len(features)
    paths = data.draw(st.lists(escaped, min_size=n, max_size=n))
    paths = [path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") for path in paths]
    labels = data.draw(st.lists(st.integers(-1, 1), min_size=n, max_size=n))
    path = tmp_path_factory.mktemp("s") / "shard-00000.h5"
    table = ShardTable([sha(i) for i in range(n)], labels, paths, ["é", "b"])
    write_shard(path, features, table, INFO, compression)  # type: ignore[arg-type]
    found, found_table = read_shard(path)
    np.testing.assert_array_equal(found, features)
    assert found.dtype == features.dtype
    assert found_table == table and read_info(path) == INFO


def test_a_shard_opens_with_h5py_alone(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.h5"
    write_shard(path, rows(0, 1), ShardTable([sha(0), sha(1)], [0, 1], ["a.jpg", "b.jpg"], ["cat", "dog"]), INFO, "lzf")
    with h5py.File(path) as file:
        assert file["features"].shape == (2, 4, 4, 8)
        assert file["labels"][:].tolist() == [0, 1]
        assert file["paths"].asstr()[:].tolist() == ["a.jpg", "b.jpg"]
        assert file["sha256"][:].astype(str).tolist() == [sha(0), sha(1)]
        assert json.loads(file.attrs["class_names"]) == ["cat", "dog"]
        assert file.attrs["key"] == INFO.key and json.loads(file.attrs["spec"]) == INFO.spec
        assert file.attrs["precision"] == "float32" and int(file.attrs["schema_version"]) == 1


def test_rows_are_addressed_by_digest_in_any_order(store: FeatureStore) -> None:
    found = store.read([sha(4), sha(0), sha(3), sha(0)])
    assert found.dtype == np.float32
    assert found[:, 0, 0, 0].tolist() == [4, 0, 3, 0]
    assert store.missing([sha(9), sha(1), sha(9)]) == [sha(9)]
    assert len(store) == 5 and sha(2) in store and sha(9) not in store


def test_a_transform_is_applied_to_each_shard(store: FeatureStore) -> None:
    found = store.read([sha(4), sha(1)], lambda features: features.mean(axis=(1, 2)))
    assert found.shape == (2, 8) and found[:, 0].tolist() == [4, 1]


def test_reading_what_is_not_there_says_what_to_do(store: FeatureStore) -> None:
    with pytest.raises(CacheError, match="lacks 1 of 2 images; run `make features`"):
        store.read([sha(0), sha(9)])


def test_the_same_image_is_not_stored_twice(store: FeatureStore) -> None:
    with pytest.raises(CacheError, match="is in the store"), store.writing():
        store.append(rows(2), records(2), ["cat"], INFO)


def test_shards_of_different_precision_are_read_together(store: FeatureStore) -> None:
    with store.writing():
        store.append(np.full((1, 4, 4, 8), 70000, np.float32), records(5), ["cat", "dog"], INFO)
    assert store.read([sha(0), sha(5)])[:, 0, 0, 0].tolist() == [0, 70000]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        at = file["features"].id.get_chunk_info(0).byte_offset + 20
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_damage_never_reaches_a_reader_and_its_images_count_as_missing(
    store: FeatureStore, damage: Callable[[Path], None]
) -> None:
    damage(store.folder / "shard-00000.h5")
    again = FeatureStore(store.folder)
    try:
        again.read([sha(0), sha(4)])
    except CacheError as error:
        assert "run `make features`" in str(error)
    else:
        pytest.fail("damaged features were read")
    again = FeatureStore(store.folder)
    again.discard_damaged()
    assert again.missing([sha(i) for i in range(5)]) == [sha(0), sha(1), sha(2)]
    with again.writing():
        again.append(rows(0, 1, 2), records(0, 1, 2), ["cat", "dog"], INFO)
    assert again.read([sha(i) for i in range(5)])[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert again.verify() == {}


def test_verify_names_what_is_wrong(store: FeatureStore) -> None:
    assert store.verify() == {}
    flip(store.folder / "shard-00001.h5")
    assert list(FeatureStore(store.folder).verify()) == ["shard-00001.h5"]


def test_another_schema_is_named(store: FeatureStore) -> None:
    with h5py.File(store.folder / "shard-00000.h5", "r+") as file:
        file.attrs["schema_version"] = 7
    with pytest.raises(CacheError, match="expected a shard of schema 1, found schema 7"):
        FeatureStore(store.folder)


def test_labels_follow_the_manifest_without_touching_features(store: FeatureStore) -> None:
    before = store.read(store.digests())
    moved = [
        ImageRecord("ant/zero.jpg", sha(0), "ant", "train"),
        *records(1, 2),
    ]
    manifest = Manifest("classes", ("ant", "cat"), tuple(moved))
    assert len(store.outdated(manifest)) == 2
    with store.writing():
        assert store.relabel(manifest) == 2
    assert store.outdated(manifest) == [] and FeatureStore(store.folder).outdated(manifest) == []
    table = read_shard(store.folder / "shard-00000.h5")[1]
    assert table.labels == [0, 1, 1] and table.paths[0] == "ant/zero.jpg" and table.class_names == ["ant", "cat"]
    other = read_shard(store.folder / "shard-00001.h5")[1]  # of images that this manifest does not have
    assert other.labels == [2, 2] and other.class_names == ["ant", "cat", "dog"]
    np.testing.assert_array_equal(store.read(store.digests()), before)
    assert read_info(store.folder / "shard-00000.h5") == INFO


def test_leftovers_of_killed_writers_are_cleared(store: FeatureStore) -> None:
    (store.folder / ".tmp-123-abc-shard-00002.h5").write_bytes(b"half")
    with store.writing():
        pass
    assert not list(store.folder.glob(".tmp-*"))


@settings(deadline=None, max_examples=30)
@given(
    wanted=st.lists(st.integers(0, 11), max_size=15),
    dtype=st.sampled_from(["float16", "float32"]),
    pooled=st.booleans(),
)
def test_rows_come_in_the_order_asked_for_whatever_the_shards(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[int], dtype: str, pooled: bool
) -> None:
    store = FeatureStore(tmp_path_factory.mktemp("order"))
    store.create(SPEC)
    with store.writing():
        for start in (0, 5, 10):
            numbers = range(start, min(start + 5, 12))
            store.append(rows(*numbers), records(*numbers), ["cat"], INFO)
    pool = (lambda X: X.mean(axis=(1, 2))) if pooled else None
    X = store.read((sha(i) for i in wanted), pool, dtype=dtype)
    assert X.dtype == dtype
    assert len(X) == len(wanted)
    if wanted:
        expected = rows(*wanted).astype(np.float32)
        np.testing.assert_array_equal(X, expected.mean(axis=(1, 2)) if pooled else expected)


def test_features_that_are_mostly_zero_pack_smaller_than_dense_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dense = np.abs(rng.normal(size=(64, 4, 4, 512))).astype(np.float16)
    sparse = np.where(rng.random(dense.shape) < 0.9, np.float16(0), dense)
    for name, features in (("dense", dense), ("sparse", sparse)):
        table = ShardTable([sha(i) for i in range(64)], [0] * 64, [f"{i}" for i in range(64)], ["cat"])
        write_shard(tmp_path / f"{name}.h5", features, table, INFO)
        np.testing.assert_array_equal(read_shard(tmp_path / f"{name}.h5")[0], features)
    assert (tmp_path / "dense.h5").stat().st_size < 0.85 * dense.nbytes
    assert (tmp_path / "sparse.h5").stat().st_size < 0.25 * sparse.nbytes


def test_a_reader_beside_others_that_find_damage_gets_rows_or_a_clear_error(store: FeatureStore) -> None:
    path = store.folder / "shard-00001.h5"
    data = bytearray(path.read_bytes())
    data[data.index(rows(3).tobytes()[:16]) if rows(3).tobytes()[:16] in data else len(data) // 2] ^= 1
    path.write_bytes(data[: len(data) // 2])

    def read(i: int) -> str:
        try:
            return str(store.read([sha(i % 5)]).shape)
        except CacheError as error:
            return type(error).__name__

    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(read, range(200)))
    assert found <= {"(1, 4, 4, 8)", "DamageError", "CacheError"} and "(1, 4, 4, 8)" in found
    assert store.set_aside() == ["shard-00001.h5.damaged"]


def test_what_is_no_damage_is_not_called_so(store: FeatureStore) -> None:
    """Where too many files are open, a shard may be whole, and stays where it is."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = os.open(os.devnull, os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (held + 1, limit[1]))
    try:
        with pytest.raises(OSError, match=r"Too many open files.*shard-0000"):
            store.read(store.digests())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        os.close(held)
    assert store.set_aside() == [] and len(store.read(store.digests())) == 5


def test_a_shard_of_another_base_is_not_read(store: FeatureStore, tmp_path: Path) -> None:
    table = ShardTable([sha(7)], [0], ["7.jpg"], ["cat"])
    write_shard(store.folder / "shard-00002.h5", rows(7), table, replace(INFO, key="0" * 64))
    store.refresh()
    assert sha(7) not in store
    assert "belongs to another base" in store.damaged["shard-00002.h5"]


def test_values_that_float16_cannot_hold_are_not_read_as_float16(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "wide")
    store.create(SPEC)
    with store.writing():
        store.append(rows(0, 1, dtype="float32") * 1e6, records(0, 1), ["cat"], INFO)
    with pytest.raises(CacheError, match="do not fit float16"):
        store.read(store.digests(), dtype="float16")
    assert store.read(store.digests()).max() == 1e6
    with pytest.raises(ValueError, match="expected float16, float32 or float64, found int8"):
        store.read(store.digests(), dtype="int8")


def test_what_a_notebook_gets_wrong(store: FeatureStore) -> None:
    with pytest.raises(ValueError, match="split: expected one of train, validation, test, found 'trian'"):
        store.arrays(Manifest("classes", ("cat",), ()), "trian")
    assert store.read([]).shape == (0, 4, 4, 8)
    (store.folder / "shard-00001.h5").unlink()
    with pytest.raises(CacheError, match=r"shard-00001\.h5: went away"):
        store.read(store.digests())
