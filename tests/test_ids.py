"""A CSV of ids, as Kaggle's dog breeds come: labels.csv (id, breed), train/ID.jpg, test/ID.jpg, sample_submission.csv."""

import csv
import hashlib
import shutil
from pathlib import Path

import pytest
from conftest import look, splits, write_image, write_photos

from cache import DataError, Manifest
from stages.data.groups import groups_again
from stages.data.spec import DataSpec
from stages.predict.predict import Prediction
from stages.predict.submission import Form, form_of, write_submission

BREEDS = ("boxer", "african_hunting_dog", "chow")


def ident(i: int) -> str:
    """As in the competition: 32 hexadecimal digits."""
    return hashlib.md5(f"{i}".encode()).hexdigest()


def write_dogs(root: Path, images: int = 60, tests: int = 3) -> dict[str, str]:
    """The competition's folder, small; the breed of each id."""
    for i in range(images):
        write_image(root / "train" / f"{ident(i)}.jpg", i)
    for i in range(tests):
        write_image(root / "test" / f"{ident(1000 + i)}.jpg", 1000 + i)
    breeds = {ident(i): BREEDS[i % 3] for i in range(images)}
    write_labels(root, ["id,breed", *(f"{name},{breed}" for name, breed in breeds.items())])
    return breeds


def write_labels(root: Path, lines: list[str]) -> None:
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def write_sample(root: Path, *columns: str, ids: tuple[str, ...] = ()) -> None:
    lines = [",".join(columns), *(",".join([name, *["0.5"] * (len(columns) - 1)]) for name in ids)]
    (root / "sample_submission.csv").write_text("\n".join(lines) + "\n")


def test_the_competition_as_it_comes(tmp_path: Path) -> None:
    breeds = write_dogs(tmp_path / "dogs")
    write_sample(tmp_path / "dogs", "id", *sorted(BREEDS))
    found = look(tmp_path / "dogs")
    assert found.layout == "ids" and found.classes == ("african_hunting_dog", "boxer", "chow")
    assert {record.path: record.label for record in found.records} == {f"train/{n}.jpg": b for n, b in breeds.items()}
    assert found.unlabelled == tuple(sorted(f"test/{ident(1000 + i)}.jpg" for i in range(3)))
    assert found.ignored == {".csv": 2}
    assert {record.split for record in found.records} == {"train", "validation", "test"}


def test_labels_elsewhere_with_splits_and_any_name_of_the_column(tmp_path: Path) -> None:
    breeds = write_dogs(tmp_path / "dogs")
    (tmp_path / "dogs" / "labels.csv").unlink()
    lines = [f"{name},{'train' if i % 2 else 'val'},{breed}" for i, (name, breed) in enumerate(breeds.items())]
    (tmp_path / "mine.csv").write_text("\n".join([" ID ,split,Species", *lines]) + "\n")
    found = look(tmp_path / "dogs", labels=tmp_path / "mine.csv")
    assert found.layout == "ids" and found.classes == tuple(sorted(BREEDS))
    assert [len(list(each.elements())) for each in found.counts().values()] == [30, 30, 0]


def test_an_image_that_the_csv_does_not_name_has_no_label(tmp_path: Path) -> None:
    write_dogs(tmp_path / "dogs")
    write_image(tmp_path / "dogs" / "train" / "new.jpg", 5000)
    assert "train/new.jpg" in look(tmp_path / "dogs").unlabelled


def test_a_skipped_image_may_be_named(tmp_path: Path) -> None:
    write_dogs(tmp_path / "dogs")
    path = tmp_path / "dogs" / "train" / f"{ident(0)}.jpg"
    path.unlink()
    path.symlink_to("nothing")
    assert list(look(tmp_path / "dogs").skipped) == [f"train/{ident(0)}.jpg"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["id,breed", f"{ident(0)},boxer", "nobody,chow"], r"labels.csv: names 1 of 2 ids that are the name of no image under .*dogs outside test/: nobody; an id is"),
        (["id,breed", f"{ident(0)},boxer", f"{ident(1000)},chow"], f"names 1 of 2 ids .*: {ident(1000)}; an id is a file name without folder and extension"),
        (["id,breed", f"{ident(0)},boxer", f"{ident(0)},chow"], f"line 3: {ident(0)} is named twice with different labels"),
        (["id,split", f"{ident(0)},train"], "expected a first line with the columns id and that of the labels, such as id, breed, found id, split"),
        (["id,breed,split", f"{ident(0)},boxer,tset"], r"line 2: expected a split of train, validation, test, found 'tset' \(did you mean 'test'\?\)"),
    ],
)  # fmt: skip
def test_errors(tmp_path: Path, lines: list[str], message: str) -> None:
    write_dogs(tmp_path / "dogs")
    write_labels(tmp_path / "dogs", lines)
    with pytest.raises(DataError, match=message):
        look(tmp_path / "dogs")


def test_two_images_of_one_id_and_a_layout_that_does_not_fit(tmp_path: Path) -> None:
    write_dogs(tmp_path / "dogs")
    with pytest.raises(
        DataError, match="expected a first line with the columns filename, label and optionally split, found id"
    ):
        look(tmp_path / "dogs", layout="csv")
    write_image(tmp_path / "dogs" / "more" / f"{ident(0)}.png", 7)
    with pytest.raises(
        DataError, match=rf"expected one image for each id, found more/{ident(0)}.png and train/{ident(0)}.jpg for"
    ):
        look(tmp_path / "dogs")


