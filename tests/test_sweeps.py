"""Sweeps: what is tried, what is kept, what is trained again, and that the winner is an ordinary head."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG, HEADSTART, ROOT, Project, write_photos
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import Manifest
from cache.errors import DataError
from pipeline.config import load_config
from stages.dataset import Dataset
from stages.ledger import Ledger, Record, Score
from stages.metrics import wilson
from stages.specs import DenseSpec, SweepSpec
from stages.sweep import cross_validation, rungs
from stages.trials import Trial, trials_of

SWEEPS = (
    CONFIG
    + """
[heads.small]
kind = "dense"
pool = "avg"
units = [8]
epochs = 6
dropout = 0.0
optimizer = "adam"
learning_rate = 1e-2

[sweeps.width]
head = "small"
grid = { units = [[], [8]], learning_rate = [1e-4, 1e-2] }

[sweeps.strength]
head = "logreg"
cv = 3
refit = true
grid = { params = { C = [0.01, 0.1, 1.0] } }

[sweeps.noise]
head = "small"
cv = 2
repeats = 3

[sweeps.fast]
head = "small"
strategy = "halving"
factor = 2
repeats = 2
grid = { units = [[], [8]], pool = ["avg", "flatten"], learning_rate = [1e-4, 1e-2] }
"""
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("swept")).create(SWEEPS)
    write_photos(project.photos, {"cat": 40, "dog": 40})
    outcome = project.make("sweep")
    assert outcome.code == 0, outcome.out
    assert outcome.trained == ["fast", "noise", "strength", "width"]
    return project


def trials(project: Project, name: str) -> list[dict[str, str]]:
    with open(project.artifacts / "sweeps" / name / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def result(project: Project, *names: str) -> dict:
    return json.loads(project.artifacts.joinpath(*names, "result.json").read_text())


def test_every_trial_is_in_the_table_with_its_score_and_interval(swept: Project) -> None:
    rows = trials(swept, "width")
    assert sorted((row["units"], row["learning_rate"]) for row in rows) == [
        ("[8]", "0.0001"), ("[8]", "0.01"), ("[]", "0.0001"), ("[]", "0.01"),
    ]  # fmt: skip
    accuracies = [float(row["accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert all(float(row["low"]) <= float(row["accuracy"]) <= float(row["high"]) for row in rows)
    effects = result(swept, "sweeps", "width")["effects"]
    for value in effects["learning_rate"]:
        mine = [float(row["accuracy"]) for row in rows if float(row["learning_rate"]) == float(value["value"])]
        assert value["trials"] == 2
        assert (value["mean"], value["best"]) == pytest.approx((np.mean(mine), max(mine)), abs=1e-5)


def test_the_winner_is_a_head_that_scores_what_its_trial_did(swept: Project) -> None:
    found = result(swept, "heads", "width")
    best = result(swept, "sweeps", "width")["winner"]
    assert {name: found["spec"][name] for name in best["params"]} == best["params"]
    assert found["metrics"]["validation"]["accuracy"] == pytest.approx(best["accuracy"], abs=1e-6)
    assert found["metrics"]["validation"]["log_loss"] == pytest.approx(best["log_loss"], rel=1e-3)
    assert (swept.artifacts / "heads" / "width" / "model.keras").exists()
    assert result(swept, "heads", "strength")["spec"]["refit"] is True


def test_halving_drops_the_worst_and_repeats_have_a_spread(swept: Project) -> None:
    rows = trials(swept, "fast")
    assert len(rows) == 8
    epochs = sorted(int(row["trained_epochs"]) for row in rows)
    assert epochs == [1, 1, 1, 1, 2, 2, 4, 6]
    assert sum(row["complete"] == "True" for row in rows) == 1
    assert any(float(row["spread"]) > 0 for row in rows)


def test_without_a_grid_the_head_is_scored_as_it_is(swept: Project) -> None:
    """On every image of train and validation once a seed; and the spread is told."""
    (row,) = trials(swept, "noise")
    assert row["complete"] == "True" and float(row["spread"]) > 0
    best = result(swept, "sweeps", "noise")["winner"]
    images = Manifest.load(swept.artifacts / "manifest.json").records
    scored = sum(record.split != "test" for record in images)
    assert best["accuracy_interval"] == pytest.approx(wilson(round(best["accuracy"] * scored), scored))
    spec = result(swept, "heads", "noise")["spec"]
    assert (spec["units"], spec["epochs"]) == ([8], 6)


def test_a_second_run_does_nothing_and_an_extended_one_what_is_new(swept: Project) -> None:
    assert "sweeps: up to date" in swept.headstart("sweep").out
    assert swept.make("-q", "sweep").code == 0
    before = (swept.artifacts / "sweeps" / "width" / "trials.jsonl").read_text().splitlines()
    swept.edit(
        "units = [[], [8]], learning_rate = [1e-4, 1e-2]", "units = [[], [8], [4]], learning_rate = [1e-4, 1e-2]"
    )
    assert swept.make("-q", "sweep").code == 1
    outcome = swept.make("sweep")
    assert outcome.code == 0 and "sweep width: 6 trials, 4 of them known before" in outcome.out, outcome.out
    assert "sweep strength" not in outcome.out
    after = (swept.artifacts / "sweeps" / "width" / "trials.jsonl").read_text().splitlines()
    assert after[: len(before)] == before and len(after) == len(before) + 2
    status = swept.headstart("status").out
    assert re.search(r"sweep width +up to date +6 trials, best validation accuracy", status), status


def test_the_same_sweep_gives_the_same_numbers(swept: Project) -> None:
    kept = [{name: value for name, value in row.items() if name != "seconds"} for row in trials(swept, "fast")]
    shutil.rmtree(swept.artifacts / "sweeps" / "fast")
    assert swept.headstart("sweep", "fast").code == 0
    assert kept == [{name: value for name, value in row.items() if name != "seconds"} for row in trials(swept, "fast")]


def test_what_waits_on_disk_from_rung_to_rung_comes_to_the_same(swept: Project) -> None:
    kept = trials(swept, "fast")
    shutil.rmtree(swept.artifacts / "sweeps" / "fast")
    nothing_held = "import stages.sweep as s; s.HELD_BYTES = 0; from pipeline.cli import main; main()"
    command = [sys.executable, "-c", nothing_held, "sweep", "fast"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=swept.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = trials(swept, "fast")
    assert [row["key"] for row in again] == [row["key"] for row in kept]
    for row, before in zip(again, kept, strict=True):
        assert (row["trained_epochs"], row["complete"]) == (before["trained_epochs"], before["complete"])
        assert float(row["loss"]) == pytest.approx(float(before["loss"]), rel=1e-4)


def test_a_sweep_that_fails_keeps_no_other_from_running_and_is_tried_again(tmp_path: Path) -> None:
    text = CONFIG + "".join(
        f"""
