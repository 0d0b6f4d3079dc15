"""The audit and files: the images that it looks at, the tables that it leaves, the proposals that it writes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audits import CLASSES, classes_of, dataset, splits_of, task, with_copies
from conftest import write_image
from PIL import Image
from test_formats import AVIF

from cache.errors import CacheError, DataError
from cache.files import sha256_file
from stages.audit.audit import audit
from stages.audit.listing import listed_once
from stages.audit.pixels import looks
from stages.audit.proposals import write_corrections, write_groups
from stages.audit.results import COLUMNS, read_audit, read_table
from stages.heads.dataset import Dataset


def pictures(folder: Path) -> tuple[Dataset, Path]:
    """Image files of every kind that pixels tell, among ordinary ones, with made-up features."""
    root = folder / "photos"
    root.mkdir()
    names = [f"{i}.png" for i in range(60)]
    for i, name in enumerate(names):
        write_image(root / name, i, (90, 80))
    Image.new("RGB", (90, 80), (250, 250, 250)).save(root / "0.png")
    nearly = np.full((80, 90, 3), 30, np.uint8)
    nearly[:4, :4] = 255
    Image.fromarray(nearly).save(root / "1.png")
    write_image(root / "2.png", 2, (9, 8))
    (root / "3.png").write_bytes((root / "3.png").read_bytes()[:200])
    digests = [sha256_file(root / name) for name in names]
    (root / "4.png").unlink()
    X, labels = classes_of(60)
    return dataset(folder, X, labels, splits_of(60), names, digests), root


def test_pixels_are_looked_at_once(tmp_path: Path) -> None:
    data, root = pictures(tmp_path)
    result = audit(task(tmp_path, root), data)
    rows = {row["path"]: row for row in read_table(task(tmp_path).folder, "outliers.csv")}
    problems = {path: rows[path]["problem"] for path in ("0.png", "1.png", "2.png", "3.png", "4.png")}
    assert problems == {
        "0.png": "blank",
        "1.png": "nearly one colour",
        "2.png": "tiny",
        "3.png": "not looked at",
        "4.png": "not looked at",
    }
    assert "no longer there" in rows["4.png"]["detail"] and result["pixels"] == {"seen": 58, "unread": 2}
    for path in root.glob("*.png"):
        path.write_bytes(b"")  # a second look would see this
    again = audit(task(tmp_path, root), data)
    assert again["pixels"]["seen"] == 58 and again["outliers"]["counts"]["blank"] == 1


def test_photos_of_phones_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "photo.avif").write_bytes(AVIF)
    seen, problems = looks({"digest": "photo.avif"}, tmp_path, tmp_path / "pixels.json")
    assert problems == {} and seen["digest"][:2] == (60, 40)


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    data, root = pictures(tmp_path)
    folder = task(tmp_path).folder

    def run() -> dict[str, bytes]:
        audit(task(tmp_path, root), data)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = run()
    assert first == run() and set(first) == {*COLUMNS, "result.json"}
    stored = json.loads(first["result.json"])
    assert stored.pop("checksum") and stored == read_audit(folder)


def test_damage_is_noticed(tmp_path: Path) -> None:
    X, labels = classes_of(100)
    audit(task(tmp_path), dataset(tmp_path, X, labels, splits_of(100)))
    folder = task(tmp_path).folder
    assert read_audit(folder)
    (folder / "map.csv").write_text("path\n")
    with pytest.raises(CacheError, match="expected a table with the columns path, sha256"):
        read_table(folder, "map.csv")
    (folder / "map.csv").unlink()
    assert read_audit(folder) is None
    with pytest.raises(CacheError, match="run `make audit`"):
        read_table(folder, "map.csv")


HOSTILE = ['a "b",c.jpg', "line\nbreak.jpg", "\udcff.jpg", "=1+1.jpg", "é 😀.jpg"]


def test_proposals_name_files_as_the_manifest_does(tmp_path: Path) -> None:
    import csv

    X, labels = classes_of(300, apart=2.5)
    X = with_copies(X, np.arange(5))
    paths = [f"{i}.jpg" for i in range(300)] + HOSTILE
    labels = labels + [CLASSES[(i + 1) % 3] for i in range(5)]
    splits = [*splits_of(300), *["train"] * 5]
    data = dataset(tmp_path, X, labels, splits, paths)
    audit(task(tmp_path), data)

    def read(path: Path) -> list[list[str]]:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            return list(csv.reader(file))

    assert write_groups(task(tmp_path).folder, tmp_path / "groups.csv", data.manifest) >= 8
    header, *rows = read(tmp_path / "groups.csv")
    assert header == ["filename", "group"] and {row[0] for row in rows} <= set(paths)
    group = dict(rows)
    assert sum(group.get(f"{i}.jpg") == group.get(name, "none") for i, name in enumerate(HOSTILE)) >= 4
    count = write_corrections(task(tmp_path).folder, tmp_path / "corrections.csv")
    header, *rows = read(tmp_path / "corrections.csv")
    assert header == ["path", "label"] and len(rows) == count and {row[1] for row in rows} <= set(CLASSES)
    assert {row[0] for row in rows} <= set(paths)
    true = {name: CLASSES[i % 3] for i, name in enumerate(HOSTILE)}
    likely = {name: label for name, label in rows if name in true}
    assert len(likely) >= 3 and likely.items() <= true.items()


def test_an_edited_proposal_is_left_alone(tmp_path: Path) -> None:
    X, labels = classes_of(100)
    data = dataset(tmp_path, X, labels, splits_of(100))
    audit(task(tmp_path), data)
    path = tmp_path / "groups.csv"
    write_groups(task(tmp_path).folder, path, data.manifest)
    write_groups(task(tmp_path).folder, path, data.manifest)
    path.write_text("filename,group\nmine.jpg,1\n")
    with pytest.raises(DataError, match="left alone"):
        write_groups(task(tmp_path).folder, path, data.manifest)
    assert "mine.jpg" in path.read_text()


def test_the_groups_that_the_user_named_are_among_those_proposed(tmp_path: Path) -> None:
    """The file takes the place of `[data] group`, and had the near-copies alone in it."""
    X, labels = classes_of(300)
    X = with_copies(X, np.arange(5), noise=0.02)
    paths = [*(f"{i}.jpg" for i in range(300)), *(f"again{i}.jpg" for i in range(5))]
    data = dataset(tmp_path, X, labels + labels[:5], ["train"] * 305, paths)
    audit(task(tmp_path), data)
    near = {row["path"]: row["group"] for row in read_table(task(tmp_path).folder, "near_copies.csv")}
    assert near["0.jpg"] == near["again0.jpg"] and near["1.jpg"] == near["again1.jpg"]
    assert not {"200.jpg", "201.jpg", "202.jpg"} & near.keys()
    own = {"0.jpg": "rex", "200.jpg": "rex", "201.jpg": "bello", "202.jpg": "bello"}
    names = tuple(own.get(record.path, "") for record in data.manifest.records)
    write_groups(task(tmp_path).folder, tmp_path / "groups.csv", replace(data.manifest, groups=names))
    lines = (tmp_path / "groups.csv").read_text().splitlines()
    found = dict(line.rsplit(",", 1) for line in lines[1:])
    assert found == near | own | dict.fromkeys((path for path in near if near[path] == near["0.jpg"]), "rex")


def test_a_blank_image_that_is_far_from_all_others_is_listed_once() -> None:
    rows = [
        ["0.png", "train", "cat", "far from all others", "2.10 times the usual distance"],
        ["1.png", "train", "cat", "far from all others", "1.90 times the usual distance"],
        ["0.png", "train", "cat", "blank", "brightness varies by 0.0 of 255"],
        ["2.png", "train", "cat", "not looked at", "no longer there"],
    ]
    merged = ["0.png", "train", "cat", "blank", "brightness varies by 0.0 of 255; far from all others"]
    assert listed_once(rows) == [rows[1], merged, rows[3]]
