"""Heads that are made of other heads: the order in which they are trained, and what makes them stale."""

import pytest

from cache.errors import ConfigError
from pipeline.config.heads import HeadEntry
from pipeline.config.order import in_order
from stages.training.spec import DenseSpec


def entries(**needs: str) -> dict[str, HeadEntry]:
    spec = DenseSpec(kind="dense")
    return {name: HeadEntry(name, "base", ("pool",), spec, tuple(each.split())) for name, each in needs.items()}


def test_each_comes_after_those_that_it_needs() -> None:
    assert in_order(entries(a="c", b="", c="b"), {}) == ["b", "c", "a"]
    assert in_order(entries(a="", b="", c=""), {}) == ["a", "b", "c"]


def test_a_circle_is_an_error_that_shows_it() -> None:
    with pytest.raises(ConfigError, match=r"found a circle: (a → b → a|b → a → b); take one of them out"):
        in_order(entries(a="b", b="a", c="a"), {})
    with pytest.raises(ConfigError, match="circle: a → a"):
        in_order(entries(a="a"), {})
