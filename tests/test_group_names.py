"""Where groups are told: a pattern of file names, a CSV file, a column of the labels; and what is wrong there."""

import shutil
from pathlib import Path

import pytest
from conftest import look, write_image
from grouped import PATTERN, write_animals

from cache import Manifest
from cache.errors import DataError
from pipeline.config.load import load_config
from stages.data.groups import groups_again
from stages.data.spec import DataSpec


def write_groups(folder: Path, *lines: str) -> str:
    path = folder / "groups.csv"
    path.write_text("\n".join(["filename,group", *lines]) + "\n")
    return str(path)


def refused(root: Path, group: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        look(root, group=group)


def test_a_file_of_groups_says_what_a_pattern_says(tmp_path: Path) -> None:
    write_animals(tmp_path / "p")
    expected = look(tmp_path / "p", group=PATTERN)
    lines = [f"{record.path},{group}" for record, group in zip(expected.records, expected.groups, strict=True)]
    found = look(tmp_path / "p", group=write_groups(tmp_path, *lines))
    assert found == expected
    some = look(tmp_path / "p", group=write_groups(tmp_path, *lines[:5]))  # the file is among the scan's inputs
    assert some.groups.count("") == 195 and some.notes[0] == "groups: 5 images in 1 group, 195 in none"


def write_labels(root: Path, groups: dict[str, str], column: str = "Animal") -> None:
    paths = sorted(f"{path.parent.name}/{path.name}" for path in root.glob("*/*.png"))
    lines = [f"{path},{path.split('/')[0]},{groups.get(path, '')}" for path in paths]
    (root / "labels.csv").write_text("\n".join([f"filename,label,{column}", *lines]) + "\n")


def test_a_column_of_the_labels_says_what_a_pattern_says(tmp_path: Path) -> None:
    write_animals(tmp_path / "p")
    expected = look(tmp_path / "p", group=PATTERN)
    groups = dict(zip((record.path for record in expected.records), expected.groups, strict=True))
    write_labels(tmp_path / "p", groups)
    found = look(tmp_path / "p", group="animal")
    assert found.layout == "csv" and (found.records, found.groups) == (expected.records, expected.groups)
    # An image without a value is in no group, and the column is among the scan's inputs.
    write_labels(tmp_path / "p", {path: name for path, name in groups.items() if name == "7"})
    assert look(tmp_path / "p", group="animal").notes[0] == "groups: 5 images in 1 group, 195 in none"


def test_a_column_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    write_animals(tmp_path / "p", 20)
    refused(
        tmp_path / "p",
        "animal",
        r"data.group = 'animal': expected a .csv file, a pattern with one part in brackets, or a column of the CSV of labels, "
        "found no such CSV, as the layout is 'classes'; mend data.group",
    )
    write_labels(tmp_path / "p", {})
    refused(
        tmp_path / "p",
        "aminal",
        r"labels.csv: expected a column 'aminal', found filename, label, animal \(did you mean 'animal'\?\); mend",
    )
    refused(tmp_path / "p", "label", "expected a column of groups, found 'label', which has another meaning")


def test_where_the_labels_are_gone_groups_stay_as_they_were(tmp_path: Path) -> None:
    write_animals(tmp_path / "p", 20)
    write_labels(
        tmp_path / "p", {f"{k}/animal{n}-{i}.png": f"{n}" for n in range(20) for k in ("cat", "dog") for i in range(5)}
    )
    found = look(tmp_path / "p", group="animal")
    data = DataSpec(root=tmp_path / "p", group="animal")
    assert groups_again(data, found) == found.group_of and len(found.group_of) == 100
    shutil.rmtree(tmp_path / "p")
    assert groups_again(data, found) == found.group_of
    with pytest.raises(DataError, match="labels.csv: expected a CSV with a column 'animal', found none"):
        groups_again(data, Manifest("csv", found.classes, found.records))


def test_a_group_of_more_than_half_of_the_images_is_named(tmp_path: Path) -> None:
    write_animals(tmp_path / "p", 20)
    pattern = r"(animal\d)"  # meant for all digits, it puts animals 1 and 10 to 19 together
    (note,) = [note for note in look(tmp_path / "p", group=pattern).notes if note.startswith("GROUPS")]
    assert note == (
        r"GROUPS: data.group = '(animal\\d)': found 10 groups among 100 images, the largest of which ('animal1') has 55, more than "
        "half, and goes into one split; mend data.group so that it tells groups apart: what the part in brackets matches is the name "
        "of the group"
    )
    assert not [note for note in look(tmp_path / "p", group=PATTERN).notes if note.startswith("GROUPS")]


def test_one_group_of_all_images_is_an_error(tmp_path: Path) -> None:
    write_animals(tmp_path / "p", 20)
    refused(
        tmp_path / "p",
        "(animal)",
        r"data.group = '\(animal\)': found 1 group among 100 images, the largest of which \('animal'\) has 100: expected groups "
        "that are much smaller, as each goes into one split; mend data.group so that it tells groups apart: what the part in brackets",
    )
    lines = [f"{path.parent.name}/{path.name},all" for path in (tmp_path / "p").glob("*/*.png")]
    refused(
        tmp_path / "p",
        write_groups(tmp_path, *lines),
        "has 100: expected .* its column group has the name of the group",
    )
    write_labels(tmp_path / "p", dict.fromkeys((line.split(",")[0] for line in lines), "all"))
    refused(tmp_path / "p", "animal", "has 100: expected .* each value of that column is a group")


def test_names_that_begin_with_a_space_are_found_in_every_table(tmp_path: Path) -> None:
    """Around names of which there is no such file, spaces are as if not there."""
    root = tmp_path / "p"
    names = [f" {i}.png" if i % 2 else f"{i}.png" for i in range(40)] + ["\u00a0x.png", " 0.png"]
    for i, name in enumerate(names):
        write_image(root / name, i)
    rows = [f"{name},{'cat' if i % 3 else 'dog'},{'g' if i < 4 else ''}" for i, name in enumerate(names)]
    rows[2] = f" {rows[2]}"
    (root / "labels.csv").write_text("\n".join(["filename,label,animal", *rows]) + "\n")
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("path,label\n 1.png,dog\n 2.png , dog\n")
    found = look(root, group="animal", corrections=corrections)
    assert {record.path for record in found.records} == set(names) and found.unlabelled == ()
    of = {record.path: (record.label, group) for record, group in zip(found.records, found.groups, strict=True)}
    assert of[" 1.png"] == of["2.png"] == ("dog", "g") and of["0.png"] == ("dog", "g") and of[" 0.png"] == ("cat", "")
    found = look(root, group=write_groups(tmp_path, " 1.png,x", " 2.png , x", "\u00a0x.png,x"))
    grouped = {record.path for record, group in zip(found.records, found.groups, strict=True) if group == "x"}
    assert grouped == {" 1.png", "2.png", "\u00a0x.png"}


def test_mistakes_are_named(tmp_path: Path) -> None:
    write_animals(tmp_path / "p")
    refused(tmp_path / "p", "x(y)", r"expected file names that the pattern 'x\(y\)' matches, found 200 images and none")
    refused(
        tmp_path / "p",
        write_groups(tmp_path, "cat/animal0-00.png,1"),
        r"line 2: expected the name of an image, found 'cat/animal0-00.png' \(the nearest is",
    )


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (
            "(a)(b)",
            "expected a .csv file, a pattern with one part in brackets, or a column of the CSV of labels, found '(a)(b)' with 2",
        ),
        (
            "(a",
            "expected a .csv file, a pattern with one part in brackets, or a column of the CSV of labels, found '(a' (",
        ),
    ],
)
def test_a_pattern_has_one_part_in_brackets(tmp_path: Path, group: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f"[data]\nroot = 'photos'\ngroup = '{group}'\n")
    with pytest.raises(Exception) as error:
        load_config(path)
    assert message in str(error.value) and "[data] group" in str(error.value)
    path.write_text("[data]\nroot = 'photos'\ngroup = 'groups.csv'\n")
    assert load_config(path).data.group_file == tmp_path / "groups.csv"
