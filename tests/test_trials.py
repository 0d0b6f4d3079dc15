"""What a sweep tries and what it knows: configuration, draws, folds, rungs and the ledger."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SWEEPS, Project
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import DataError
from pipeline.config.load import load_config
from stages.heads.dataset import Dataset
from stages.sweeps.folds import cross_validation
from stages.sweeps.halving import rungs
from stages.sweeps.ledger import Ledger, Record, Score
from stages.sweeps.spec import SweepSpec
from stages.sweeps.trials import Trial, trials_of
from stages.training.spec import DenseSpec


def test_mistakes_are_told_before_anything_runs(tmp_path: Path) -> None:
    project = Project(tmp_path).create(SWEEPS)
    for old, new, message in (
        (
            "units = [[], [8]], learning_rate = [1e-4, 1e-2]",
            "unit = [[], [8]]",
            "unknown field (did you mean 'units'?)",
        ),
        (
            "units = [[], [8]], learning_rate = [1e-4, 1e-2]",
            "dropout = [0.5, 1.5]",
            "grid.dropout: should be less than 1",
        ),
        ('head = "small"\ngrid', 'head = "smal"\ngrid', "no head 'smal' (did you mean 'small'?)"),
        (
            "learning_rate = [1e-4, 1e-2] }\n\n[sweeps.strength]",
            "learning_rate = { low = 1.0, high = 2.0 } }\n\n[sweeps.strength]",
            'takes a list, found a range; take strategy "random", with trials',
        ),
        ("[sweeps.width]", "[sweeps.small]", "expected a name of its own"),
        ("units = [8]\n", "repeats = 5\n", 'set it in a [sweeps.NAME] with head = "small"'),
        ("cv = 2\n", 'strategy = "halving"\n', '[sweeps.noise] grid: strategy "halving" needs fields of the head'),
    ):
        project.config.write_text(SWEEPS)
        project.edit(old, new)
        outcome = project.headstart("status")
        assert outcome.code == 1 and message in outcome.out and "Traceback" not in outcome.out, outcome.out


def test_drawn_trials_are_the_same_each_time_and_in_their_range(tmp_path: Path) -> None:
    (tmp_path / "headstart.toml").write_text(SWEEPS)
    config = load_config(tmp_path / "headstart.toml")
    grid = {
        "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
        "batch_size": {"low": 8, "high": 64},
        "units": [[], [8]],
    }
    spec = SweepSpec.model_validate({"head": "small", "strategy": "random", "trials": 40, "grid": grid})
    found = [trial.params for trial in trials_of(spec, plain_trial)]
    assert found == [trial.params for trial in trials_of(spec, plain_trial)] and len(found) == 40
    rates = np.log10([params["learning_rate"] for params in found])
    assert rates.min() > -5 and rates.max() < -2 and abs(np.median(rates) + 3.5) < 0.6
    sizes = [params["batch_size"] for params in found]
    assert all(isinstance(size, int) and 8 <= size <= 64 for size in sizes)
    for params in found:
        config.variant(config.sweeps["width"], params)


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3), trials=st.integers(1, 40), more=st.integers(0, 40))
def test_more_drawn_trials_begin_with_those_of_fewer(sizes: list[int], trials: int, more: int) -> None:
    names = ("learning_rate", "weight_decay", "dropout")[: len(sizes)]
    grid = {name: [0.001 * (i + 1) for i in range(size)] for name, size in zip(names, sizes, strict=True)}

    def drawn(count: int) -> list[str]:
        spec = SweepSpec.model_validate({"head": "small", "strategy": "random", "trials": count, "grid": grid})
        return [each.key for each in trials_of(spec, plain_trial)]

    few, many = drawn(trials), drawn(trials + more)
    assert many[: len(few)] == few
    assert len(few) == len(set(few)) == min(trials, int(np.prod(sizes)))


def plain_trial(params: dict) -> Trial:
    """A trial that is known by its parameters alone."""
    return Trial(params, "base", ("x",), DenseSpec.model_validate({"kind": "dense"}), json.dumps(params))


@settings(deadline=None, max_examples=30)
@given(
    lines=st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1), st.booleans()), max_size=12), cut=st.integers(0, 80)
)
def test_a_ledger_keeps_the_last_line_of_each_trial_and_passes_over_what_is_torn(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[int, float, bool]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "trials.jsonl"
    expected: dict[str, Record] = {}
    ledger = Ledger(path)
    for key, accuracy, complete in lines:
        record = Record(str(key), (Score(accuracy, 1.0, 10),), complete, 0.5)
        ledger.add([record])
        expected[str(key)] = record
    assert {key: Ledger(path)[key] for key in expected} == expected
    if lines:
        whole = path.read_bytes()
        path.write_bytes(whole[: max(0, len(whole) - 1 - cut)])
        again = Ledger(path)
        again.add([Record("new", (), True, 0.0, "diverged")])
        reread = Ledger(path)
        assert reread["new"].problem == "diverged"
        # The cut is within the last line, or takes its end alone.
        before = {
            str(key): Record(str(key), (Score(accuracy, 1.0, 10),), complete, 0.5)
            for key, accuracy, complete in (lines[:-1] if cut else lines)
        }
        assert {key: reread[key] for key in expected if key in reread} == before


@settings(deadline=None, max_examples=25)
@given(counts=st.lists(st.integers(2, 12), min_size=2, max_size=4), folds=st.integers(2, 5), seed=st.integers(0, 3))
def test_folds_part_the_rows_and_keep_copies_together(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], folds: int, seed: int
) -> None:
    from cache.manifest import ImageRecord, Manifest

    records = []
    for label, count in enumerate(counts):
        for i in range(count):
            digest = f"{label:02d}{i // 2 if i < 4 else i:062d}"  # the first four are two pairs of copies
            records.append(ImageRecord(f"{label}/{i}.jpg", digest, f"c{label}", "train" if i % 3 else "validation"))
    data = Dataset(Manifest("photos", tuple(f"c{i}" for i in range(len(counts))), tuple(records)), {})
    distinct = len({record.sha256 for record in records})
    if distinct < folds:
        with pytest.raises(DataError, match=f"cv = {folds}: expected as many images"):
            cross_validation(data, folds, seed)
        return
    found = cross_validation(data, folds, seed)
    held = np.concatenate([validation for _, validation in found])
    assert sorted(held) == list(range(len(records)))
    for train, validation in found:
        assert not {data.records[i].sha256 for i in train} & {data.records[i].sha256 for i in validation}
        assert len(train) + len(validation) == len(records)
    contents = [len({data.records[i].sha256 for i in validation}) for _, validation in found]
    assert max(contents) - min(contents) <= 1
    for label in range(len(counts)):
        of_class = [len({data.records[i].sha256 for i in validation if data.y[i] == label}) for _, validation in found]
        assert max(of_class) - min(of_class) <= 1
    if len(records) > 20:
        other = cross_validation(data, folds, seed + 1)
        assert any(not np.array_equal(a[1], b[1]) for a, b in zip(found, other, strict=True))


def test_rungs() -> None:
    spec = SweepSpec.model_validate({"head": "x", "strategy": "halving", "grid": {"seed": [0]}, "min_epochs": 2})
    assert rungs(spec, 30) == [2, 6, 18, 30] and rungs(spec, 2) == [2] and rungs(spec, 1) == [1]
