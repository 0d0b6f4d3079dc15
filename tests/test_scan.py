"""Layouts, and what a folder of files turns into."""

import hashlib
from pathlib import Path

import pytest
from conftest import look, splits, write_image, write_photos
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import DataError, ImageRecord, Manifest
from stages.data.scan import scan
from stages.data.spec import DataSpec

digests = st.integers(min_value=0).map(lambda n: hashlib.sha256(str(n).encode()).hexdigest())


def labels(manifest: Manifest) -> dict[str, str]:
    return {record.path: record.label for record in manifest.records}


# Layouts


def test_classes(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"Pizza": 20, "Burger": 20})
    write_image(tmp_path / "p" / "Pizza" / "deeper" / "x.jpg", 99)
    found = look(tmp_path / "p")
    assert found.layout == "classes" and found.classes == ("Burger", "Pizza")
    assert labels(found)["Pizza/deeper/x.jpg"] == "Pizza"


@pytest.mark.parametrize("name", ["validation", "val", "valid", "Validation"])
def test_splits(tmp_path: Path, name: str) -> None:
    for i, split in enumerate(("train", name, "test")):
        write_photos(tmp_path / "p" / split, {"cats": 3, "dogs": 3}, first=10 * i)
    found = look(tmp_path / "p")
    assert found.layout == "splits" and found.notes == ()
    assert splits(found)[f"{name}/cats/cats0.png"] == "validation"
    assert [sum(c.values()) for c in found.counts().values()] == [6, 6, 6]


def test_splits_without_validation_draw_it_from_train_and_leave_test_alone(tmp_path: Path) -> None:
    write_photos(tmp_path / "p" / "train", {"cats": 30, "dogs": 30})
    write_photos(tmp_path / "p" / "test", {"cats": 5, "dogs": 5}, first=100)
    found = look(tmp_path / "p")
    counts = {split: sum(c.values()) for split, c in found.counts().items()}
    assert counts["test"] == 10 and counts["train"] + counts["validation"] == 60 and counts["validation"] > 3
    assert "20% of train is drawn" in found.notes[0]


def test_splits_without_test_take_none_from_train(tmp_path: Path) -> None:
    write_photos(tmp_path / "p" / "train", {"cats": 5, "dogs": 5})
    write_photos(tmp_path / "p" / "val", {"cats": 5, "dogs": 5}, first=100)
    found = look(tmp_path / "p")
    assert sum(found.counts()["test"].values()) == 0
    assert "nothing is tested" in found.notes[0]


def test_names_with_an_unlabelled_folder(tmp_path: Path) -> None:
    for i in range(20):
        write_image(tmp_path / "p" / "train" / f"{'cat' if i % 2 else 'dog'}.{i}.jpg", i)
    for i in range(3):
        write_image(tmp_path / "p" / "test1" / f"{i}.jpg", 100 + i)
    found = look(tmp_path / "p")
    assert found.layout == "names" and found.classes == ("cat", "dog")
    assert found.unlabelled == ("test1/0.jpg", "test1/1.jpg", "test1/2.jpg")
    assert len(found.records) == 20


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat.0.jpg", "cat"),
        ("great_dane_12.png", "great_dane"),
        ("Great Dane (3).jpg", "Great Dane"),
        ("owl-7.bmp", "owl"),
    ],
)
def test_labels_from_names(tmp_path: Path, name: str, label: str) -> None:
    write_image(tmp_path / "p" / name, 0)
    for i in range(20):
        write_image(tmp_path / "p" / f"{'other' if i % 2 else label}.{100 + i}.jpg", 1 + i)
    assert labels(look(tmp_path / "p"))[name] == label


