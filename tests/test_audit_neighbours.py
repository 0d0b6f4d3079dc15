"""The search for neighbours finds what scikit-learn's exhaustive search finds, however rows lie."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from stages.audit.contents import unit
from stages.audit.neighbours import nearest, nearest_among


def rows(n: int, d: int = 24, seed: int = 0) -> np.ndarray:
    """Rows of length 1, the first tenth of them there twice, and three of zeros."""
    X = np.random.default_rng(seed).normal(1, 1, (n, d)).astype(np.float32)
    if n >= 10:
        X[-(n // 10) :] = X[: n // 10]
        X[n // 2 : n // 2 + 3] = 0
    return unit(X)


@pytest.mark.parametrize("n", [2, 3, 21, 30, 1024, 2600])
def test_they_are_those_of_scikit_learn(n: int) -> None:
    X = rows(n)
    found = nearest(X)
    k = min(20, n - 1)
    distance, position = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(X.astype(np.float64)).kneighbors()
    assert found.distance.shape == found.position.shape == (n, k) and found.position.dtype == np.int64
    np.testing.assert_allclose(found.distance, distance, atol=1e-6)
    # Equally near ones may stand in another order, and at the end another of them may be left out.
    clear = np.diff(np.concatenate([distance, distance[:, -1:]], axis=1), axis=1) > 1e-5
    clear &= np.concatenate([np.ones((n, 1), bool), clear[:, :-1]], axis=1)
    assert (found.position == position)[clear].all()


def test_no_row_is_its_own_neighbour_where_all_are_the_same() -> None:
    for X in (np.zeros((1500, 8), np.float32), unit(np.ones((1500, 8), np.float32))):
        found = nearest(X)
        assert (found.distance == 0).all() and (found.position != np.arange(1500)[:, None]).all()
        assert all(len(set(each)) == 20 for each in found.position.tolist())


def test_one_row_has_none() -> None:
    assert nearest(rows(1)).distance.shape == (1, 0)


def test_the_nearest_among_some() -> None:
    X = rows(1500)
    asked, among = np.arange(0, 1500, 3), np.arange(1, 1500, 3)
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(X[among].astype(np.float64))
    expected = among[search.kneighbors(X[asked].astype(np.float64), return_distance=False)[:, 0]]
    found = nearest_among(X, asked, among)
    assert set(found) <= set(among)
    apart, expected_apart = (((X[asked] - X[each]) ** 2).sum(axis=1) for each in (found, expected))
    np.testing.assert_allclose(apart, expected_apart, atol=1e-6)
