"""What the report reads of each head's predictions: mistakes with their pictures, pairs of heads, scores of earlier versions."""

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pages import Seen
from reports import CLASSES, as_dense, page, sample

from cache.errors import HeadError
from cache.manifest import ImageRecord
from stages.progress import visible
from stages.report.data import ReportData
from stages.report.outcomes import read_correct, read_outcome
from stages.report.render import write_report
from stages.report.rescored import as_scored_now


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return sample(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def seen(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return page(data, tmp_path_factory.mktemp("page") / "index.html")


def test_mistakes_are_the_most_confident_first(data: ReportData, seen: Seen) -> None:
    best = max(data.heads, key=lambda head: head.result["metrics"]["validation"]["accuracy"])
    with open(best.folder / "predictions.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test" and row["true"] != row["predicted"]]
    probabilities = sorted((float(row["p_" + row["predicted"]]) for row in rows), reverse=True)[:24]
    shown = seen.text[seen.text.index("Most confident mistakes") :]
    found = re.findall(r"(\d+\.\d)% labelled", shown)
    assert probabilities and found == [f"{100 * p:.1f}" for p in probabilities]
    images = [attrs for tag, attrs in seen.tags if tag == "img" and "predicted as" in (attrs["alt"] or "")]
    assert len(images) == len(found)


def test_probabilities_of_mistakes_are_calibrated_whatever_the_head(data: ReportData, tmp_path: Path) -> None:
    """Those of heads with a dagger were called uncalibrated, and are after the temperature."""
    ridge = next(head for head in data.heads if head.name == "ridge")
    shown = page(replace(data, heads=[ridge]), tmp_path / "index.html").text
    assert "†" in shown and "Some may be wrong labels" in shown
    assert "are not calibrated" not in shown[shown.index("Most confident mistakes") :]


def mistakes_of(found: Seen) -> list[tuple[str, str | None]]:
    """Name and thumbnail of each mistake that is shown."""
    images = [attrs for tag, attrs in found.tags if tag == "img"]
    return [((attrs["alt"] or "").split(": ")[0], attrs["src"]) for attrs in images]


def test_a_renamed_file_has_its_new_name_and_its_thumbnail(data: ReportData, seen: Seen, tmp_path: Path) -> None:
    before = mistakes_of(seen)
    copy = tmp_path / "photos"
    copy.mkdir()
    assert data.root
    # Half get another name, the other half the old name of one of these: a path may belong to another image now.
    records = list(data.manifest.records)
    paths = [f"new {i}.png" if i % 2 else records[i + 1].path for i in range(len(records))]
    for record, path in zip(records, paths, strict=True):
        (copy / path).write_bytes((data.root / record.path).read_bytes())
    moved = [record._replace(path=path) for record, path in zip(records, paths, strict=True)]
    moved.sort(key=lambda record: record.path)
    found = page(replace(data, manifest=replace(data.manifest, records=tuple(moved)), root=copy), tmp_path / "i.html")
    now = {visible(record.path): visible(path) for record, path in zip(records, paths, strict=True)}
    assert before and sorted(mistakes_of(found)) == sorted((now[name], source) for name, source in before)


def test_a_mistake_on_copies_is_one_and_names_how_many(data: ReportData, tmp_path: Path) -> None:
    """They were listed one by one, so that there were more mistakes than images that the accuracy counts as wrong."""
    head = max(data.heads, key=lambda head: head.result["metrics"]["validation"]["accuracy"])
    folder = tmp_path / "twice"
    shutil.copytree(head.folder, folder)
    outcome = read_outcome(folder, data.manifest, CLASSES, "test")
    with open(folder / "predictions.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    wrong = next(row for row in rows if row[1] == "test" and row[2] != row[3])
    copies = [["a copy.png", *wrong[1:]], ["another copy.png", *wrong[1:]]]
    with open(folder / "predictions.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([header, *rows, *copies])
    names = ("a copy.png", "another copy.png")
    more = tuple(ImageRecord(name, wrong[4], wrong[2], "test") for name in names)
    copied = replace(data.manifest, records=(*data.manifest.records, *more))
    with_copies = read_outcome(folder, copied, CLASSES, "test")
    assert with_copies.counts == outcome.counts and len(with_copies.mistakes) == len(outcome.mistakes)
    assert [len(mistake.copies) for mistake in with_copies.mistakes if mistake.copies] == [2]
    shown = page(replace(data, manifest=copied, heads=[replace(head, folder=folder)]), tmp_path / "index.html").text
    assert "and 2 copies" in shown and f"{len(outcome.mistakes)} mistakes on test" in shown
    # Copies that were deleted are no copies.
    left = read_outcome(folder, data.manifest, CLASSES, "test")
    assert not [mistake for mistake in left.mistakes if mistake.copies] and len(left.mistakes) == len(outcome.mistakes)


def test_renamed_copies_of_one_image_are_told_apart(data: ReportData, tmp_path: Path) -> None:
    names = {"kept.png": CLASSES[0], "old.png": CLASSES[0], "other label.png": CLASSES[1]}
    header = ["path", "split", "true", "predicted", "sha256", *(f"p_{name}" for name in CLASSES)]
    rows = [[path, "test", label, CLASSES[2], "a", "0", "0", "1"] for path, label in names.items()]
    rows.append(["gone.png", "test", CLASSES[0], CLASSES[2], "b", "0", "0", "1"])
    with open(tmp_path / "predictions.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    now = {"a new name.png": CLASSES[0], "an other label.png": CLASSES[1], "kept.png": CLASSES[0]}
    records = tuple(ImageRecord(path, "a", label, "test") for path, label in now.items())
    outcome = read_outcome(tmp_path, replace(data.manifest, records=records), CLASSES, "test")
    shown = [(path, mistake.true) for mistake in outcome.mistakes for path in (mistake.path, *mistake.copies)]
    assert sorted(shown) == sorted([*now.items(), ("gone.png", CLASSES[0])])
    assert [mistake.copies for mistake in outcome.mistakes] == [("kept.png",), (), ()]


def test_thumbnails_of_files_that_are_gone_or_broken(data: ReportData, tmp_path: Path) -> None:
    copy = tmp_path / "photos"
    copy.mkdir()
    for i, record in enumerate(data.manifest.records):
        if i % 2:
            (copy / record.path).write_bytes(b"")
    found = page(replace(data, root=copy), tmp_path / "index.html")
    assert "the file is no longer there" in found.text and "the file is empty" in found.text
    assert "img" not in {tag for tag, _ in found.tags}


def test_no_images_on_this_machine(data: ReportData, tmp_path: Path) -> None:
    found = page(replace(data, root=None), tmp_path / "index.html")
    assert "The images are not on this machine, so only their names are listed." in found.text
    assert "img" not in {tag for tag, _ in found.tags} and r'"<i>\udcff\n.png' in found.text


def test_no_mistakes(data: ReportData, tmp_path: Path) -> None:
    folder = tmp_path / "perfect"
    folder.mkdir()
    header = ["path", "split", "true", "predicted", "sha256", *(f"p_{name}" for name in CLASSES)]
    rows = [
        ["a.png", "test", name, name, "0" * 64, *("1.0" if name == other else "0.0" for other in CLASSES)]
        for name in CLASSES
    ]
    with open(folder / "predictions.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    found = page(replace(data, heads=[replace(data.heads[0], folder=folder)]), tmp_path / "index.html")
    assert "makes no mistake on the 3 images" in found.text


@pytest.mark.parametrize("name", ["predictions.csv", "history.csv"])
@pytest.mark.parametrize("content", [None, b"", b"epoch,loss\n1\n", b"path,split,true,predicted,sha256\n\0,,\n"])
def test_a_damaged_file_is_one_line(data: ReportData, name: str, content: bytes | None, tmp_path: Path) -> None:
    head = as_dense(data.heads[0], "damaged")
    (head.folder / name).unlink() if content is None else (head.folder / name).write_bytes(content)
    with pytest.raises(HeadError, match=rf"^[^\n]*{name}: expected [^\n]*run `make heads`$"):
        write_report(tmp_path / "index.html", replace(data, heads=[head]))
    assert not (tmp_path / "index.html").exists()


def test_copies_with_two_labels_are_two_images_and_with_one_label_are_one(tmp_path: Path) -> None:
    """Matched by content alone, the copy with the other label took the place of the first, and heads were compared wrongly."""
    rows = [
        ("a.png", "cat", "cat", "1"), ("copy of a.png", "cat", "cat", "1"), ("b.png", "dog", "cat", "1"), ("c.png", "dog", "dog", "2"),
    ]  # fmt: skip
    with open(tmp_path / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "true", "predicted", "sha256", "p_cat", "p_dog"])
        writer.writerows([path, "test", true, predicted, sha, 0.9, 0.1] for path, true, predicted, sha in rows)
    assert read_correct(tmp_path, ("cat", "dog"), "test") == {
        ("1", "cat"): True,
        ("1", "dog"): False,
        ("2", "dog"): True,
    }


def test_heads_that_an_earlier_version_scored_get_scores_of_today(data: ReportData, tmp_path: Path) -> None:
    now = data.heads[0]
    old_metrics = {
        split: {
            name: value for name, value in metrics.items() if name in ("n", "accuracy", "accuracy_interval", "log_loss")
        }
        for split, metrics in now.result["metrics"].items()
    }
    with open(now.folder / "predictions.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = list(csv.reader(file))
    first, k = 5, len(now.result["classes"])
    raw = [[*row[:first], *row[first + k :]] for row in table]
    raw[0] = [name.replace("uncalibrated_", "p_") for name in raw[0]]
    folder = tmp_path / now.name
    folder.mkdir()
    with open(folder / "predictions.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(raw)
    old = {name: value for name, value in now.result.items() if name != "scoring"}
    found = as_scored_now(replace(now, folder=folder, result={**old, "metrics": old_metrics}), {})
    assert as_scored_now(now, {}) is now
    for split, expected in now.result["metrics"].items():
        metrics = found.result["metrics"][split]
        assert metrics["per_class"] == expected["per_class"] and metrics["n"] == expected["n"]
        for name in ("macro_f1", "brier", "calibration_error"):
            assert metrics[name] == pytest.approx(expected[name], abs=1e-4)
        assert metrics["calibrated"]["log_loss"] == pytest.approx(expected["calibrated"]["log_loss"], abs=1e-4)


def test_heads_of_groups_that_an_earlier_version_scored_get_the_intervals_of_today(data: ReportData) -> None:
    """Scores stay as they were computed with all digits; intervals, and thresholds for abstention, are for as many images as tell."""
    now = data.heads[0]
    group_of = {record.sha256: record.sha256[:1] for record in data.manifest.records}
    found = as_scored_now(replace(now, result={k: v for k, v in now.result.items() if k != "scoring"}), group_of).result
    for split, before in now.result["metrics"].items():
        after = found["metrics"][split]
        assert after["design_effect"] >= 1 and {k: v for k, v in after.items() if isinstance(v, float) and k != "design_effect"} == {
            k: v for k, v in before.items() if isinstance(v, float) and k != "design_effect"
        }  # fmt: skip
        wide, narrow = after["accuracy_interval"], before["accuracy_interval"]
        assert (wide == narrow) == (after["design_effect"] == 1) and wide[0] <= narrow[0]
    assert found["metrics"]["test"]["design_effect"] > 1
    assert len(found["abstention"]["validation_groups"]) == len(found["abstention"]["thresholds"])