def write_csv(root: Path, lines: list[str]) -> Path:
    path = root / "labels.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_csv_with_and_without_a_split_column(tmp_path: Path) -> None:
    root = tmp_path / "p"
    for i in range(30):
        write_image(root / "all" / f"{i}.jpg", i)
    write_csv(root, ["filename,label", *(f"all/{i}.jpg,{'ab'[i % 2]}" for i in range(29))])
    found = look(root)
    assert found.layout == "csv" and found.unlabelled == ("all/29.jpg",)
    assert found.ignored == {".csv": 1}
    write_csv(
        root,
        ["Filename, Label ,Split", *(f"all/{i}.jpg,{'ab'[i % 2]},{'train' if i < 20 else 'val'}" for i in range(30))],
    )
    assert [sum(c.values()) for c in look(root).counts().values()] == [20, 10, 0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["filename,label", "all/0.jpg,a", "all/77.jpg,b"], r"names 1 of 2 files that are not images under .*: all/77.jpg; names are relative"),
        (["file,label", "all/0.jpg,a"], "expected a first line with the columns filename, label and optionally split, found file, label"),
        (["filename,label,split", "all/0.jpg,a,trian"], r"line 2: expected a split of train, validation, test, found 'trian' \(did you mean 'train'\?\)"),
        (["filename,label", "all/0.jpg,a", "all/0.jpg,b"], "line 3: all/0.jpg is named twice with different labels"),
        (["filename,label", '"all/0.jpg,a', "all/0.jpg,b"], "labels.csv: expected a CSV, found unexpected end of data in the row that begins at line 2; look for a quot"),
        (["filename,label", 'all/0.jpg,"a', "all/0.jpg,b"], "expected a CSV, found unexpected end of data in the row that begins at line 2"),
        (["filename,label", 'all/0.jpg,"a', 'all/0.jpg,"b"'], "expected a CSV, found ',' expected after '\"' in the row that begins at line 2"),
        (['"filename,label', "all/0.jpg,a"], "expected a CSV, found unexpected end of data in the row that begins at line 1"),
    ],
)  # fmt: skip
def test_errors_in_a_csv(tmp_path: Path, lines: list[str], message: str) -> None:
    write_image(tmp_path / "p" / "all" / "0.jpg", 0)
    write_csv(tmp_path / "p", lines)
    with pytest.raises(DataError, match=message):
        look(tmp_path / "p")


def test_a_layout_can_be_forced(tmp_path: Path) -> None:
    write_photos(tmp_path / "p" / "train", {"cats": 20, "dogs": 20})
    write_photos(tmp_path / "p" / "test", {"cats": 20, "dogs": 20}, first=100)
    assert look(tmp_path / "p", layout="classes").classes == ("test", "train")


# Errors, and what is left out


def test_no_folder_no_images_one_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder of images, found nothing; set data.root"):
        look(tmp_path / "p")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"expected images \(.*\.jpg.*\), found 1 \.txt"):
        look(tmp_path / "p")
    write_photos(tmp_path / "p", {"cats": 20})
    with pytest.raises(DataError, match=r"at least two classes, found one class only \(cats\) in layout 'classes'"):
        look(tmp_path / "p")


def test_a_class_without_a_training_image(tmp_path: Path) -> None:
    write_photos(tmp_path / "p" / "train", {"cats": 5, "dogs": 5})
    write_photos(tmp_path / "p" / "val", {"cats": 5, "dogs": 5, "owls": 5}, first=100)
    with pytest.raises(DataError, match="class 'owls' has no image in train; add images to it"):
        look(tmp_path / "p")


def test_images_that_no_layout_labels(tmp_path: Path) -> None:
    write_image(tmp_path / "p" / "holiday.jpg", 0)
    with pytest.raises(DataError, match=r"found 1 images that no layout labels, such as holiday.jpg"):
        look(tmp_path / "p")


def test_unknown_extensions_and_hidden_files_are_counted(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20})
    for name in ("a/x.psd", "a/y.PSD", "b/README", "a/.DS_Store"):
        (tmp_path / "p" / name).write_text("x")
    assert look(tmp_path / "p").ignored == {".psd": 2, "no extension": 1}


def test_links_are_followed_within_the_folder_alone(tmp_path: Path) -> None:
    root = tmp_path / "p"
    write_photos(root, {"a": 20, "b": 20})
    write_image(tmp_path / "outside.png", 77)
    (root / "a" / "in.png").symlink_to(root / "b" / "b0.png")
    (root / "a" / "out.png").symlink_to(tmp_path / "outside.png")
    (root / "a" / "broken.png").symlink_to(root / "nothing.png")
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "more").mkdir()
    (root / "a" / "more" / "up").symlink_to("..")
    found = look(root)
    assert labels(found)["a/in.png"] == "a" and len(found.records) == 41
    assert found.skipped == {
        "a/broken.png": "a link to a file that does not exist",
        "a/loop": "a link to a folder that contains it, not followed",
        "a/more/up": "a link to a folder that contains it, not followed",
        "a/out.png": "a link out of the data folder, not followed",
    }


def test_identical_files_that_disagree_are_named(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20})
    (tmp_path / "p" / "b" / "copy.png").write_bytes((tmp_path / "p" / "a" / "a0.png").read_bytes())
    assert look(tmp_path / "p").notes == ("identical files with different labels: a/a0.png, b/copy.png",)


