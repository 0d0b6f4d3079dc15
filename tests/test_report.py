"""The report, made of heads that were really trained on a small store, and read back as a browser would."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pages import Seen
from reports import BREAK, HOSTILE, LOADING, NOTE, PARTS, make_data, page, sample

from stages.heads.calibration import Bin
from stages.heads.results import prediction_header, ranking
from stages.report.board import leaderboard
from stages.report.data import HeadSummary, ReportData
from stages.report.figures import abstention_figure, reliability_figure
from stages.report.page import read_report_parts
from stages.report.pairs import compare_with_best
from stages.report.render import write_report
from stages.report.sweeps import too_good
from stages.report.text import p_value, points
from stages.report.trust import calibrations, describe_abstention


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return sample(tmp_path_factory.mktemp("report"))


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


def test_no_test_split(tmp_path: Path) -> None:
    found = page(make_data(tmp_path, ("train", "validation"), 24), tmp_path / "index.html")
    assert "There is no test split" in found.text and "Test not used to choose" not in found.text
    assert "Confusion matrix on validation" in found.text and "on test" not in found.text


def test_no_heads(data: ReportData, tmp_path: Path) -> None:
    found = page(replace(data, heads=[]), tmp_path / "index.html")
    assert "[heads.logreg]" in found.text and "90 usable images" in found.text


def test_many_classes_become_an_image_and_lists_fold(tmp_path: Path) -> None:
    classes = tuple(f"${i}$ 😀" for i in range(25))
    found = page(make_data(tmp_path, ("train", "validation", "test"), 150, classes), tmp_path / "index.html")
    assert [label for tag, attrs in found.tags if tag == "svg" and "25 classes" in (label := attrs["aria-label"] or "")]
    assert "Images of all 25 classes" in found.text and "Most frequent confusions on test" in found.text


def test_of_very_many_classes_some_are_named_at_the_matrix_and_long_names_are_cut(tmp_path: Path) -> None:
    """All of a name is in its title, and in the table of the data; a name of 180 characters made a row of the report a screen high."""
    long = "long-" * 36
    classes = (*(f"class {i:02d}" for i in range(64)), long)
    found = page(make_data(tmp_path, ("train", "validation", "test"), 390, classes), tmp_path / "index.html")
    (matrix,) = (attrs for tag, attrs in found.tags if tag == "svg" and "65 classes" in (attrs["aria-label"] or ""))
    page_text = (tmp_path / "index.html").read_text()
    figure = page_text[page_text.index(matrix["aria-label"] or "") :]
    named = re.findall(r">(class \d\d)<", figure[: figure.index("</svg>")])
    assert named == [f"class {i:02d}" for i in range(0, 64, 3)] * 2
    cut = [words for words in found.words if words.startswith("long-")]
    assert long in {attrs.get("title") for _, attrs in found.tags}
    assert cut.count(long) == 1 and {len(words) for words in cut if words != long} <= {18, 64}


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


def test_reading_a_report_imports_nothing_heavy() -> None:
    code = "import json, sys, stages.report.page, stages.report.data; print(json.dumps(list(sys.modules)))"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    heavy = {"matplotlib", "jinja2", "markupsafe", "numpy", "PIL", "sklearn", "tensorflow", "keras", "pydantic", "h5py"}
    assert not heavy & set(json.loads(done.stdout))


def test_thresholds_allow_for_the_choice_among_heads(data: ReportData, seen: Seen, tmp_path: Path) -> None:
    """As `predict` does, whose thresholds they are."""
    assert "As validation chose this head among 4, they allow for that" in seen.text
    board = leaderboard(data.heads, trials={data.heads[1].name: 7})
    assert board.among == 10
    found = {"thresholds": [0.5], "validation": [[60, 60]], "test": [[30, 30]]}
    head = replace(data.heads[0], result=data.heads[0].result | {"abstention": found})
    (row,) = leaderboard([head]).rows
    alone, among = (describe_abstention(row, k) for k in (1, 30))
    assert alone and [each.wished for each in alone.answers] == [0.9, 0.95]
    assert among and not among.answers and 0.9 in among.out_of_reach
    shown = page(replace(data, heads=[head]), tmp_path / "index.html").text
    assert "chose this head among" not in shown


def test_of_few_images_a_calibration_error_says_that_they_are_few(data: ReportData, seen: Seen) -> None:
    """Less what chance gives, it was 0.0%, which reads as perfect."""
    shown = seen.text[seen.text.index("Can the probabilities be believed?") :]
    row = shown[shown.index("Temperature ") :].removeprefix("Temperature ")
    assert " too few images too few images " in row[:120], row[:120]
    assert "calibration error after the temperature too few images –" in seen.text
    of = data.heads[0].result["metrics"]["test"]
    told = {"calibration_error": 0.031, "calibration_error_interval": [0.01, 0.05]}
    metrics = {**of, **told, "calibrated": of["calibrated"] | told}
    head = replace(
        data.heads[0], result={**data.heads[0].result, "metrics": {**data.heads[0].result["metrics"], "test": metrics}}
    )
    board = leaderboard([head])
    (found,) = calibrations(board)
    assert (found.before, found.after, found.interval) == (0.031, 0.031, (0.01, 0.05))


def test_it_says_which_scores_are_after_the_temperature(seen: Seen) -> None:
    for words in (
        "log loss as trained",
        "Brier score as trained",
        "log loss after the temperature",
        "Brier score after the temperature",
    ):
        assert words in seen.text, words


def test_the_cards_show_the_score_that_chose(data: ReportData, seen: Seen, tmp_path: Path) -> None:
    of = min(data.heads, key=lambda head: ranking(head.result, "log_loss")).result["metrics"]
    shown = page(replace(data, metric="log_loss"), tmp_path / "index.html").text
    for split in ("validation", "test"):
        assert f"log loss {of[split]['log_loss']:.3f}" in shown[: shown.index("Leaderboard Sorted")], split
    assert "log loss" not in seen.text[: seen.text.index("Leaderboard Sorted")]


def test_a_difference_of_nothing_has_no_sign() -> None:
    assert [points(share) for share in (-0.0004, 0.0, -0.0006, 0.021)] == ["0.0", "0.0", "−0.1", "2.1"]


def test_a_score_that_is_a_mean_of_seeds_is_said_to_be_one() -> None:
    """Beside the score of one seed it read as if it was of that."""
    sweep = {"cv": None, "repeats": 3}
    told = {"strategy": "grid", "complete": 5, "trials": 5, "optimism": 0.012, "parts": {"sweep": sweep}}
    assert too_good(told) == "chosen among 5 trials: about 1.2 points too high as the mean of 3 seeds"
    alone = told | {"parts": {"sweep": sweep | {"repeats": 1}}}
    assert too_good(alone) == "chosen among 5 trials: about 1.2 points too high"


def test_figures_have_titles_and_ticks_on_their_axes() -> None:
    shown = str(abstention_figure([[40, 36], [20, 20]], 40, "a head", "test"))
    assert "share of the images that is answered" in shown and "accuracy of the answers" in shown
    assert [tick for tick in ("0%", "20%", "40%", "60%", "80%", "100%") if f">{tick}</text>" not in shown] == []
    shown = str(
        reliability_figure([Bin(20, 0.62, 0.6), Bin(20, 0.99, 1.0)], [(0.4, 0.8), (0.8, 1.0)], "a head", "test")
    )
    assert "probability of the predicted class" in shown and shown.count(">100%</text>") == 2
    # The dot at 100% is whole: it is not cut at the edge of the axes.
    dots = re.findall(r"<use [^>]*>", shown)
    assert dots and not re.findall(r"<g clip-path[^>]*>\s*<use", shown)


def test_identical_files_under_two_labels_are_two_images(data: ReportData, tmp_path: Path) -> None:
    """Matched by content alone, they collided: what a head had right of one stood for the other."""
    heads = []
    for head, says in ((data.heads[0], "cat"), (data.heads[1], BREAK)):
        folder = tmp_path / head.name
        shutil.copytree(head.folder, folder)
        names = head.result["classes"]
        rows = [["a.png", "test", "cat", says, "f" * 64], ["b.png", "test", BREAK, says, "f" * 64]]
        p = [["1" if name == says else "0" for name in names] for _ in rows]
        with open(folder / "predictions.csv", "w", newline="", encoding="utf-8") as file:
            lines = [row + each + each for row, each in zip(rows, p, strict=True)]
            csv.writer(file).writerows([prediction_header(names), *lines])
        heads.append(replace(head, folder=folder))
    found = compare_with_best(leaderboard(heads), {})
    assert found and found.n == 2
    (pair,) = found.pairs
    assert (pair.only_best, pair.only_other, pair.difference) == (1, 1, 0)
