"""Trials under way: what is kept of them goes on as if nothing had happened, and what is damaged is trained anew."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import csv
import re
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG, Project, write_photos
from forked import Forked, slowed
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.sweeps import group as groups
from stages.sweeps.checkpoints import Checkpoints
from stages.sweeps.folds import Fold
from stages.sweeps.group import Group
from stages.sweeps.ledger import Record
from stages.sweeps.measure import Measure
from stages.sweeps.trials import Trial
from stages.training.early_stopping import best_epoch
from stages.training.member import Member
from stages.training.source import InMemory
from stages.training.spec import DenseSpec, Monitor
from stages.training.together import train_all


def trial(key: str, **options: object) -> Trial:
    spec = {"kind": "dense", "units": [8], "epochs": 9, "patience": 2, "learning_rate": 1e-2, "batch_size": 10}
    return Trial({}, "base", ("x",), DenseSpec.model_validate({**spec, **options}), key)


def split() -> tuple[np.ndarray, np.ndarray, list[Fold]]:
    """90 rows of two classes in two folds, the second of them a batch shorter."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 90)
    X = (rng.normal(0, 1, (2, 12))[y] + rng.normal(0, 1, (90, 12))).astype(np.float32)
    return X, y, [(np.arange(50), np.arange(50, 90)), (np.arange(50, 90), np.arange(50))]


def begin(trials: list[Trial], checkpoints: Checkpoints, said: list[str]) -> Group:
    """With two seeds on each of the folds."""
    X, y, folds = split()
    return Group(trials, Measure(folds, y, 2, np.arange(90)), 2, InMemory(X, y), checkpoints, said.append)


def without_seconds(found: list[Record]) -> list[tuple]:
    return [(each.key, each.complete, each.problem, each.scores) for each in found]


