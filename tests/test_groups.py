"""Images that belong together stay in one split and in one fold, and count as fewer in intervals."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import look, splits, write_image, write_photos
from grouped import PATTERN, write_animals
from hypothesis import given
from hypothesis import strategies as st

from cache import Manifest
from cache.errors import DataError
from stages.data.groups import drawn_by, groups_again, groups_of
from stages.data.leaks import notes_of
from stages.data.scan import scan
from stages.data.spec import DataSpec
from stages.data.splits import assign_splits
from stages.heads import train
from stages.heads.dataset import Dataset
from stages.sweeps.folds import cross_validation


def by_group(manifest: Manifest) -> dict[str, set[str]]:
    """The splits of each group."""
    found: dict[str, set[str]] = {}
    for record, group in zip(manifest.records, manifest.groups, strict=True):
        found.setdefault(group, set()).add(record.split)
    return found


def test_a_group_is_drawn_into_one_split(tmp_path: Path) -> None:
    write_animals(tmp_path / "p")
    found = look(tmp_path / "p", group=PATTERN)
    assert len(by_group(found)) == 40 and all(len(each) == 1 for each in by_group(found).values())
    assert {record.split for record in found.records} == {"train", "validation", "test"}
    assert notes_of(found) == ("groups: 200 images in 40 groups, 0 in none",)
    assert Manifest.load(tmp_path / "cache" / "manifest.json") == found
    assert any(len(each) > 1 for each in by_group(_with_groups(look(tmp_path / "p"), found)).values())


def _with_groups(manifest: Manifest, other: Manifest) -> Manifest:
    return Manifest(manifest.layout, manifest.classes, manifest.records, groups=other.groups)


def test_adding_images_to_a_group_moves_none_and_images_in_none_stay(tmp_path: Path) -> None:
    write_animals(tmp_path / "p")
    write_photos(tmp_path / "p", {"cat": 20, "dog": 20}, first=5000)
    alone, before = splits(look(tmp_path / "p")), splits(look(tmp_path / "p", group=PATTERN))
    assert all(alone[path] == split for path, split in before.items() if "animal" not in path)
    write_image(tmp_path / "p" / "cat" / "animal0-9.png", 9999)
    after = splits(look(tmp_path / "p", group=PATTERN))
    assert {path: after[path] for path in before} == before
    assert after["cat/animal0-9.png"] == before["cat/animal0-0.png"]


def test_identical_images_join_their_groups(tmp_path: Path) -> None:
    write_animals(tmp_path / "p")
    for one, other in (("cat/animal0-0", "cat/animal2-0"), ("cat/animal2-1", "cat/animal4-1")):
        (tmp_path / "p" / f"{other}.png").write_bytes((tmp_path / "p" / f"{one}.png").read_bytes())
    found = look(tmp_path / "p", group=PATTERN)
    groups = dict(zip((record.path for record in found.records), found.groups, strict=True))
    assert {groups[f"cat/animal{n}-{i}.png"] for n in (0, 2, 4) for i in range(5)} == {"0"}
    assert all(len(each) == 1 for each in by_group(found).values()) and len(by_group(found)) == 38


def test_what_cannot_be_decoded_joins_no_groups(tmp_path: Path) -> None:
    """It is no record, so that where the images are gone nobody would know of it."""
    write_animals(tmp_path / "p", 20)
    for name in ("cat/animal0-9", "cat/animal2-9"):
        (tmp_path / "p" / f"{name}.png").write_bytes(b"no image")
    data = DataSpec(root=tmp_path / "p", group=PATTERN)
    found = scan(data, tmp_path / "cache", {hashlib.sha256(b"no image").hexdigest(): "damaged"})
    assert len(found.skipped) == 2 and len(by_group(found)) == 20
    assert groups_again(data, found) == found.group_of


def test_groups_that_straddle_declared_splits_are_counted_first(tmp_path: Path) -> None:
    for i, split in enumerate(("train", "val", "test")):
        for name in "ab":
            for j in range(5):
                write_image(
                    tmp_path / "p" / split / name / f"{split if j else 'x'}{name}-{j}.png", 100 * i + 10 * ord(name) + j
                )
    found = look(tmp_path / "p", group=r"^(\w+)-")
    assert notes_of(found)[0] == (
        "LEAK: 2 of 10 test images and 2 of 10 validation images are of groups that are also in train, "
        'so test and validation scores are too good; set copies = "train" in [data]'
    )


def test_groups_are_in_the_digest_of_rows_where_they_are_used_alone(tmp_path: Path) -> None:
    write_animals(tmp_path / "p")
    found, without = look(tmp_path / "p", group=PATTERN), look(tmp_path / "p")
    assert "group" not in json.loads((tmp_path / "cache" / "manifest.json").read_text())
    assert without.groups == () and without.group_of == {}
    same = Manifest(found.layout, found.classes, found.records)
    assert same.rows_digest != found.rows_digest != _with_groups(found, without).rows_digest
    assert found.rows_digest == Manifest("csv", found.classes, found.records, groups=found.groups).rows_digest


def test_a_class_without_a_training_image_gets_a_whole_group(tmp_path: Path) -> None:
    write_animals(tmp_path / "p", 20)
    for i in range(6):
        write_image(tmp_path / "p" / "owl" / f"animal{100 + i // 3}-{i}.png", 7000 + i)
    for seed in range(12):
        found = look(tmp_path / "p", group=PATTERN, seed=seed, test=0.4, validation=0.4)
        assert all(len(each) == 1 for each in by_group(found).values())


def test_datasets_and_folds_keep_groups(tmp_path: Path) -> None:
    write_animals(tmp_path / "p")
    write_photos(tmp_path / "p", {"cat": 20, "dog": 20}, first=5000)
    data = Dataset(look(tmp_path / "p", group=PATTERN), {})
    assert data.groups is not None and data.groups.dtype == np.int64
    of = data.manifest.group_of
    names = [of.get(record.sha256, record.sha256) for record in data.records]
    assert len(set(zip(names, data.groups.tolist(), strict=True))) == len(set(names)) == len(set(data.groups.tolist()))
    rows = data.rows("train", "validation")
    folds = cross_validation(data, 4, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in folds])), rows)
    for trained, held in folds:
        assert not set(data.groups[trained]) & set(data.groups[held])
        assert len(rows) / 4 - 10 < len(held) < len(rows) / 4 + 10
        assert set(data.y[held]) == {0, 1}
    again = cross_validation(data, 4, 0)
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(folds, again, strict=True))
    with pytest.raises(DataError, match="cv = 500: expected as many"):
        cross_validation(data, 500, 0)
    assert Dataset(look(tmp_path / "p"), {}).groups is None


def test_intervals_count_the_images_of_a_group_as_fewer(tmp_path: Path) -> None:
    write_animals(tmp_path / "p")
    grouped = look(tmp_path / "p", group=PATTERN)
    data, alone = Dataset(grouped, {}), Dataset(_with_groups(grouped, look(tmp_path / "p")), {})
    assert data.groups is not None and alone.groups is None
    # All photos of every fourth animal are mistaken for the other class.
    wrong = np.array([int(grouped.group_of[record.sha256]) % 4 == 0 for record in data.records])
    logs = np.log(np.where((np.arange(2) == data.y[:, None]) ^ wrong[:, None], 0.9, 0.1))
    one, other = (train._metrics(each, logs, "train", 1.0) for each in (data, alone))
    assert one["accuracy"] == other["accuracy"] and one["n"] == other["n"]
    (low, high), (lower, higher) = one["accuracy_interval"], other["accuracy_interval"]
    assert high - low > 1.8 * (higher - lower)


# Images as (content, group): contents that are in several groups join these.
images = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), min_size=1, max_size=40, unique=True)
BY_NAME = DataSpec(root=Path("/"), group=r"^g(\d+)-")


def named(some: list[tuple[int, int]]) -> list[tuple[str, str]]:
    return [(f"cat/g{group}-{content}.png", f"{content:064x}") for content, group in some]


@given(images, st.randoms(use_true_random=False))
def test_groups_do_not_depend_on_the_order_of_files(some: list[tuple[int, int]], chance: random.Random) -> None:
    files = named(some)
    found = groups_of(BY_NAME, "classes", files)
    assert set(found) == {sha256 for _, sha256 in files}
    for content, group in some:
        # All contents of a group have one name, that of the first of the groups that are joined.
        assert len({found[f"{other:064x}"] for other, its in some if its == group}) == 1
        assert found[f"{content:064x}"] <= str(group)
    chance.shuffle(files)
    assert groups_of(BY_NAME, "classes", files) == found


@given(st.lists(st.integers(0, 8), max_size=30), st.lists(st.integers(0, 12), max_size=30), st.integers(0, 100))
def test_images_added_to_groups_and_new_groups_move_none(before: list[int], more: list[int], seed: int) -> None:
    some = named(list(enumerate([*before, *more])))
    alone = [(f"{i}.png", f"f{i:063x}") for i in range(60)]  # in no group, so that each class has a training image
    data = BY_NAME.model_copy(update={"seed": seed})

    def drawn(files: list[tuple[str, str]]) -> dict[str, str]:
        rows = [(path, sha256, "a", None) for path, sha256 in files]
        records, _ = assign_splits(data, rows, drawn_by(groups_of(data, "classes", files)))
        return {record.path: record.split for record in records}

    first = drawn([*alone, *some[: len(before)], ("g99-x.png", "e" * 64)])
    then = drawn([*alone, *some, ("g99-x.png", "e" * 64)])
    assert {path: then[path] for path in first} == first