def test_identical_files_in_declared_splits_are_named(tmp_path: Path) -> None:
    write_photos(tmp_path / "p" / "train", {"a": 5, "b": 5})
    write_photos(tmp_path / "p" / "val", {"a": 5, "b": 5}, first=100)
    write_photos(tmp_path / "p" / "test", {"a": 5, "b": 5}, first=200)
    (tmp_path / "p" / "test" / "a" / "leak.png").write_bytes((tmp_path / "p" / "train" / "a" / "a0.png").read_bytes())
    assert look(tmp_path / "p").notes == ("identical files in different splits: test/a/leak.png, train/a/a0.png",)


# The manifest

names = st.text(st.characters(exclude_characters="\0/", exclude_categories=()), min_size=1).filter(
    lambda s: s not in (".", "..")
)
records = st.builds(
    ImageRecord,
    path=names,
    sha256=digests,
    label=st.sampled_from(["a", "b"]),
    split=st.sampled_from(["train", "test"]),
    declared=st.sampled_from([None, "train"]),
)


@settings(deadline=None)
@given(st.lists(records, max_size=6), st.dictionaries(names, st.text(), max_size=3))
def test_a_manifest_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[ImageRecord], skipped: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("m") / "manifest.json"
    before = Manifest("classes", ("a", "b"), tuple(rows), skipped)
    assert before.save(path) and not before.save(path)
    assert Manifest.load(path) == before and Manifest.load(path).digest == before.digest


@given(st.lists(records, min_size=1, max_size=6), st.randoms())
def test_the_digest_of_rows_knows_no_names_and_no_order(rows: list[ImageRecord], random: object) -> None:
    renamed = [ImageRecord(f"{i}.png", r.sha256, r.label, r.split) for i, r in enumerate(rows)]
    random.shuffle(renamed)  # type: ignore[attr-defined]
    before, after = Manifest("classes", ("a", "b"), tuple(rows)), Manifest("csv", ("a", "b"), tuple(renamed))
    assert before.rows_digest == after.rows_digest
    first = rows[0]
    relabelled = ImageRecord(first.path, first.sha256, "b" if first.label == "a" else "a", first.split)
    assert Manifest("classes", ("a", "b"), (relabelled, *rows[1:])).rows_digest != before.rows_digest
    assert Manifest("classes", ("a", "b", "c"), tuple(rows)).rows_digest != before.rows_digest


def test_folders_named_like_splits_beside_others_are_an_error(tmp_path: Path) -> None:
    write_photos(tmp_path / "p" / "train", {"cats": 5, "dogs": 5})
    write_photos(tmp_path / "p" / "samples", {"cats": 5, "dogs": 5}, first=100)
    with pytest.raises(
        DataError, match=r"folders named like splits \(train\) beside others \(samples\).*set data.layout"
    ):
        look(tmp_path / "p")


def test_a_csv_with_splits_for_some_draws_the_others(tmp_path: Path) -> None:
    root = tmp_path / "p"
    for i in range(40):
        write_image(root / f"{i}.jpg", i)
    given = {0: "test", 1: "test", 2: "validation", 3: "validation"}
    write_csv(root, ["filename,label,split", *(f"{i}.jpg,{'ab'[i % 2]},{given.get(i, '')}" for i in range(40))])
    found = look(root)
    counts = {split: sum(c.values()) for split, c in found.counts().items()}
    assert counts["test"] == 2 and counts["train"] > 20 and found.notes == ()


def test_a_csv_may_name_a_file_that_is_skipped(tmp_path: Path) -> None:
    root = tmp_path / "p"
    for i in range(30):
        write_image(root / f"{i}.jpg", i)
    (root / "broken.jpg").symlink_to(root / "nothing")
    write_csv(root, ["filename,label", "broken.jpg,a", *(f"{i}.jpg,{'ab'[i % 2]}" for i in range(30))])
    assert list(look(root).skipped) == ["broken.jpg"]


def test_the_cache_inside_the_data_folder_is_no_data(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20})
    write_image(tmp_path / "p" / "artifacts" / "x.png", 700)
    found = scan(DataSpec(root=tmp_path / "p", seed=1), tmp_path / "p" / "artifacts", {})
    assert found.classes == ("a", "b")


def test_a_folder_in_between_is_suggested_as_the_root(tmp_path: Path) -> None:
    write_photos(tmp_path / "p" / "animals", {"cat": 20, "dog": 20})
    with pytest.raises(
        DataError, match=r'one class only \(animals\), whose images lie in folders.*data.root = ".*/p/animals"'
    ):
        look(tmp_path / "p")
