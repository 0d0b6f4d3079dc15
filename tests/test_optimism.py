"""How much too good the winner of a sweep is: on simulated trials, on weighted rows, and kept through kills and damage."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Project, result, trials, write_photos
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.heads import rowwise
from stages.heads.calibration import log_softmax
from stages.heads.classwise import mean_there
from stages.heads.scored import METRICS
from stages.sweeps.optimism import corrected
from stages.sweeps.outcomes import OutcomeFiles
from stages.sweeps.resampled import scorer
from stages.training.outcomes import Outcomes


def drawn(
    n: int, trials: int, seeds: int, classes: int, seed: int, apart: float = 1.0
) -> tuple[np.ndarray, list[list[Outcomes]]]:
    """Labels, and the outcomes of trials that are equally good."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)

    def one() -> Outcomes:
        logits = rng.normal(size=(n, classes))
        logits[np.arange(n), y] += apart
        return Outcomes.of(y, log_softmax(np.round(logits, 1)), whole=True)

    return y, [[one() for _ in range(seeds)] for _ in range(trials)]


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(2, 40),
    classes=st.integers(2, 7),
    seeds=st.integers(1, 2),
    seed=st.integers(0, 1000),
    metric=st.sampled_from(sorted(METRICS)),
)
def test_a_row_that_counts_twice_is_there_twice(n: int, classes: int, seeds: int, seed: int, metric: str) -> None:
    if metric == "top5_accuracy" and classes < 6:
        return
    y, outcomes = drawn(n, 3, seeds, classes, seed)
    weights = np.random.default_rng(seed).integers(0, 3, (4, n))
    scores = scorer(metric, outcomes, y, classes)
    found = scores.every(weights.astype(float))
    for run in range(4):
        rows = np.repeat(np.arange(n), weights[run])
        for k, by_seed in enumerate(outcomes):
            if not len(rows):
                assert np.isnan(found[run, k])
                continue
            parts = [Outcomes(*(None if each is None else each[rows] for each in one)) for one in by_seed]
            values = [rowwise.score(metric, y[rows], part, classes) for part in parts]
            expected = np.nan if None in values else np.mean(values)
            assert found[run, k] == pytest.approx(expected, abs=1e-9, nan_ok=True)
            if seeds == 1:
                of_parts = mean_there(scores.parts(weights.astype(float), k).ratios)
                assert of_parts[run] == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_the_best_of_equal_trials_is_too_good_and_its_correction_is_not(metric: str) -> None:
    classes, plain, left, held = 6, [], [], []
    truth_of = rowwise.score(metric, *_many(classes), classes)
    sign = -1 if METRICS[metric] == "low" else 1
    for seed in range(12):
        y, outcomes = drawn(120, 12, 1, classes, seed)
        values = [rowwise.score(metric, y, each, classes) for (each,) in outcomes]
        best = sign * max(sign * value for value in values)
        found = corrected(metric, outcomes, best, y, classes, seed=0)
        assert found is not None and found.interval is not None
        assert found.optimism == pytest.approx(sign * (best - found.value))
        if not seed:
            assert found == corrected(metric, outcomes, best, y, classes, seed=0)
        plain.append(sign * (best - truth_of))
        left.append(sign * (found.value - truth_of))
        held.append(found.interval[0] <= truth_of <= found.interval[1])
    assert np.mean(plain) > 0.01 and abs(np.mean(left)) < np.mean(plain) / 2
    assert sum(held) >= 10


def _many(classes: int) -> tuple[np.ndarray, Outcomes]:
    y, ((outcomes,),) = drawn(50_000, 1, 1, classes, seed=99)
    return y, outcomes


# By how much the probability of the label is raised, in classes of these numbers of images.
RARE = np.repeat(np.arange(6), [60, 40, 2, 1, 1, 2])
APART = {"as hard": [1.0] * 6, "harder": [3.0] * 2 + [0.0] * 4, "easier": [0.5] * 2 + [3.0] * 4}


@pytest.mark.parametrize("rare", APART)
@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy", "macro_f1"])
def test_classes_that_samples_lack_are_corrected_as_others(metric: str, rare: str) -> None:
    """Left out where a sample lacks them, or with the score of the trial that was chosen by them, the mean was of other classes."""

    def drawn_as(y: np.ndarray, rng: np.random.Generator) -> list[Outcomes]:
        raised = np.array(APART[rare])[y][:, None] * (y[:, None] == np.arange(6))
        return [Outcomes.of(y, log_softmax(rng.normal(size=(len(y), 6)) + raised), whole=True)]

    many = np.repeat(RARE, 300)
    truth_of = rowwise.score(metric, many, drawn_as(many, np.random.default_rng(99))[0], 6)
    plain, value = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        by_score = sorted(
            (
                (rowwise.score(metric, RARE, one[0], 6), i, one)
                for i, one in enumerate(drawn_as(RARE, rng) for _ in range(12))
            ),
            reverse=True,
        )
        best = by_score[0][0]
        assert best is not None
        found = corrected(metric, [one for *_, one in by_score], best, RARE, 6, seed=0)
        assert found is not None and found.interval is None
        plain.append(best)
        value.append(found.value)
    assert np.mean(plain) - truth_of > 0.02 and abs(np.mean(value) - truth_of) < 0.03


