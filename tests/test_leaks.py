"""Copies of one image in several splits: counted, and put into train where that is asked for."""

from pathlib import Path

import pytest
from conftest import look, splits, write_photos
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import DataError
from stages.data.leaks import notes_of
from stages.data.spec import DataSpec
from stages.data.splits import assign_splits


def leaky(root: Path) -> None:
    """Declared splits, two of whose twelve test images and one of whose ten for validation are copies of training images."""
    write_photos(root / "train", {"a": 5, "b": 5})
    write_photos(root / "val", {"a": 5, "b": 5}, first=100)
    write_photos(root / "test", {"a": 5, "b": 5}, first=200)
    for i, place in enumerate(("test/a/leak.png", "test/a/leak2.png", "val/a/a0.png")):
        (root / place).write_bytes((root / "train" / "a" / f"a{i}.png").read_bytes())


def test_leaks_between_declared_splits_are_counted_first(tmp_path: Path) -> None:
    leaky(tmp_path / "p")
    first, *names = notes_of(look(tmp_path / "p"))
    assert first == (
        "LEAK: 2 of 12 test images and 1 of 10 validation images are also in train, so test and validation scores are too good; "
        'set copies = "train" in [data]'
    )
    assert len(names) == 3 and all(note.startswith("identical files in different splits") for note in names)


def test_copies_of_training_images_can_count_as_train(tmp_path: Path) -> None:
    leaky(tmp_path / "p")
    before, found = splits(look(tmp_path / "p")), look(tmp_path / "p", copies="train")
    moved = {path for path, split in splits(found).items() if split != before[path]}
    assert moved == {"test/a/leak.png", "test/a/leak2.png", "val/a/a0.png"}
    assert all(splits(found)[path] == "train" for path in moved)
    assert notes_of(found) == (
        "copies: 1 of validation and 2 of test moved to train, as the same images are in several splits",
    )
    assert look(tmp_path / "p").notes != found.notes  # the option is among the scan's inputs


def test_drawn_splits_have_no_leaks(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20})
    for i in range(5):
        (tmp_path / "p" / "a" / f"copy{i}.png").write_bytes((tmp_path / "p" / "a" / f"a{i}.png").read_bytes())
    kept = look(tmp_path / "p")
    assert notes_of(kept) == () and splits(look(tmp_path / "p", copies="train")) == splits(kept)


def test_copies_in_test_and_validation_alone_are_leaks_too(tmp_path: Path) -> None:
    """Validation chooses heads, so that the score of a test image that it has seen is too good as well."""
    leaky(tmp_path / "p")
    (tmp_path / "p" / "test" / "b" / "b0.png").write_bytes((tmp_path / "p" / "val" / "b" / "b0.png").read_bytes())
    kept = notes_of(look(tmp_path / "p"))
    assert kept[1] == (
        "LEAK: 1 of 12 test images is also in validation, which chooses heads, so test scores are too good; "
        'set copies = "train" in [data]'
    )
    found = look(tmp_path / "p", copies="train")
    assert splits(found)["test/b/b0.png"] == splits(found)["val/b/b0.png"] == "train"
    assert notes_of(found) == (
        "copies: 2 of validation and 3 of test moved to train, as the same images are in several splits",
    )


def test_groups_that_straddle_declared_splits_can_count_as_train(tmp_path: Path) -> None:
    write_photos(tmp_path / "p" / "train", {"cat": 6, "dog": 6})
    write_photos(tmp_path / "p" / "val", {"cow": 1, "cat": 6, "dog": 6}, first=100)
    write_photos(tmp_path / "p" / "test", {"cat": 6, "dog": 6}, first=200)
    (tmp_path / "p" / "train" / "cow").mkdir()
    (tmp_path / "p" / "val" / "cow" / "cow0.png").rename(tmp_path / "p" / "train" / "cow" / "cow0.png")
    table = tmp_path / "groups.csv"
    rows = ["train/cat/cat0.png,x", "test/cat/cat1.png,x", "val/dog/dog2.png,y", "test/dog/dog3.png,y"]
    table.write_text("\n".join(["filename,group", *rows]) + "\n")
    kept = look(tmp_path / "p", group=str(table))
    assert notes_of(kept)[:2] == (
        "LEAK: 1 of 12 test images is of a group that is also in train, so test scores are too good; "
        'set copies = "train" in [data]',
        "LEAK: 1 of 12 test images is of a group that is also in validation, which chooses heads, so test scores are too good; "
        'set copies = "train" in [data]',
    )
    found = look(tmp_path / "p", group=str(table), copies="train")
    moved = {path for path, split in splits(found).items() if split != splits(kept)[path]}
    assert moved == {"test/cat/cat1.png", "val/dog/dog2.png", "test/dog/dog3.png"}
    assert found.notes[1].startswith(
        "copies: 1 of validation and 2 of test moved to train, as the same images or groups are in"
    )
    assert not any(note.startswith("LEAK") for note in notes_of(found))


def test_where_all_of_validation_would_move_the_error_says_so(tmp_path: Path) -> None:
    write_photos(tmp_path / "p" / "train", {"a": 3, "b": 3})
    for name in "ab":
        (tmp_path / "p" / "val" / name).mkdir(parents=True)
        (tmp_path / "p" / "val" / name / "0.png").write_bytes(
            (tmp_path / "p" / "train" / name / f"{name}0.png").read_bytes()
        )
    with pytest.raises(
        DataError, match='copies = "train": expected an image of validation that is in no other split, found'
    ):
        look(tmp_path / "p", copies="train")


Row = tuple[str, str, str, str | None]
declared = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from(("train", "validation", "test")), st.sampled_from("ab")), max_size=30
)


@given(declared, st.dictionaries(st.integers(0, 12), st.sampled_from("xyz")))
def test_no_content_and_no_group_is_in_two_splits_afterwards(
    some: list[tuple[int, str, str]], group: dict[int, str]
) -> None:
    # Images that are in one split each, so that there is something to train on and to choose by.
    fixed = [(100, "train", "a"), (101, "train", "b"), (102, "validation", "a"), (103, "test", "b")]
    rows: list[Row] = [(str(i), f"{n:064x}", label, split) for i, (n, split, label) in enumerate([*fixed, *some])]
    drawn_by = {f"{n:064x}": name for n, name in group.items()}
    before, _ = assign_splits(DataSpec(root=Path("/")), rows, drawn_by)
    after, _ = assign_splits(DataSpec(root=Path("/"), copies="train"), rows, drawn_by)
    units: dict[str, set[str]] = {}
    for record in before:
        units.setdefault(drawn_by.get(record.sha256, record.sha256), set()).add(record.split)
    for was, record in zip(before, after, strict=True):
        several = len(units[drawn_by.get(record.sha256, record.sha256)]) > 1
        assert record.split == ("train" if several else was.split)
