"""A part of the images, drawn by ``limit`` and ``per_class``: nested, stratified, of contents and not of files."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from conftest import look, splits, write_photos
from hypothesis import example, given
from hypothesis import strategies as st

from cache.errors import ConfigError, DataError
from pipeline.config.load import load_config
from stages.data.part import Row, part_of
from stages.data.spec import DataSpec

declared = st.sampled_from([None, "train", "validation", "test"])


def _rows(found: list[tuple[int, str, str | None]]) -> list[Row]:
    return [
        (f"{i}.png", hashlib.sha256(f"{content}".encode()).hexdigest(), label, split)
        for i, (content, label, split) in enumerate(found)
    ]


rows = st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc"), declared), min_size=3, max_size=60).map(_rows)


def spec(**options: object) -> DataSpec:
    return DataSpec.model_validate({"root": Path("/photos"), **options})


def many(n: int) -> list[Row]:
    """Half a, three tenths b, a fifth c; of each, half train and a quarter of both others."""
    return [
        (f"{i}.png", hashlib.sha256(f"{i}".encode()).hexdigest(), "aaaaabbbcc"[i % 10], ("train", "train", "validation", "test")[i // 10 % 4])
        for i in range(n)
    ]  # fmt: skip


def contents(part: list[Row]) -> set[str]:
    return {sha256 for _, sha256, *_ in part}


@given(rows, st.integers(3, 40), st.integers(0, 20), st.integers(0, 5))
def test_a_larger_part_has_all_of_a_smaller_one(found: list[Row], limit: int, more: int, seed: int) -> None:
    small, large = (part_of(spec(limit=n, seed=seed), found)[0] for n in (limit, limit + more))
    assert contents(small) <= contents(large)
    assert len(contents(small)) == min(limit, len(contents(found)))
    few, several = (part_of(spec(per_class=n, seed=seed), found)[0] for n in (limit, limit + more))
    assert contents(few) <= contents(several)


@given(rows, st.integers(3, 40))
@example(_rows([(0, "b", None), (1, "c", None), (2, "b", "train"), (3, "a", "validation")]), 3)
def test_copies_are_drawn_together_and_every_class_stays(found: list[Row], limit: int) -> None:
    part, told = part_of(spec(limit=limit), found)
    drawn = contents(part)
    assert part == [row for row in found if row[1] in drawn]
    assert told == ("" if len(part) == len(found) else f"{len(part)} of {len(found)} images, drawn by [data] limit")
    # A content with two labels counts for one of them, so classes that share all contents may have none of their own.
    once = [row for row in found if sum(other[1] == row[1] for other in found) == 1]
    assert {label for *_, label, _ in once} <= {label for *_, label, _ in part}


@given(rows, st.randoms())
def test_the_order_and_the_names_of_files_change_nothing(found: list[Row], random: object) -> None:
    other = [(f"renamed {path}", *rest) for path, *rest in found]
    random.shuffle(other)  # type: ignore[attr-defined]
    assert contents(part_of(spec(limit=5, seed=1), found)[0]) == contents(part_of(spec(limit=5, seed=1), other)[0])  # type: ignore[arg-type]


def test_classes_and_splits_have_the_shares_that_they_had() -> None:
    found = many(4000)
    for options in ({"limit": 400}, {"limit": 0.1}):
        part = part_of(spec(**options), found)[0]
        counts = Counter((label, split) for *_, label, split in part)
        for stratum, n in Counter((label, split) for *_, label, split in found).items():
            assert abs(counts[stratum] - n / 10) <= 1, stratum
    part, told = part_of(spec(per_class=40), found)
    assert Counter(label for *_, label, _ in part) == {"a": 40, "b": 40, "c": 40}
    assert {Counter(split for *_, mine, split in part if mine == label)["train"] for label in "abc"} == {20}
    assert told == "120 of 4,000 images, drawn by [data] per_class"


def test_both_together_and_more_than_there_are() -> None:
    found = many(400)
    part, told = part_of(spec(per_class=40, limit=30), found)
    assert told == "30 of 400 images, drawn by [data] per_class and limit"
    assert contents(part) <= contents(part_of(spec(per_class=40), found)[0])
    assert part_of(spec(limit=400, per_class=1000), found) == (found, "")


def test_another_seed_draws_others_and_what_is_drawn_is_pinned() -> None:
    """Another way of drawing would extract other images on everybody's machine."""
    found = many(400)
    drawn = [path for path, *_ in part_of(spec(limit=6), found)[0]]
    assert drawn != [path for path, *_ in part_of(spec(limit=6, seed=1), found)[0]]
    assert drawn == ["42.png", "188.png", "205.png", "209.png", "302.png", "345.png"]


def test_a_limit_that_does_not_reach_for_every_class(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 20, "b": 20, "c": 20})
    with pytest.raises(
        DataError, match="p: data.limit: expected an image for each of the 3 classes at least, found 2; raise the limit"
    ):
        look(tmp_path / "p", limit=2)


def test_splits_stay_as_they_are_without_a_limit(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", {"a": 60, "b": 30})
    whole, part = look(tmp_path / "p"), look(tmp_path / "p", limit=0.5)
    assert splits(part).items() <= splits(whole).items() and len(part.records) == 45
    assert whole.drawn == "" and '"drawn"' not in (tmp_path / "cache" / "manifest.json").read_text().splitlines()[0]
    # Splits are drawn apart from the part, so that it is not the test images that are drawn first.
    assert all(part.counts()[split].total() for split in ("train", "validation", "test"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("limit = 0", "limit: expected a whole number of images above 0, or a fraction between 0 and 1, found 0"),
        ("limit = 1.0", "or a fraction between 0 and 1, found 1.0"),
        ("limit = true", "found True"),
        ('limit = "10%"', "found '10%'"),
        ("per_class = 0", "per_class: should be greater than 0, found 0"),
        ("per_class = 0.1", "per_class: expected a whole number, found 0.1"),
    ],
)
def test_errors_in_the_configuration(tmp_path: Path, value: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(f'[data]\nroot = "photos"\n{value}\n')
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "c.toml")
    assert message in str(error.value)
