"""The report, made of heads that were really trained on a small store, and read back as a browser would."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from pages import Seen, see
from PIL import Image

from cache.errors import HeadError
from cache.manifest import ImageRecord, Manifest
from cache.shard import ShardInfo
from cache.store import FeatureStore
from stages.bases.spec import BaseSpec
from stages.heads.dataset import Dataset
from stages.heads.spec import SklearnSpec
from stages.heads.train import HeadTask, train_heads
from stages.report.data import BaseSummary, HeadSummary, ReportData
from stages.report.outcomes import read_correct, read_outcome
from stages.report.page import PAGE_VERSION, read_report_parts
from stages.report.render import write_report
from stages.report.rescored import as_scored_now
from stages.report.text import p_value, visible

HOSTILE = "<script>alert(\"1\")</script> & 'it' 😀"
BREAK = "line\nbreak"
CLASSES = tuple(sorted(["cat", HOSTILE, BREAK]))
NOTE = "weights from elsewhere & <not> for results"
PARTS = {"page": PAGE_VERSION, "heads": {"</script><b>": None, "\udcff & é": "k"}, "bases": {}}
LOADING = {"src", "srcset", "poster", "data", "action", "background", "xlink:href"}


def page(data: ReportData, path: Path) -> Seen:
    write_report(path, data)
    return see(path)


def make_data(folder: Path, splits: Sequence[str], n: int = 90, classes: tuple[str, ...] = CLASSES) -> ReportData:
    """``n`` images of classes that overlap, so that heads make mistakes, with three baselines trained on them."""
    rng = np.random.default_rng(3)
    root = folder / "photos"
    root.mkdir(parents=True)
    records = []
    for i in range(n):
        name = f'{i:03d}"<i>\udcff\n.png' if i % 3 else f"{i:03d}.png"
        Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8)).save(root / name)
        digest = sha256((root / name).read_bytes()).hexdigest()
        records.append(ImageRecord(name, digest, classes[i % len(classes)], splits[i // len(classes) % len(splits)]))
    manifest = Manifest(
        "csv", classes, tuple(records), {"gone.jpg": "a link to nothing <b>"}, {".txt": 2}, ("u.png",), ("a <note>",)
    )
    labels = np.array([classes.index(record.label) for record in records])
    features = rng.normal(size=(n, 2, 2, 4)).astype(np.float32)
    features[..., 0] += 1.5 * labels[:, None, None]
    store = FeatureStore(folder / "features")
    store.create({})
    with store.writing():
        store.append(features, records, classes, ShardInfo("k", {}, "float32", "cpu", {}), "none")
    dataset = Dataset(manifest, {"block5_pool": store})
    heads = [
        train(folder, dataset, "logreg", "LogisticRegression"),
        train(folder, dataset, "stump", "DecisionTreeClassifier", max_depth=1),
        train(folder, dataset, "ridge", "RidgeClassifier"),
    ]
    base = BaseSummary(
        "main", BaseSpec(), "block5_pool", "features", n, (2, 2, 4), 12_300_000, 1.5, ["float32"], ["cpu"], NOTE
    )
    skipped = {**manifest.skipped, "bad\udcff.jpg": "damaged: cut off"}
    return ReportData("My <photos>", manifest, skipped, root, [base], heads, PARTS)


def train(folder: Path, dataset: Dataset, name: str, estimator: str, **params: object) -> HeadSummary:
    spec = SklearnSpec(kind="sklearn", estimator=estimator, params=params)
    task = HeadTask(name, spec, "key", "main", ("block5_pool",), "base", "rows", folder / "heads" / name)
    ((_, result),) = train_heads([task], dataset)
    assert isinstance(result, dict)
    return HeadSummary(name, task.folder, result)


def as_dense(head: HeadSummary, name: str, epochs: int = 6) -> HeadSummary:
    """A folder as a dense head leaves it, with the predictions of another head."""
    folder = head.folder.with_name(name)
    folder.mkdir(exist_ok=True)
    (folder / "predictions.csv").write_bytes((head.folder / "predictions.csv").read_bytes())
    lines = [
        f"{i},{1 - 0.5**i},{0.5**i},{0.9 - 0.5**i},{'nan' if i == 1 else 0.1 + 0.5**i}" for i in range(1, epochs + 1)
    ]
    (folder / "history.csv").write_text("\n".join(["epoch,accuracy,loss,val_accuracy,val_loss", *lines, ""]))
    spec = {"kind": "dense", "units": [32], "dropout": 0.5, "optimizer": "adam", "learning_rate": 1e-3, "pool": "avg"}
    changes = {"head": name, "kind": "dense", "spec": spec, "epochs": epochs, "best_epoch": 4, "parameters": 12345}
    return HeadSummary(name, folder, {**head.result, **changes, "probabilities": "softmax", "warnings": ["Odd: <tag>"]})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    made = make_data(tmp_path_factory.mktemp("report"), ("train", "validation", "test", "train", "test"))
    return replace(made, heads=[*made.heads, as_dense(made.heads[1], "dense")])


@pytest.fixture(scope="module")
def seen(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return page(data, tmp_path_factory.mktemp("page") / "index.html")


def test_page_loads_nothing_and_runs_nothing(seen: Seen) -> None:
    scripts = [attrs for tag, attrs in seen.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "headstart-parts"}]
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in seen.tags}
    for tag, attrs in seen.tags:
        assert all((attrs[name] or "").startswith("data:image/") for name in LOADING & attrs.keys()), (tag, attrs)
        assert (attrs.get("href") or "#").startswith("#")
        assert not [name for name in attrs if name.startswith("on")]
        assert not re.search(r"url\((?!#)|@import", attrs.get("style") or "")


def test_ids_are_unique_and_links_lead_somewhere(seen: Seen) -> None:
    ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {(attrs.get("href") or "#")[1:] for _, attrs in seen.tags} - {""}
    clips = {found for _, attrs in seen.tags for found in re.findall(r"url\(#(.*?)\)", attrs.get("clip-path") or "")}
    assert clips and targets | clips <= set(ids)


def test_parts_are_read_back(data: ReportData, tmp_path: Path) -> None:
    write_report(tmp_path / "index.html", data)
    assert read_report_parts(tmp_path / "index.html") == PARTS
    many = {"heads": {f"head {i}": "f" * 64 for i in range(3000)}}
    write_report(tmp_path / "index.html", replace(data, heads=[], parts=many))
    assert read_report_parts(tmp_path / "index.html") == many


@pytest.mark.parametrize("text", [None, "", "<html>", '<script type="application/json" id="headstart-parts">{', "\xff"])
def test_a_page_without_parts_has_none(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "index.html").write_text(text, encoding="latin-1")
    assert read_report_parts(tmp_path / "index.html") is None
    assert read_report_parts(tmp_path) is None


def test_names_are_shown_as_they_are(seen: Seen) -> None:
    assert HOSTILE in seen.text
    assert r"line\nbreak" in seen.text
    assert r'"<i>\udcff\n.png' in seen.text
    assert r"bad\udcff.jpg damaged: cut off" in seen.text
    assert "gone.jpg a link to nothing <b>" in seen.text
    assert "My <photos>" in seen.text and NOTE in seen.text and "a <note>" in seen.text and "Odd: <tag>" in seen.text
    assert "1 image has no label" in seen.text and "2 .txt" in seen.text


def test_validation_chooses_and_test_does_not(data: ReportData, seen: Seen, tmp_path: Path) -> None:
    assert "Validation used to choose · 18 images" in seen.text and "Test not used to choose · 36 images" in seen.text
    assert "Confusion matrix on test" in seen.text

    def with_test_accuracy(head: HeadSummary, accuracy: float) -> HeadSummary:
        metrics = head.result["metrics"]
        return replace(
            head, result={**head.result, "metrics": {**metrics, "test": {**metrics["test"], "accuracy": accuracy}}}
        )

    def order(heads: Sequence[HeadSummary]) -> list[str]:
        words = page(replace(data, heads=list(heads)), tmp_path / "index.html").text
        board = words[words.index("Sorted by") : words.index("Intervals are")]
        return sorted((head.name for head in heads), key=board.index)

    expected = [h.name for h in sorted(data.heads, key=lambda h: -h.result["metrics"]["validation"]["accuracy"])]
    changed = [with_test_accuracy(head, i / 4) for i, head in enumerate(data.heads)]
    assert order(data.heads)[0] == order(changed)[0] == order(changed[::-1])[0] == expected[0]
    assert order(data.heads) == order(changed) == order(changed[::-1])


def test_intervals_stand_beside_accuracies(data: ReportData, seen: Seen) -> None:
    for head in data.heads:
        for split in ("validation", "test"):
            metrics = head.result["metrics"][split]
            low, high = metrics["accuracy_interval"]
            assert f"{100 * metrics['accuracy']:.1f}% {100 * low:.1f}–{100 * high:.1f}%" in seen.text
    assert "softmax of decision_function (uncalibrated) (ridge)" in seen.text


def test_curves_are_drawn_for_dense_heads_alone(seen: Seen) -> None:
    labels = [attrs["aria-label"] or "" for tag, attrs in seen.tags if tag == "svg"]
    curves = [label for label in labels if " by epoch" in label]
    assert [label.split(" by ")[0] for label in curves] == ["dense, loss", "dense, accuracy"]
    assert "at epoch 4: train 93.8%, validation 83.8%" in curves[1]
    assert "Values that are not finite are left out." in seen.text


def test_p_values_and_calibration_say_what_they_are(seen: Seen) -> None:
    assert [p_value(p) for p in (0.0004, 0.0523, 0.0996, 0.1, 1.0)] == [
        "< 0.001",
        "0.052",
        "0.100",
        "0.10",
        "1.00",
    ]
    assert "Calibration error as trained test Calibrated, 95% interval test" in seen.text
    for meaning in ("a difference was found", "corrected for the number of heads by Holm’s method"):
        assert meaning in seen.text
    assert "can be told from" not in seen.text and "intervals overlap" not in seen.text


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
    shown = [(mistake.path, mistake.true) for mistake in outcome.mistakes]
    assert shown == sorted([*now.items(), ("gone.png", CLASSES[0])])


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


def test_no_test_split(tmp_path: Path) -> None:
    found = page(make_data(tmp_path, ("train", "validation"), 24), tmp_path / "index.html")
    assert "There is no test split" in found.text and "Test not used to choose" not in found.text
    assert "Confusion matrix on validation" in found.text and "on test" not in found.text


def test_no_heads(data: ReportData, tmp_path: Path) -> None:
    found = page(replace(data, heads=[]), tmp_path / "index.html")
    assert "[heads.logreg]" in found.text and "90 usable images" in found.text


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


def test_many_classes_become_an_image_and_lists_fold(tmp_path: Path) -> None:
    classes = tuple(f"${i}$ 😀" for i in range(25))
    found = page(make_data(tmp_path, ("train", "validation", "test"), 150, classes), tmp_path / "index.html")
    assert [label for tag, attrs in found.tags if tag == "svg" and "25 classes" in (label := attrs["aria-label"] or "")]
    assert "Images of all 25 classes" in found.text and "Most frequent confusions on test" in found.text


def test_many_notices_fold_and_end(data: ReportData, tmp_path: Path) -> None:
    def shown(n: int) -> Seen:
        notes = tuple(f"identical files with different labels: note {i};" for i in range(n))
        return page(replace(data, heads=[], manifest=replace(data.manifest, notes=notes)), tmp_path / "index.html")

    # The note of the base is the first notice.
    few = shown(3)
    assert "note 2;" in few.text and "more notice" not in few.text and "details" not in {tag for tag, _ in few.tags}
    full = shown(199).text
    assert "196 more notices" in full and "note 198;" in full and not re.search(r"and \d+ more", full)
    many = shown(1500).text
    assert many.index("note 2;") < many.index("1,497 more notices") < many.index("note 3;")
    assert "note 198; and 1,301 more" in many and "note 199;" not in many


def test_the_same_data_gives_the_same_bytes(data: ReportData, tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        write_report(tmp_path / name, data)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


@pytest.mark.parametrize("name", ["predictions.csv", "history.csv"])
@pytest.mark.parametrize("content", [None, b"", b"epoch,loss\n1\n", b"path,split,true,predicted,sha256\n\0,,\n"])
def test_a_damaged_file_is_one_line(data: ReportData, name: str, content: bytes | None, tmp_path: Path) -> None:
    head = as_dense(data.heads[0], "damaged")
    (head.folder / name).unlink() if content is None else (head.folder / name).write_bytes(content)
    with pytest.raises(HeadError, match=rf"^[^\n]*{name}: expected [^\n]*run `make heads`$"):
        write_report(tmp_path / "index.html", replace(data, heads=[head]))
    assert not (tmp_path / "index.html").exists()


def test_reading_a_report_imports_nothing_heavy() -> None:
    code = "import json, sys, stages.report.page, stages.report.data; print(json.dumps(list(sys.modules)))"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    heavy = {"matplotlib", "jinja2", "markupsafe", "numpy", "PIL", "sklearn", "tensorflow", "keras", "pydantic", "h5py"}
    assert not heavy & set(json.loads(done.stdout))


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
