"""The audit's section of the report, of images and classes with hostile names, with and without the image files."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audits import classes_of, dataset
from pages import Seen
from reports import HOSTILE, LOADING, make_data, page

from stages.audit.audit import AuditTask, audit
from stages.report.data import AuditSummary, ReportData
from stages.report.figures import learning_curve


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """Files of two splits with the same content are a leak; those of other labels a conflict."""
    folder = tmp_path_factory.mktemp("audit")
    made = make_data(folder, ("train", "validation", "test", "train", "test"), n=300)
    records = list(made.manifest.records)
    records[4] = records[4]._replace(sha256=records[0].sha256)
    manifest = replace(made.manifest, records=tuple(records))
    task = AuditTask(
        "main", "VGG16", "block5_pool", "k", {}, folder / "audit" / "main", made.root, folder / "pixels.json"
    )
    columns = zip(*((r.label, r.split, r.path, r.sha256) for r in records), strict=True)
    X, _ = classes_of(300)
    result = audit(task, dataset(folder / "rows", X, *map(list, columns)))
    assert result["labels"] and result["curve"] and result["outliers"]["counts"]["conflicting labels"] == 2
    return replace(made, manifest=manifest, audit=AuditSummary(task.folder, result))


@pytest.fixture(scope="module")
def seen(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return page(data, tmp_path_factory.mktemp("page") / "index.html")


def test_it_shows_all_parts_with_names_as_they_are(seen: Seen) -> None:
    for heading in (
        "Near-copies",
        "Suspicious labels",
        "Conflicting labels: 2 images",
        "How many photos are enough",
        "Map",
    ):
        assert heading in seen.text
    assert HOSTILE in seen.text and r'"<i>\udcff\n.png' in seen.text


def test_it_loads_nothing_and_runs_nothing(seen: Seen) -> None:
    assert [attrs["type"] for tag, attrs in seen.tags if tag == "script"] == ["application/json"]
    for tag, attrs in seen.tags:
        assert all((attrs[name] or "").startswith("data:image/") for name in LOADING & attrs.keys()), (tag, attrs)
        assert (attrs.get("href") or "#").startswith("#") and not [name for name in attrs if name.startswith("on")]
    ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_the_map_has_a_place_for_each_content(seen: Seen, data: ReportData) -> None:
    dots = [
        attrs for tag, attrs in seen.tags if tag == "i" and "left" in (attrs.get("style") or "") and "title" in attrs
    ]
    assert len(dots) == len(data.manifest.by_digest)
    for dot in dots:
        left, top = re.findall(r"[\d.]+", dot["style"] or "")
        assert 0 <= float(left) <= 100 and 0 <= float(top) <= 100


def test_without_the_images_it_has_no_thumbnails(data: ReportData, tmp_path: Path) -> None:
    shown = page(replace(data, root=None), tmp_path / "index.html")
    assert "Suspicious labels" in shown.text and not [1 for tag, _ in shown.tags if tag == "img"]


def test_the_same_audit_gives_the_same_page(data: ReportData, tmp_path: Path) -> None:
    page(data, tmp_path / "one.html")
    page(data, tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_page_without_an_audit_says_how_to_get_one(data: ReportData, tmp_path: Path) -> None:
    shown = page(replace(data, audit=None), tmp_path / "index.html")
    assert "make audit report" in shown.text and np.char.count(shown.text, "Suspicious labels") == 0


@pytest.mark.parametrize("first", [119, 110])
def test_of_few_images_the_learning_curve_has_each_number_once(first: int) -> None:
    """5% and 10% of few images are both one image for each class or little more, and their numbers stood on one another."""
    points = [
        {"images": n, "accuracy": a, "low": a - 0.1, "high": a + 0.1}
        for n, a in ((first, 0.4), (119, 0.42), (239, 0.5), (1190, 0.6))
    ]
    shown = str(learning_curve(points, None, None))
    assert re.findall(r">([\d,]+)</text>", shown) == ["119", "239", "1,190"]


def test_where_all_is_right_no_two_ticks_of_the_learning_curve_read_the_same() -> None:
    """They were rounded to whole percents: 100%, 100%, 99%, 98%, 98%."""
    points = [{"images": n, "accuracy": 1.0, "low": 0.979, "high": 1.0} for n in (18, 36, 90)]
    ticks = re.findall(r">([\d.]+)%</text>", str(learning_curve(points, None, None)))
    assert len(ticks) > 2 and len(set(ticks)) == len(ticks)


def test_how_often_the_heads_are_right_stands_beside_what_looks_wrong_to_them(data: ReportData, tmp_path: Path) -> None:
    assert data.audit
    record = data.manifest.records[0]
    row = {
        "path": record.path,
        "split": record.split,
        "label": record.label,
        "likely": "cat",
        "p_label": "0.021",
        "p_likely": "0.934",
    }
    labels = {"suspicious": 42, "accuracy": 0.787629, "C": 0.1, "first": [row]}
    result = data.audit.result | {"labels": labels}
    shown = page(replace(data, audit=replace(data.audit, result=result)), tmp_path / "index.html").text
    assert "42 labels look wrong to linear heads" in shown and "right for 78.8% of all images" in shown
    assert "likely to be wrong" not in shown
    assert f"labelled {record.label} 2.1%" in shown and "likely cat 93.4%" in shown


def test_the_map_says_how_many_dots_have_a_picture(seen: Seen, data: ReportData, tmp_path: Path) -> None:
    pictured = len([1 for tag, attrs in seen.tags if tag == "i" and "seen" in (attrs.get("class") or "")])
    assert f"dots show their image, too ({pictured} of {len(data.manifest.by_digest)})" in seen.text
    assert "their image" not in page(replace(data, root=None), tmp_path / "index.html").text
