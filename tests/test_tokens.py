"""What is kept of the tokens of a transformer, and how it is seen which of them are patches."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import BaseError
from stages.bases.spec import BaseSpec
from stages.bases.tokens import select


def spec(output: str | None, size: Any = 32, prefix: int | None = None) -> BaseSpec:
    told = {"output": output, "prefix_tokens": prefix}
    options = {
        "name": "hub:x",
        "input_size": size,
        **{name: value for name, value in told.items() if value is not None},
    }
    return BaseSpec.model_validate(options)


def tokens(prefix: int, rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (3, prefix + rows * columns, 5)).astype(np.float32)


@given(
    prefix=st.sampled_from([0, 1, 2, 5]), patch=st.integers(8, 32), rows=st.integers(1, 8), columns=st.integers(1, 8),
    said=st.booleans(),
)  # fmt: skip
def test_rows_are_those_of_the_grid(prefix: int, patch: int, rows: int, columns: int, said: bool) -> None:
    x, size = tokens(prefix, rows, columns), [rows * patch, columns * patch]
    try:
        found = select(x, spec("patches", size, prefix if said else None), "x")
    except BaseError as error:
        assert not said and "set prefix_tokens" in str(error)  # another number of tokens would leave a grid too
        return
    np.testing.assert_array_equal(found.reshape(3, -1, 5), x[:, prefix:])
    mean = select(x, spec("mean", size, prefix if said else None), "x")
    np.testing.assert_allclose(mean, x[:, prefix:].mean(axis=1), atol=1e-6)
    if prefix:
        np.testing.assert_array_equal(select(x, spec("cls", size, prefix), "x"), x[:, 0])
        both = select(x, spec("cls+mean", size, prefix), "x")
        np.testing.assert_array_equal(both, np.concatenate([x[:, 0], mean], axis=1))
    else:
        with pytest.raises(BaseError, match="has no class token; take mean or patches"):
            select(x, spec("cls", size, prefix), "x")


@pytest.mark.parametrize(
    ("size", "count", "prefix"),
    [(224, 197, 1), (224, 198, 2), (224, 196, 0), (224, 201, 5), (518, 1374, 5), (224, 261, 5), (384, 577, 1), (224, 50, 1), (224, 49, 0), (384, 729, 0)],
)  # fmt: skip
def test_the_common_transformers_need_not_say_it(size: int, count: int, prefix: int) -> None:
    x = np.zeros((1, count, 2), np.float32)
    x[:, prefix:] = 1
    assert (select(x, spec("mean", size), "x") == 1).all()


def test_patches_lie_as_they_are_read() -> None:
    x = np.arange(1 + 2 * 3, dtype=np.float32).reshape(1, 7, 1)
    found = select(x, spec("patches", [32, 48], 1), "x")
    np.testing.assert_array_equal(found[0, :, :, 0], [[1, 2, 3], [4, 5, 6]])


def test_what_is_no_grid_and_what_are_no_tokens_is_one_line() -> None:
    with pytest.raises(
        BaseError, match="how many of 12 tokens stand before .*none that leaves a grid; set prefix_tokens"
    ):
        select(np.zeros((1, 12, 4), np.float32), spec("mean"), "x")
    with pytest.raises(BaseError, match=r"expected tokens \(tokens, channels\) at layer 'x', found \(2, 2, 4\)"):
        select(np.zeros((1, 2, 2, 4), np.float32), spec("mean"), "x")
    maps = np.zeros((1, 2, 2, 4), np.float32)
    assert select(maps, spec(None), "x") is maps
