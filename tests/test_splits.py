"""Splits drawn from contents: their shares, and that images which are added move none of the others."""

import hashlib
import os
from pathlib import Path

import pytest
from conftest import look, splits, write_photos
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data.spec import DataSpec
from stages.data.splits import assign_splits, position

digests = st.integers(min_value=0).map(lambda n: hashlib.sha256(str(n).encode()).hexdigest())


def draw(sha256: str, seed: int, test: float, validation: float) -> str:
    """The split of one image among many of its class."""
    others = [(f"{i}", hashlib.sha256(f"other {i}".encode()).hexdigest(), "a", None) for i in range(30)]
    data = DataSpec(root=Path("/"), seed=seed, test=test, validation=validation)
    return assign_splits(data, [("x", sha256, "a", None), *others])[0][0].split


@given(digests, st.integers(0, 1000), st.floats(0, 0.4), st.floats(0.01, 0.4), st.floats(0.01, 0.15))
def test_a_larger_validation_share_moves_images_out_of_train_alone(
    sha256: str, seed: int, test: float, validation: float, more: float
) -> None:
    before, after = draw(sha256, seed, test, validation), draw(sha256, seed, test, validation + more)
    assert before == after or (before, after) == ("train", "validation")


def test_shares_are_what_was_asked_in_every_class() -> None:
    rows = [(f"{i}", hashlib.sha256(str(i).encode()).hexdigest(), "ab"[i % 2], None) for i in range(10_000)]
    records, notes = assign_splits(DataSpec(root=Path("/"), test=0.2, validation=0.3), rows)
    assert notes == []
    for name in "ab":
        drawn = [record.split for record in records if record.label == name]
        for split, share in (("test", 0.2), ("validation", 0.3), ("train", 0.5)):
            assert drawn.count(split) / len(drawn) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("classes, words", [("b", "1 class has"), ("bc", "2 classes have")])
def test_classes_that_a_split_lacks_are_counted(classes: str, words: str) -> None:
    rows = [(f"a{i}", hashlib.sha256(str(i).encode()).hexdigest(), "a", None) for i in range(40)]
    alone = [(f"{name}0", hashlib.sha256(name.encode()).hexdigest(), name, None) for name in classes]
    _, notes = assign_splits(DataSpec(root=Path("/")), [*rows, *alone])
    assert f"{words} no image in validation: {', '.join(classes)}" in notes


@given(st.lists(digests, min_size=1, max_size=5, unique=True), st.integers(0, 100))
def test_a_small_class_has_a_training_image(few: list[str], seed: int) -> None:
    many = [(f"m{i}", hashlib.sha256(f"many {i}".encode()).hexdigest(), "many", None) for i in range(30)]
    data = DataSpec(root=Path("/"), seed=seed, test=0.4, validation=0.4)
    records, notes = assign_splits(data, [*many, *((f"f{i}", sha, "few", None) for i, sha in enumerate(few))])
    mine = [record for record in records if record.label == "few"]
    assert any(record.split == "train" for record in mine)
    alone = [record.split for record in assign_splits(data, many)[0]]
    assert [record.split for record in records if record.label == "many"] == alone
    drawn = [
        "test" if position(r.sha256, seed) < 0.4 else "validation" if position(r.sha256, seed) < 0.8 else "train"
        for r in mine
    ]
    if "train" in drawn:
        assert [record.split for record in mine] == drawn
    else:
        assert "drawn into train, as their classes had none: few" in notes[0]
        assert sum(a != r.split for a, r in zip(drawn, mine, strict=True)) == 1


def test_the_drawn_positions_are_pinned() -> None:
    """Another way of drawing would silently move images between splits on everybody's machine."""
    found = [round(position(hashlib.sha256(str(i).encode()).hexdigest(), 0), 6) for i in range(3)]
    assert found == [0.82538, 0.909784, 0.712756]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 50), st.integers(1, 10))
def test_adding_images_moves_none_and_copies_share_a_split(
    tmp_path_factory: pytest.TempPathFactory, seed: int, more: int
) -> None:
    root = tmp_path_factory.mktemp("photos") / "data"
    write_photos(root, {"a": 25, "b": 25})
    before = splits(look(root, seed=seed))
    write_photos(root, {"new": more, "b": 0}, first=500)
    for path in sorted((root / "new").iterdir()):
        path.rename(root / "a" / path.name)
    os.rmdir(root / "new")
    (root / "b" / "copy.png").write_bytes((root / "b" / "b0.png").read_bytes())
    after = splits(look(root, seed=seed))
    assert {path: after[path] for path in before} == before
    assert after["b/copy.png"] == after["b/b0.png"]