@pytest.mark.parametrize(
    ("options", "patience"),
    [
        ({"optimizer": "adam", "batch_norm": True}, 1),
        ({"optimizer": "sgd", "momentum": 0.9, "dropout": 0.5}, 1),
        ({"loss": "focal", "mixup": 0.4, "l2": 1e-3, "max_norm": 2.0, "monitor": "accuracy", "learning_rate": 3e-2}, 3),
    ],
    ids=["adam, batch_norm", "sgd, dropout", "focal, mixup"],
)
def test_a_group_goes_on_where_it_was_written(
    options: dict[str, object], patience: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its members, some have stopped by then and others have not."""
    monkeypatch.setattr(groups, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(groups, "SHARE_FOR_CHECKPOINTS", np.inf)
    trials = [trial("a", **options), trial("b", **{**options, "learning_rate": 0.3, "patience": patience})]
    said: list[str] = []
    whole = begin(trials, Checkpoints(tmp_path / "whole"), said)
    whole.advance(None)
    begin(trials, Checkpoints(tmp_path / "cut"), said).advance(4)
    kept = Checkpoints(tmp_path / "cut")
    assert [kept.epochs(each.key) for each in trials] == [4, 4]
    stopped = [member.fitted.stopped for each in trials for member in kept.read(each.key).members]
    assert any(stopped) and not all(stopped)
    again = begin(trials, kept, said)
    assert [len(each.scores) for each in again.records()] == [4, 4]
    again.advance(None)
    found, expected = again.records(), whole.records()
    assert all(each.complete for each in found)
    # A head that has stopped is not in the stack any more when the rest goes on, and processors round by a stack's size.
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine.key, mine.problem, len(mine.scores)) == (theirs.key, theirs.problem, len(theirs.scores))
        both = ([(*score[:4], score.effect or 1.0) for score in each.scores] for each in (mine, theirs))
        np.testing.assert_allclose(*both, rtol=1e-3, atol=1e-6)
    assert not said


def test_folds_take_one_epoch_together_and_scores_are_means_over_seeds(tmp_path: Path) -> None:
    """Against each member trained alone: the epoch of the lowest mean loss over folds, each image counting the same."""
    each = trial("a", epochs=6, patience=None, learning_rate=3e-2)
    group = begin([each], Checkpoints(tmp_path), [])
    group.advance(None)
    (record,) = group.records()
    X, y, folds = split()
    sizes = [len(held) for _, held in folds]
    assert isinstance(each.spec, DenseSpec)
    specs = [each.spec.model_copy(update={"seed": seed}) for seed in (0, 1)]
    alone = [[train_all([Member(spec, *fold)], InMemory(X, y), 2)[0].history for fold in folds] for spec in specs]
    for epochs in range(1, 7):
        by_seed = []
        for histories in alone:
            rows = np.array(
                [[(row["val_accuracy"], row["val_loss"]) for row in history[:epochs]] for history in histories]
            )
            means = np.average(rows, axis=0, weights=sizes)
            by_seed.append(means[means[:, 1].argmin()])
        found = record.scores[epochs - 1]
        assert (found.accuracy, found.loss) == pytest.approx(tuple(np.mean(by_seed, axis=0)), rel=1e-4)
        assert found.spread == pytest.approx(float(np.std([one[0] for one in by_seed], ddof=1)), abs=1e-6)
        assert found.rows == 90


@settings(deadline=None, max_examples=8)
@given(patience=st.integers(1, 3), rates=st.lists(st.sampled_from([1e-3, 3e-2, 0.3]), min_size=1, max_size=3))
def test_the_folds_of_a_seed_stop_together_as_their_mean_says(patience: int, rates: list[float]) -> None:
    X, y, folds = split()
    members = [
        Member(trial("a", learning_rate=rate, patience=patience, seed=k).spec, *fold, choice=k)
        for k, rate in enumerate(rates)
        for fold in folds
    ]
    for k, fitted in enumerate(zip(*[iter(train_all(members, InMemory(X, y), 2))] * 2, strict=True)):
        assert len({len(one.history) for one in fitted}) == 1, k
        losses = np.array([[row["val_loss"] for row in one.history] for one in fitted])
        best = int(np.average(losses, axis=0, weights=[len(held) for _, held in folds]).argmin()) + 1
        assert [one.best_epoch for one in fitted] == [best, best] and all(one.weights for one in fitted)
        assert losses.shape[1] in (best + patience, 9)


def test_the_epoch_of_folds_is_among_those_that_all_reached() -> None:
    def best(losses: list[list[float]], rows: list[int], monitor: Monitor = "loss") -> int | None:
        told = [[{"val_loss": loss, "val_accuracy": 1 - loss / 4} for loss in each] for each in losses]
        return best_epoch(told, rows, monitor)

    for monitor in ("loss", "accuracy"):
        assert best([[3.0, 1.0, 0.1], [3.0, 2.0]], [1, 1], monitor) == 2
        assert best([[3.0, 1.0], [1.0, 2.0]], [1, 9], monitor) == 1
        assert best([[3.0, 1.0], [1.0, 2.0]], [9, 1], monitor) == 2
        assert best([[np.nan, 1.0], [0.0, np.inf]], [1, 1], monitor) is None
    # As many rows are right in other folds, and the later epoch is no better for how their sum is rounded.
    right = [(1, 2, 3), (3, 1, 2), (2, 3, 1)]
    told = [[{"val_loss": 1.0, "val_accuracy": n[fold] / 3} for n in right] for fold in range(3)]
    assert best_epoch(told, [3, 3, 3], "accuracy") == 1


def test_what_is_damaged_is_trained_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    begin([trial("a"), trial("b"), trial("c"), trial("d")], Checkpoints(tmp_path), []).advance(1)
    a, b, c, _ = sorted(tmp_path.iterdir())
    a.write_bytes(a.read_bytes()[:-40])
    spoilt = bytearray(b.read_bytes())
    spoilt[len(spoilt) // 2] ^= 0xFF
    b.write_bytes(spoilt)
    c.write_bytes(b"")
    np.savez(tmp_path / "f.npz", fitted='[{"history": [], "of another version": 1}]')
    (tmp_path / ".tmp-1-ab-e.npz").write_bytes(b"left by a killed run")
    kept = Checkpoints(tmp_path)
    assert [kept.epochs(key) for key in "abcde"] == [0, 0, 0, 1, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["d.npz"]
    kept.remove("d")
    assert Checkpoints(tmp_path).epochs("d") == 0


def test_a_sweep_that_cannot_write_its_checkpoints_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    group = begin([trial("a")], Checkpoints(tmp_path / "file" / "under_way"), said)
    group.advance(None)
    assert group.records()[0].complete
    assert len(said) == 1 and "under_way: cannot be written (Not a directory); a kill now costs more" in said[0]


def test_a_killed_halving_goes_on_with_its_survivors(tmp_path: Path) -> None:
    sweep = """
[heads.small]
kind = "dense"
units = [8]
epochs = 100
patience = 100
batch_size = 4
[sweeps.fast]
head = "small"
strategy = "halving"
min_epochs = 4
factor = 25
repeats = 2
grid = { units = [[8], [16]], learning_rate = [1e-5, 1e-4] }
"""
    project = Project(tmp_path).create(CONFIG + sweep)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    assert project.headstart("features").code == 0
    often = "import stages.sweeps.group as g; g.SECONDS_BETWEEN_CHECKPOINTS = 0.0; g.SHARE_FOR_CHECKPOINTS = 1e9; from pipeline.cli import main; main()"
    running = Forked(project.folder, "sweep", "fast", code=slowed(0.02, often))
    folder = project.artifacts / "sweeps" / "fast" / "under_way"
    end = time.monotonic() + 150
    while time.monotonic() < end:
        # At the second rung one of the four is left.
        if len(list(folder.glob("[!.]*.npz"))) == 1 and ledger_epochs(project) == [4, 4, 4, 4]:
            break
        time.sleep(0.01)
    running.kill()
    running.wait()
    (kept,) = folder.glob("[!.]*.npz")
    assert Checkpoints(folder).epochs(kept.stem) >= 4
    outcome = project.headstart("sweep", "fast")
    assert outcome.code == 0 and "4 trials, 3 of them known before, 1 under way" in outcome.out, outcome.out
    assert not folder.exists()
    with open(folder.parent / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["trained_epochs"]) for row in rows) == [4, 4, 4, 100]


def ledger_epochs(project: Project) -> list[int]:
    """How far each trial in the ledger has come."""
    ledger = project.artifacts / "sweeps" / "fast" / "trials.jsonl"
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return [len(re.findall(r"\[[\d.e, -]+\]", line)) for line in lines]