def test_a_column_of_groups(tmp_path: Path) -> None:
    breeds = write_dogs(tmp_path / "dogs")
    lines = [f"{name},{breed},{name[0] if name[0] < '8' else ''}" for name, breed in breeds.items()]
    write_labels(tmp_path / "dogs", ["id,breed,Owner", *lines])
    found = look(tmp_path / "dogs", group="owner")
    assert {r.path: g for r, g in zip(found.records, found.groups, strict=True)} == {
        f"train/{name}.jpg": name[0] if name[0] < "8" else "" for name in breeds
    }
    assert groups_again(DataSpec(root=tmp_path / "dogs", group="owner"), found) == found.group_of


# The submission


def predicted(*rows: tuple[str, tuple[float, ...]], **options: object) -> list[Prediction]:
    return [Prediction(Path("test") / f"{name}.jpg", tuple(sorted(BREEDS)), p, **options) for name, p in rows]  # type: ignore[arg-type]


def rows_of(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_a_column_for_each_class_in_the_order_of_the_sample(tmp_path: Path) -> None:
    classes = sorted(BREEDS)
    assert form_of("ids", tmp_path, classes) == Form(("id", *classes), tuple(classes))
    write_sample(tmp_path, "id", "chow", "boxer", "african_hunting_dog", ids=("a", "b", "c"))
    form = form_of("ids", tmp_path, classes)
    found = predicted(("b", (0.7, 0.2, 0.1)), ("a", (1e-9, 0.25, 0.75))) + predicted(("c", ()), reason="damaged")
    lines = write_submission(tmp_path / "out.csv", found, form)
    assert rows_of(tmp_path / "out.csv") == [
        ["id", "chow", "boxer", "african_hunting_dog"],
        ["a", "0.75", "0.25", "1e-09"],
        ["b", "0.1", "0.2", "0.7"],
        ["c", "0.333333333", "0.333333333", "0.333333333"],
    ]
    assert [line.removeprefix(f"{tmp_path}/out.csv: ") for line in lines] == [
        "3 of 3 predictions written",
        "1 file could not be read: all classes have the same probability there",
    ]


def test_ids_that_are_not_those_of_the_sample_are_told(tmp_path: Path) -> None:
    write_sample(tmp_path, "id", *sorted(BREEDS), ids=("a", "b", "c"))
    found = predicted(("a", (0.7, 0.2, 0.1)), ("z", (0.5, 0.3, 0.2))) + predicted(("b", (0.4, 0.3, 0.3)), sure=False)
    lines = write_submission(tmp_path / "out.csv", found, form_of("ids", tmp_path, sorted(BREEDS)))
    assert lines[1:] == [
        f"{tmp_path}/out.csv: warning: 2 ids of sample_submission.csv missing, such as b; "
        "1 id not in sample_submission.csv, such as z; a competition may refuse the file"
    ]


def test_a_sample_with_one_column_of_labels(tmp_path: Path) -> None:
    write_sample(tmp_path, "id", "breed", ids=("a",))
    form = form_of("ids", tmp_path, sorted(BREEDS))
    assert form == Form(("id", "breed"), (), frozenset("a"))
    write_submission(tmp_path / "out.csv", predicted(("a", (0.2, 0.7, 0.1))), form)
    assert rows_of(tmp_path / "out.csv") == [["id", "breed"], ["a", "boxer"]]


def test_a_sample_of_other_classes_is_an_error(tmp_path: Path) -> None:
    write_sample(tmp_path, "id", "chow", "boxxer", "african_hunting_dog")
    with pytest.raises(
        DataError, match=r"named like the 3 classes, found 'boxxer' \(did you mean 'boxer'\?\); mend or remove it"
    ):
        form_of("ids", tmp_path, sorted(BREEDS))
    write_sample(tmp_path, "id", "chow", "boxer")
    with pytest.raises(DataError, match="a column for each of the 3 classes, found none for 'african_hunting_dog'"):
        form_of("ids", tmp_path, sorted(BREEDS))


def test_other_layouts_have_an_id_and_a_label(tmp_path: Path) -> None:
    write_sample(tmp_path, "id", *BREEDS)
    assert form_of("names", tmp_path, BREEDS) == form_of("csv", tmp_path, BREEDS) == Form(("id", "label"))


# A part of the images


def test_a_part_of_the_competition_has_every_breed(tmp_path: Path) -> None:
    write_dogs(tmp_path / "dogs")
    found = look(tmp_path / "dogs", limit=0.5, seed=3)
    assert found.drawn == "30 of 60 images, drawn by [data] limit" and len(found.records) == 30
    assert {name: len([r for r in found.records if r.label == name]) for name in BREEDS} == dict.fromkeys(BREEDS, 10)
    whole = splits(look(tmp_path / "dogs", seed=3))
    assert splits(found).items() <= whole.items()


def test_where_images_are_gone_a_file_of_groups_may_name_those_that_were_not_drawn(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20})
    table = tmp_path / "groups.csv"
    table.write_text("filename,group\n" + "".join(f"{k}/{k}{i}.png,{i // 2}\n" for k in "ab" for i in range(20)))
    data = DataSpec(root=tmp_path / "p", group=str(table), limit=20, seed=1)
    found = look(tmp_path / "p", group=str(table), limit=20)
    assert len(found.records) == 20
    shutil.rmtree(tmp_path / "p")
    assert groups_again(data, found) == found.group_of
    again = Manifest.load(tmp_path / "cache" / "manifest.json")
    assert again == found and again.drawn == "20 of 40 images, drawn by [data] limit"
    with pytest.raises(DataError, match=r"groups.csv, line \d+: expected the name of an image, found"):
        groups_again(data, Manifest(found.layout, found.classes, found.records, groups=found.groups))
