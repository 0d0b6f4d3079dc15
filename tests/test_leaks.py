"""Copies of one image in several splits: counted, and put into train where that is asked for."""

from pathlib import Path

from conftest import look, splits, write_photos

from stages.data.leaks import notes_of


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
    assert notes_of(found) == ("1 of validation and 2 of test moved to train, as copies of them are there",)
    assert look(tmp_path / "p").notes != found.notes  # the option is among the scan's inputs


def test_drawn_splits_have_no_leaks(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20})
    for i in range(5):
        (tmp_path / "p" / "a" / f"copy{i}.png").write_bytes((tmp_path / "p" / "a" / f"a{i}.png").read_bytes())
    kept = look(tmp_path / "p")
    assert notes_of(kept) == () and splits(look(tmp_path / "p", copies="train")) == splits(kept)