[sweeps.{name}]
head = "logreg"
grid = {{ params.C = {values} }}
"""
        for name, values in (("half", "[-1.0, 1.0]"), ("none", "[-1.0, -2.0]"), ("whole", "[0.1, 1.0]"))
    )
    project = Project(tmp_path).create(text)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    assert project.headstart("features").code == 0
    for _ in range(2):  # and once more, as what failed is tried again
        outcome = project.headstart("sweep")
        assert outcome.code == 1 and "Traceback" not in outcome.out
        assert "failed: sweep 'half': 1 of 2 trials failed: params.C = -1.0: LogisticRegression" in outcome.out
        assert "failed: sweep 'none': expected a trial with a result, found none" in outcome.out
    status = project.headstart("status").out
    assert re.search("sweep half +stale: 1 of 2 trials failed, and will be tried again", status), status
    assert re.search("sweep none +stale: never run", status) and re.search("sweep whole +up to date", status), status
    assert re.search("head half +up to date", status) and re.search("head whole +up to date", status), status
    assert [row["complete"] for row in trials(project, "half")] == ["True", "False"]
    assert project.headstart("heads").code == 0
    report = project.headstart("report")
    assert "report: sweep none is not in it: never run; run `make sweep`" in report.out, report.out
    project.edit("[-1.0, 1.0]", "[10.0, 1.0]")
    outcome = project.headstart("sweep", "half")
    assert outcome.code == 0 and "2 trials, 1 of them known before" in outcome.out, outcome.out


def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    rates = ", ".join(f"{rate:.6f}" for rate in np.geomspace(1e-4, 1e-2, 12))
    text = SWEEPS[: SWEEPS.index("[sweeps.width]")] + (
        f'[sweeps.many]\nhead = "small"\ngrid = {{ units = [[4], [5], [6]], learning_rate = [{rates}] }}\n'
    )
    project = Project(tmp_path).create(text)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    assert project.headstart("features").code == 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*HEADSTART, "sweep"], cwd=project.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    ledger = project.artifacts / "sweeps" / "many" / "trials.jsonl"
    end = time.monotonic() + 90
    while not (ledger.exists() and len(ledger.read_text().splitlines()) >= 12) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(ledger.read_text().splitlines())
    assert 12 <= kept < 36
    with open(ledger, "a") as file:
        file.write('0123456789abcdef {"key": "torn')
    outcome = project.headstart("sweep")
    assert outcome.code == 0 and f"36 trials, {kept} of them known before" in outcome.out, outcome.out
    assert len(trials(project, "many")) == 36


def test_a_trial_that_diverges_is_told_and_spoils_nothing(tmp_path: Path) -> None:
    text = SWEEPS[: SWEEPS.index("[sweeps.width]")] + (
        '[sweeps.wild]\nhead = "small"\ngrid = { optimizer = ["sgd"], learning_rate = [1e-2, 1e30] }\n'
    )
    project = Project(tmp_path).create(text)
    write_photos(project.photos, {"cat": 20, "dog": 20})
    outcome = project.make("sweep", "report")
    assert outcome.code == 0 and outcome.reported, outcome.out
    good, bad = trials(project, "wild")
    assert bad["problem"] == "training diverged" and bad["accuracy"] == "" and float(good["accuracy"]) > 0
    assert [each["trials"] for each in result(project, "sweeps", "wild")["effects"]["learning_rate"]] == [1, 0]
    assert "up to date" in project.headstart("report").out
    # What is edited in the head makes its sweep stale, and its winner says so.
    project.edit("units = [8]\nepochs = 6", "units = [8]\nepochs = 5")
    asked = project.headstart("predict", "--head", "wild", str(project.photos / "cat"))
    assert (
        asked.code == 1 and "the winner of sweep 'wild' is not known: head small changed; run `make sweep`" in asked.out
    )


def test_a_sweep_over_bases_streamed_and_refitted(tmp_path: Path) -> None:
    """A head on several bases, whose layers have other names; features that memory does not hold."""
    text = (
        SWEEPS[: SWEEPS.index("[base]")]
        + """
[bases.vgg]
name = "VGG16"
input_size = 32
weights = "random"
precision = "float32"
[bases.mobile]
name = "MobileNetV2"
input_size = 32
weights = "random"
precision = "float32"
[cache]
memory = "500 kB"
[heads.both]
kind = "dense"
base = ["vgg", "mobile"]
units = [8]
epochs = 2
refit = true
[sweeps.bases]
head = "both"
refit = true
grid = { base = ["vgg", "mobile"], pool = ["avg", "flatten"] }
"""
    )
    project = Project(tmp_path).create(text)
    write_photos(project.photos, {"cat": 130, "dog": 130})
    assert project.headstart("features").code == 0
    outcome = project.make("heads", "sweep", "report")
    assert outcome.code == 0 and outcome.trained == ["bases", "both@mobile", "both@vgg"], outcome.out
    assert "they are streamed" in outcome.out
    assert len(trials(project, "bases")) == 4


def test_mistakes_are_told_before_anything_runs(tmp_path: Path) -> None:
    project = Project(tmp_path).create(SWEEPS)
    for old, new, message in (
        ("units = [[], [8]], learning_rate = [1e-4, 1e-2]", "unit = [[], [8]]", "unknown key (did you mean 'units'?)"),
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
