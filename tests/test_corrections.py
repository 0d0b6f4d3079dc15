"""Labels that are laid over those of the folders, and images that are dropped."""

from pathlib import Path

import pytest
from conftest import look, splits, write_image, write_photos

from cache.errors import DataError
from cache.files import sha256_file
from stages.data.groups import groups_again
from stages.data.scan import scan
from stages.data.spec import DataSpec


def correct(folder: Path, *lines: str) -> Path:
    path = folder / "corrections.csv"
    path.write_text("\n".join(["path,label", *lines]) + "\n")
    return path


def test_labels_are_corrected_and_images_dropped(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20})
    before = look(tmp_path / "p")
    table = correct(tmp_path, "a/a0.png,b", "a/a1.png,drop", "b/b0.png,b")
    found = look(tmp_path / "p", corrections=table)
    labels = {record.path: record.label for record in found.records}
    assert labels["a/a0.png"] == "b" and "a/a1.png" not in labels and len(labels) == 39
    assert found.notes == ("corrections.csv: 1 label corrected, 1 image dropped",) and found.unlabelled == ()
    assert {path: splits(before)[path] for path in labels} == splits(found)
    correct(tmp_path, "a/a0.png,a")
    assert look(tmp_path / "p", corrections=table).rows_digest == before.rows_digest


def test_dropped_images_are_listed_with_the_reason(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20})
    table = correct(tmp_path, "a/a1.png,drop")
    found = look(tmp_path / "p", corrections=table)
    assert found.skipped == {"a/a1.png": "dropped by corrections.csv"}
    # They are no bad images; and to drop one is a way on from an image that is.
    undecodable = {sha256_file(tmp_path / "p" / "a" / "a1.png"): "damaged"}
    data = DataSpec(root=tmp_path / "p", corrections=table, on_bad_image="fail")
    assert scan(data, tmp_path / "other", undecodable).skipped == found.skipped
    with pytest.raises(DataError, match="a1.png: damaged; mend or remove it"):
        scan(data.model_copy(update={"corrections": None}), tmp_path / "other", undecodable)


def test_groups_may_name_dropped_images_where_the_images_are_gone(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20})
    groups = tmp_path / "groups.csv"
    groups.write_text("filename,group\na/a1.png,x\na/a2.png,x\n")
    data = DataSpec(root=tmp_path / "p", corrections=correct(tmp_path, "a/a1.png,drop"), group=str(groups))
    found = scan(data, tmp_path / "cache", {})
    assert groups_again(data, found) == found.group_of and len(found.group_of) == 1


def test_an_unlabelled_image_may_be_labelled(tmp_path: Path) -> None:
    for i in range(40):
        write_image(tmp_path / "p" / "train" / f"{'cat' if i % 2 else 'dog'}.{i}.jpg", i)
    write_image(tmp_path / "p" / "test1" / "1.jpg", 100)
    found = look(tmp_path / "p", corrections=correct(tmp_path, "test1/1.jpg,cat"))
    assert found.unlabelled == () and len(found.records) == 41


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a/a00.png,b", r"line 2: expected the path of an image, found 'a/a00.png' \(the nearest is 'a/a0.png'\); paths are relative"),
        ("a/a0.png,bee", "line 2: expected a class of the folder, or 'drop', found 'bee'; mend the label"),
        ("a/a0.png,", "line 2: expected a label, found none; fill it in, or remove the line"),
        ("a/a0.png,a\na/a0.png,b", "line 3: expected each path once, found a/a0.png again with another label; keep one line"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, line: str, message: str) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20})
    with pytest.raises(DataError, match=message):
        look(tmp_path / "p", corrections=correct(tmp_path, line))


def test_an_unknown_class_names_the_nearest(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"beagle": 20, "poodle": 20})
    with pytest.raises(DataError, match=r"found 'bagle' \(the nearest is 'beagle'\)"):
        look(tmp_path / "p", corrections=correct(tmp_path, "poodle/poodle0.png,bagle"))


def test_no_file_no_columns_and_a_class_named_drop(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20})
    with pytest.raises(
        DataError, match=r"no.csv: expected a CSV of path and label, found none .*; mend data.corrections"
    ):
        look(tmp_path / "p", corrections=tmp_path / "no.csv")
    (tmp_path / "c.csv").write_text("filename,label\n")
    with pytest.raises(DataError, match="expected a first line with the columns path and label, found filename, label"):
        look(tmp_path / "p", corrections=tmp_path / "c.csv")
    (tmp_path / "p" / "a").rename(tmp_path / "p" / "drop")
    with pytest.raises(DataError, match="expected no class named 'drop'"):
        look(tmp_path / "p", corrections=correct(tmp_path))
