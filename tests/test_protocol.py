"""What changed in how trials are scored is in the keys of those alone to which it applies, and says why they are stale."""

from pathlib import Path
from typing import Any

import keras
import pytest

from cache.manifest import ImageRecord, Manifest
from pipeline.targets.reasons import head_reasons, sweep_reasons
from stages.heads.spec import AnyHead, KerasSpec, SklearnSpec, head_key
from stages.sweeps.protocol import MARKERS, of_sweep, of_trial
from stages.sweeps.spec import SweepSpec
from stages.training.spec import ADAMW_DECAY, DenseSpec


def manifest(*rows: tuple[str, str], groups: tuple[str, ...] = ()) -> Manifest:
    """Of contents and splits, and the groups of these."""
    records = [ImageRecord(f"{i}.png", digest, "cat", split) for i, (digest, split) in enumerate(rows)]
    return Manifest("photos", ("cat", "dog"), tuple(records), groups=groups)


PLAIN = manifest(("a", "train"), ("a", "train"), ("b", "validation"))
COPIES = manifest(("a", "train"), ("b", "validation"), ("b", "validation"))
IN_GROUPS = manifest(("a", "train"), ("b", "train"), ("c", "validation"), groups=("1", "1", ""))


def dense(**options: Any) -> DenseSpec:
    return DenseSpec.model_validate({"kind": "dense", **options})


BASELINE = SklearnSpec(kind="sklearn", estimator="LinearSVC")
OWN = KerasSpec(kind="keras", build="my_heads.py:build")


@pytest.mark.parametrize(
    ("head", "sweep", "images", "markers"),
    [
        (dense(), {}, PLAIN, []),
        (dense(optimizer="adam"), {"repeats": 5, "grid": {"label_smoothing": [0.0]}}, PLAIN, []),
        (dense(label_smoothing=0.1), {}, PLAIN, ["plain_log_loss"]),
        (dense(label_smoothing=0.1), {"grid": {"label_smoothing": [0.0]}}, PLAIN, []),
        (dense(), {"grid": {"label_smoothing": [0.0, 0.2]}}, PLAIN, ["plain_log_loss"]),
        (dense(), {"strategy": "random", "trials": 3, "grid": {"label_smoothing": {"low": 0.0, "high": 0.5}}}, PLAIN, ["plain_log_loss"]),
        (dense(), {"cv": 2}, manifest(("a", "train"), ("b", "validation")), ["one_epoch"]),
        (OWN, {"cv": 2}, manifest(("a", "train"), ("b", "validation")), ["one_epoch"]),
        (BASELINE, {"cv": 2}, manifest(("a", "train"), ("b", "validation")), []),
        (BASELINE, {"cv": 2}, PLAIN, ["copies_once"]),
        (BASELINE, {}, COPIES, ["copies_once"]),
        (BASELINE, {"cv": 2}, IN_GROUPS, ["groups_count"]),
        (BASELINE, {}, IN_GROUPS, []),
        (BASELINE, {}, manifest(("a", "validation"), ("a", "validation"), groups=("1", "1")), ["copies_once"]),
        (dense(), {"grid": {"optimizer": ["adam", "adamw"]}}, PLAIN, ["adamw_decays"]),
        (dense(weight_decay=0.0), {"grid": {"optimizer": ["adam", "adamw"]}}, PLAIN, []),
        (dense(), {"grid": {"optimizer": ["adamw"], "weight_decay": [0.0, 0.1]}}, PLAIN, []),
        (dense(optimizer="adamw"), {"grid": {"units": [[], [8]]}}, PLAIN, []),
    ],
)  # fmt: skip
def test_a_marker_is_there_where_it_applies(
    head: AnyHead, sweep: dict[str, Any], images: Manifest, markers: list[str]
) -> None:
    spec = SweepSpec.model_validate({"head": "x", **sweep})
    assert list(of_sweep(spec, head, images)) == markers
    smooth = getattr(head, "label_smoothing", 0) > 0
    of_sweep_alone = ["adamw_decays", "groups_count", *([] if smooth else ["plain_log_loss"])]
    in_trial = [name for name in markers if name not in of_sweep_alone]
    if not (smooth and "label_smoothing" in spec.grid):
        assert list(of_trial(spec, head, images)) == in_trial


@pytest.mark.parametrize("marker", sorted(MARKERS))
def test_each_says_why_a_sweep_is_stale(tmp_path: Path, marker: str) -> None:
    (tmp_path / "trials.csv").touch()
    parts = {"schema": 2, "sweep": {}, "head": {}, "bases": {}, "rows": "r"}
    result = {"parts": parts, "failed": 0, "trials": 1}
    assert sweep_reasons(tmp_path, result, parts, "x") == ()
    assert sweep_reasons(tmp_path, result, parts | {marker: True}, "x") == (MARKERS[marker],)


def test_adamw_decays_as_in_keras_and_only_its_heads_are_stale(tmp_path: Path) -> None:
    assert keras.optimizers.AdamW().weight_decay == ADAMW_DECAY == dense(optimizer="adamw").weight_decay
    assert dense(optimizer="adamw", weight_decay=0.0).weight_decay == dense(optimizer="adam").weight_decay == 0.0

    def key(spec: DenseSpec) -> str:
        return head_key(spec, "b", "r")

    assert key(dense(optimizer="adamw")) == key(dense(optimizer="adamw", weight_decay=ADAMW_DECAY))
    assert dense(optimizer="adam").slice() == {"kind": "dense", "optimizer": "adam"}
    # As an earlier version, in which it was no default of adamw, wrote it.
    before = dense(optimizer="adamw").parameters() | {"weight_decay": 0.0}
    rows = PLAIN.rows_digest
    result = {"key": "of before", "base_key": "b", "spec": before, "rows_digest": rows}
    told = head_reasons(tmp_path, result, key(dense(optimizer="adamw")), "b", "", dense(optimizer="adamw"), PLAIN)
    assert told == ("weight_decay 0.0 → 0.004",)