def test_a_winner_without_rivals_is_not_too_good() -> None:
    y, (good,) = drawn(200, 1, 1, 3, seed=0, apart=4.0)
    _, bad = drawn(200, 5, 1, 3, seed=1, apart=-3.0)
    plain = rowwise.score("accuracy", y, good[0], 3)
    assert plain is not None
    found = corrected("accuracy", [good, *bad], plain, y, 3, seed=0)
    assert found is not None and abs(found.optimism) < 0.01
    assert corrected("accuracy", [good], plain, y, 3, seed=0) is None
    # All are right: the interval is no point.
    sure = [[Outcomes.of(y, np.where(y[:, None] == np.arange(3), -0.1, -3.0))]] * 3
    found = corrected("accuracy", sure, 1.0, y, 3, seed=0)
    assert found is not None and found.value == 1 and found.interval is not None and found.interval[0] < 0.99


def test_outcomes_come_back_as_they_were_kept_and_damaged_ones_do_not(tmp_path: Path) -> None:
    _, trials = drawn(30, 2, 2, 4, seed=0)
    files = OutcomeFiles(tmp_path / "outcomes")
    for key, by_seed in zip("ab", trials, strict=True):
        files.write(key, 5, by_seed)
    again = OutcomeFiles(tmp_path / "outcomes")
    found = again.read_all([("a", 5), ("b", 5)])
    assert found is not None
    for mine, theirs in zip(found, trials, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            for a, b in zip(one, other, strict=True):
                assert a is not None and b is not None and a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
    # Where all probabilities are known of one seed alone, the rest is kept.
    files.write("mixed", 5, [trials[0][0], trials[0][1]._replace(logs=None)])
    mixed = files.read("mixed", 5)
    assert mixed and all(one.logs is None and one.log_p.tolist() for one in mixed)
    # Those of another epoch are of another score.
    assert again.read("a", 4) is None and again.read("c", 5) is None
    path = tmp_path / "outcomes" / "a.npz"
    whole = path.read_bytes()
    # A member that is said to be encrypted, or compressed by another method.
    listed = whole.index(b"PK\x01\x02")
    flipped = (bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]) for at in (200, listed + 8, listed + 10))
    for damaged in (b"", whole[:100], whole[:-30], *flipped):
        path.write_bytes(damaged)
        assert again.read_all([("a", 5), ("b", 5)]) is None


def test_a_sweep_says_how_much_too_good_its_winner_is(tmp_path: Path) -> None:
    text = (
        SMALL
        + """
[sweeps.width]
head = "small"
grid = { units = [[], [8]], learning_rate = [1e-4, 1e-2, 1e-1] }

[sweeps.strength]
head = "logreg"
cv = 3
repeats = 2
grid = { params = { C = [0.001, 0.1, 10.0] } }

[sweeps.one]
head = "logreg"

[sweeps.halved]
head = "small"
strategy = "halving"
grid = { learning_rate = [1e-4, 1e-2, 1e-1] }
"""
    )
    project = Project(tmp_path).create(text)
    write_photos(project.photos, {"cat": 40, "dog": 40})
    outcome = project.make("sweep", "report")
    assert outcome.code == 0 and outcome.reported, outcome.out
    found = {name: result(project, "sweeps", name) for name in ("width", "strength", "one", "halved")}
    for name, count in (("width", 6), ("strength", 3), ("halved", 3)):
        each = found[name]
        assert f"sweep {name}: chosen among {count} trials, its score is" in outcome.out
        assert each["optimism"] == pytest.approx(each["winner"]["accuracy"] - each["corrected"])
        assert each["corrected_interval"][0] < each["corrected"] <= each["corrected_interval"][1]
        assert len(list((project.artifacts / "sweeps" / name / "outcomes").iterdir())) == count
    assert found["one"]["optimism"] is found["one"]["corrected"] is None
    assert "sweep one: chosen" not in outcome.out
    page = (project.artifacts / "report" / "index.html").read_text()
    assert page.count("chosen among 6 trials: ") == 2 and page.count("chosen among 3 trials: ") == 4
    # Trials that are known are not trained again, and the correction is the same.
    sweep = project.artifacts / "sweeps" / "width"
    kept = found["width"] | {"checksum": ""}
    (sweep / "result.json").unlink()
    outcome = project.headstart("sweep", "width")
    assert "6 of them known before" in outcome.out
    assert result(project, "sweeps", "width") | {"checksum": ""} == kept
    # A ledger from before outcomes were kept counts, but does not tell.
    shutil.rmtree(sweep / "outcomes")
    (sweep / "result.json").unlink()
    outcome = project.make("sweep", "report")
    assert "6 of them known before" in outcome.out and "by how much is not known" in outcome.out, outcome.out
    assert result(project, "sweeps", "width")["optimism"] is None and len(trials(project, "width")) == 6
    page = (project.artifacts / "report" / "index.html").read_text()
    assert page.count("chosen among 6 trials: too high, by how much is not known") == 2
    assert "nothing to remove" in project.headstart("prune").out and project.headstart("verify").code == 0
