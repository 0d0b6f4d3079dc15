"""The audit, part by part, on made-up features: what is planted is found, and little else."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audits import CLASSES, classes_of, contents_of, dataset, sha, splits_of, task, with_copies

from stages.audit.audit import audit
from stages.audit.copies import near_copies
from stages.audit.curve import DRAWS, Curve, Point, order, part, power_law
from stages.audit.folds import folds, kin
from stages.audit.leak import leaks
from stages.audit.neighbours import nearest
from stages.audit.outliers import far_off
from stages.audit.results import read_table
from stages.audit.summary import doubled, summary, warnings
from stages.heads.dataset import Dataset


def found_groups(data: Dataset) -> list[set[int]]:
    """The groups of near-copies, as numbers of the rows that the data set was made of."""
    contents = contents_of(data)
    copies = near_copies(contents.unit, nearest(contents.unit))
    number = {sha(i): i for i in range(len(contents.first))}
    groups: dict[int, set[int]] = {}
    for content, group in enumerate(copies.group):
        if group >= 0:
            groups.setdefault(int(group), set()).add(number[contents.digest(content)])
    return list(groups.values())


@pytest.mark.parametrize(("n", "planted"), [(900, 60), (900, 0), (120, 5), (40, 2)])
def test_planted_near_copies_are_found_and_little_else(tmp_path: Path, n: int, planted: int) -> None:
    X, labels = classes_of(n)
    X = with_copies(X, np.arange(planted))
    data = dataset(tmp_path, X, labels + labels[:planted], splits_of(len(X)))
    groups = found_groups(data)
    expected = [{i, n + i} for i in range(planted)]
    assert sum(each in groups for each in expected) >= 0.95 * planted
    assert sum(each not in expected for each in groups) <= max(1, 0.02 * planted)


def test_a_burst_of_pictures_is_one_group(tmp_path: Path) -> None:
    X, labels = classes_of(600)
    bursts = np.repeat(np.arange(10), 5)
    data = dataset(tmp_path, with_copies(X, bursts, 0.04), labels + [labels[i] for i in bursts], splits_of(650))
    groups = found_groups(data)
    expected = [{i, *(600 + np.flatnonzero(bursts == i))} for i in range(10)]
    assert sum(each in groups for each in expected) >= 9


def test_more_copies_than_neighbours_are_looked_for(tmp_path: Path) -> None:
    X, labels = classes_of(600)
    originals = np.zeros(40, int)
    data = dataset(tmp_path, with_copies(X, originals, 0.01), labels + [labels[0]] * 40, splits_of(640))
    assert max(map(len, found_groups(data)), default=0) == 41


def test_a_chain_through_a_class_is_not_one_group(tmp_path: Path) -> None:
    """Each near the next, and the ends far apart: pairs connect them all."""
    X, labels = classes_of(600)
    way = np.linspace(0, 1, 80)[:, None]
    chain = X[:1] * (1 - way) + X[1:2] * way + np.random.default_rng(0).normal(0, 0.01, (80, X.shape[1]))
    data = dataset(tmp_path, np.concatenate([X, chain]), labels + ["class0"] * 80, splits_of(680))
    assert max(map(len, found_groups(data)), default=0) < 40


def test_few_images_have_no_near_copies_and_stop_nothing(tmp_path: Path) -> None:
    X, labels = classes_of(6)
    data = dataset(tmp_path, X, labels, ["train"] * 3 + ["validation"] * 3)
    result = audit(task(tmp_path), data)
    assert set(result["left_out"]) >= {"near_copies", "curve", "pixels"} and result["copies"]["groups"] == 0
    assert summary(result)


def leaking(folder: Path, n: int = 400) -> Dataset:
    """Labels of pure chance, and a near-copy in validation or test of half of the training images, with its label."""
    X, _ = classes_of(n)
    rng = np.random.default_rng(5)
    labels = [CLASSES[i] for i in rng.integers(0, 3, n)]
    copies = np.arange(n // 2)
    splits = ["train"] * (n // 2) + splits_of(n - n // 2) + ["validation" if i % 2 else "test" for i in copies]
    return dataset(folder, with_copies(X, copies), labels + [labels[i] for i in copies], splits)


def test_a_leak_is_found_named_and_weighed(tmp_path: Path) -> None:
    data = leaking(tmp_path)
    result = audit(task(tmp_path), data)
    assert result["copies"]["across"] >= 190
    for split in ("validation", "test"):
        leak = result["leak"][split]
        assert leak["accuracy"] > 0.6 and leak["without"] < 0.5, leak
    told = warnings(result)
    assert len(told) == 2 and "validation images of" in told[0] and ".jpg of class" in told[0], told
    assert [line for line in summary(result) if line.startswith("warning: ")]
    rows = read_table(task(tmp_path).folder, "near_copies.csv")
    assert rows[0]["across"] == "yes" and {rows[0]["split"], rows[1]["split"]} > {"train"}


def test_no_leak_no_warning(tmp_path: Path) -> None:
    X, labels = classes_of(300)
    assert warnings(audit(task(tmp_path), dataset(tmp_path, X, labels, splits_of(300)))) == []


def test_identical_files_across_splits_are_a_leak_as_well(tmp_path: Path) -> None:
    X, labels = classes_of(300)
    again = np.arange(20)
    digests = [sha(i) for i in [*range(300), *again]]
    paths = [f"{i}.jpg" for i in range(320)]
    splits = ["train"] * 150 + ["validation"] * 150 + ["test"] * 20
    data = dataset(tmp_path, np.concatenate([X, X[again]]), labels + ["class1"] * 20, splits, paths, digests)
    contents = contents_of(data)
    found = nearest(contents.unit)
    leak = leaks(contents, found, kin(contents, near_copies(contents.unit, found).group))
    assert leak["test"].copied == 20 and leak["test"].without is None
    result = audit(task(tmp_path), data)
    assert result["outliers"]["counts"]["conflicting labels"] == 2 * sum(label != "class1" for label in labels[:20])


def test_folds_keep_copies_together_and_are_alike(tmp_path: Path) -> None:
    data = leaking(tmp_path)
    contents = contents_of(data)
    group = near_copies(contents.unit, nearest(contents.unit)).group
    fold = folds(contents, kin(contents, group), np.arange(len(contents.of)), 5)
    mine = group[contents.of]
    assert all(len(set(fold[mine == each])) == 1 for each in range(group.max() + 1))
    sizes = np.bincount(fold)
    assert len(sizes) == 5 and sizes.max() - sizes.min() < 0.1 * len(fold)


def test_flipped_labels_are_found(tmp_path: Path) -> None:
    X, labels = classes_of(900, apart=1.0)
    rng = np.random.default_rng(3)
    wrong = rng.choice(900, 45, replace=False)
    given = list(labels)
    for i in wrong:
        given[i] = CLASSES[(CLASSES.index(labels[i]) + 1) % 3]
    paths = [f"{i}.jpg" for i in range(900)]
    audit(task(tmp_path), dataset(tmp_path, X, given, splits_of(900), paths))
    rows = read_table(task(tmp_path).folder, "labels.csv")
    listed = {int(row["path"].removesuffix(".jpg")) for row in rows}
    assert len(listed & set(wrong)) >= 0.8 * len(wrong) and len(listed & set(wrong)) >= 0.9 * len(listed)
    assert all(row["likely"] == labels[int(row["path"][:-4])] for row in rows[:20])
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))


def test_without_cleanlab_this_part_alone_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cleanlab"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    X, labels = classes_of(200)
    result = audit(task(tmp_path), dataset(tmp_path, X, labels, splits_of(200)))
    assert result["labels"] is None and result["curve"]
    (line,) = [line for line in summary(result) if "cleanlab" in line]
    assert 'pip install -e ".[audit]"' in line and "\n" not in line


def test_what_is_far_from_all_others_is_listed_first(tmp_path: Path) -> None:
    X, labels = classes_of(500)
    X[7] = np.where(np.arange(X.shape[1]) == 3, 40, 0.01)
    contents = contents_of(dataset(tmp_path, X, labels, splits_of(500)))
    found = far_off(nearest(contents.unit))
    assert contents.digest(found[0].content) == sha(7) and found[0].times > 1.5
    assert len(found) <= 5


def points_of(a: float, b: float, c: float, m: int = 4000) -> Curve:
    """Points of a known law, with the chance of m images."""
    rng = np.random.default_rng(0)
    out = []
    for share, draws in ((0.05, 5), (0.1, 5), (0.25, 3), (0.5, 2), (1.0, 1)):
        error = a + b * share**-c
        out += [Point(share, draw, round(10_000 * share), 1.0, rng.random(m) >= error) for draw in range(draws)]
    return Curve(out, np.arange(m))


@pytest.mark.parametrize(("a", "b", "c"), [(0.02, 0.05, 0.4), (0.0, 0.1, 0.3), (0.1, 0.0, 0.5)])
def test_a_known_law_is_found_with_an_interval_that_holds_it(a: float, b: float, c: float) -> None:
    law = power_law(points_of(a, b, c))
    assert law is not None
    truth = 1 - a - b * 2**-c
    assert law.interval[0] - 0.002 <= truth <= law.interval[1] + 0.002
    assert law.interval[0] <= law.doubled <= law.interval[1] and abs(law.doubled - truth) < 0.015
    low, high = law.more_interval
    assert low - 0.002 <= b - b * 2**-c <= high + 0.002 and (low < 0.0005) == (b == 0)


@pytest.mark.parametrize(
    ("whole", "last", "lawful"), [(1980, 0.54, False), (2000, 0.54, True), (2000, 0.8, False)], ids=str
)
def test_where_no_law_holds_the_intervals_reach_up_to_the_gain_that_was_measured(
    whole: int, last: float, lawful: bool
) -> None:
    """No law rises at the end that begins so flat: that shows where it misses the end, and else may be so where parts are small."""
    points = []
    for (share, draws), accuracy in zip(DRAWS.items(), (0.5, 0.5, 0.5, 0.5, last), strict=True):
        right = np.arange(400) < round(400 * accuracy)
        points += [Point(share, draw, round(share * whole), 1.0, right) for draw in range(draws)]
    law = power_law(Curve(points, np.arange(400)))
    assert law is not None and law.more < 0.05
    (low, high), most = law.more_interval, law.interval[1]
    assert low <= law.more <= high and (high > last - 0.5) == (not lawful) and law.doubled < most
    assert last < 0.8 or most == 1.0  # twice the images may bring as much again


def test_where_the_law_lies_too_high_the_interval_reaches_down_to_what_all_images_came_to() -> None:
    points = []
    for (share, draws), accuracy in zip(DRAWS.items(), (0.5, 0.6, 0.7, 0.8, 0.6), strict=True):
        right = np.arange(400) < round(400 * accuracy)
        points += [Point(share, draw, round(share * 4000), 1.0, right) for draw in range(draws)]
    law = power_law(Curve(points, np.arange(400)))
    assert law is not None and law.doubled > 0.7 and law.interval[0] <= 0.6


def test_more_photos_are_never_said_to_make_it_worse() -> None:
    """The point that was measured lay above the law by chance, and twice the images gave `0.894 → 0.882`."""
    more = {
        "images": 300,
        "accuracy": 0.882,
        "low": 0.83,
        "high": 0.93,
        "more": 0.006,
        "more_low": 0.0,
        "more_high": 0.02,
    }
    now = {"images": 150, "accuracy": 0.894, "low": 0.84, "high": 0.93}
    told = doubled({"points": [now], "doubled": more})
    assert "from 87.6% to 88.2% (83.0% to 93.0%), which is 0.6 points more (0.0 to 2.0)" in told
    assert told.endswith("; so they are not shown to help") and "89.4" not in told
    told = doubled({"points": [now], "doubled": more | {"more_low": 0.002}})
    assert told.endswith("(0.2 to 2.0)")
    told = doubled({"points": [now | {"low": 0.88}], "doubled": more | {"more_low": 0.002}})
    assert told.endswith("(0.2 to 2.0); this is rough, as the law misses the 89.4% that all images came to")


def test_parts_of_train_are_nested_stratified_and_hold_every_class(tmp_path: Path) -> None:
    X, labels = classes_of(300)
    contents = contents_of(dataset(tmp_path, X, labels, splits_of(300)))
    train, alone = contents.rows("train"), np.arange(300)
    parts: dict[Any, set[int]] = {
        (share, draw): set(part(contents, order(contents, alone, train, draw), share))
        for share in (0.05, 0.25, 1.0)
        for draw in range(3)
    }
    for draw in range(3):
        assert parts[0.05, draw] < parts[0.25, draw] < parts[1.0, draw] == set(train)
        assert {int(contents.y[row]) for row in parts[0.05, draw]} == {0, 1, 2}
    assert parts[0.05, 0] != parts[0.05, 1]
