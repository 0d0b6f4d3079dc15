"""How many images tell in an audit: copies are one image, and images of a group are as many as tell as much on their own."""

from pathlib import Path

import numpy as np
from audits import LAYER, classes_of, dataset, sha, splits_of

from stages.audit.contents import Contents
from stages.audit.copies import near_copies
from stages.audit.curve import Point, described, learning_curve, power_law
from stages.audit.leak import leaks, with_copy_in_train
from stages.audit.neighbours import nearest
from stages.audit.results import audit_parts


def test_copies_within_a_split_are_one_image(tmp_path: Path) -> None:
    """They were as many images, so that intervals were too narrow."""
    X, labels = classes_of(200)
    splits = splits_of(200)
    held = np.flatnonzero(np.array(splits) == "validation")
    digests = [sha(i) for i in [*range(200), *held, *held]]
    more = 2 * [labels[i] for i in held], 2 * ["validation"] * len(held)
    data = dataset(
        tmp_path,
        np.concatenate([X, X[held], X[held]]),
        [*labels, *more[0]],
        [*splits, *more[1]],
        [f"{i}.jpg" for i in range(len(digests))],
        digests,
    )
    contents = Contents.read(data, LAYER)
    found = nearest(contents.unit)
    group = near_copies(contents.unit, found).group
    assert leaks(contents, found, group)["validation"].n == len(held)
    points = learning_curve(contents, with_copy_in_train(contents, group))
    assert {len(point.right) for point in points} == {len(held)}
    alone = dataset(tmp_path / "alone", X, labels, splits).manifest
    assert audit_parts("key", data.manifest)["counted"] == "distinct images" and "counted" not in audit_parts(
        "key", alone
    )


def points(m: int, size: int, groups: np.ndarray | None) -> list[Point]:
    rng = np.random.default_rng(0)
    out = []
    for share, draws in ((0.05, 5), (0.1, 5), (0.25, 3), (0.5, 2), (1.0, 1)):
        error = 0.05 + 0.1 * share**-0.4
        for draw in range(draws):
            right = (rng.random(m // size) >= error).repeat(size)
            out.append(Point(share, draw, round(1000 * share), 1.0, right, groups))
    return out


def test_groups_make_the_intervals_of_the_learning_curve_wider() -> None:
    groups = np.arange(100).repeat(5)
    wide, narrow = (
        [each["high"] - each["low"] for each in described(points(500, 5, which))] for which in (groups, None)
    )
    assert all(one > 1.8 * other for one, other in zip(wide, narrow, strict=True))
    ends = [law.interval for which in (groups, None) if (law := power_law(points(500, 5, which)))]
    assert ends[0][1] - ends[0][0] > 1.3 * (ends[1][1] - ends[1][0])
