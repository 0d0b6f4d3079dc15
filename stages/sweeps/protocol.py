"""What of a sweep's protocol changed since its first version, named where it makes a difference: trials and sweeps to which none of
it applies keep their keys.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from cache.manifest import Manifest
from stages.fields import Range
from stages.heads.spec import AnyHead
from stages.sweeps.spec import SweepSpec
from stages.training.spec import TrainedSpec

# Each marker, with what it says: the reason why a sweep that was run before it is stale.
MARKERS = {
    "plain_log_loss": "the log loss of trials has no label smoothing any more",
    "one_epoch": "the folds of a trial take one epoch together now",
    "adamw_decays": "trials with adamw decay their weights where weight_decay is left out",
    "copies_once": "copies of an image count once in the scores of trials",
    "groups_count": "intervals of trials count the images of a group as fewer now",
}


def of_trial(sweep: SweepSpec, head: AnyHead, manifest: Manifest) -> dict[str, bool]:
    """What is in the key of a trial of this head beside ``cv``, ``repeats`` and ``seed``."""
    smooth = isinstance(head, TrainedSpec) and head.label_smoothing > 0
    return _there(plain_log_loss=smooth, one_epoch=_in_folds(sweep, head), copies_once=_has_copies(sweep, manifest))


def of_sweep(sweep: SweepSpec, head: AnyHead, manifest: Manifest) -> dict[str, bool]:
    """What is in the key of a sweep over variants of this head."""
    smooth = isinstance(head, TrainedSpec) and any(_values(sweep.grid, "label_smoothing", head.label_smoothing))
    # Their decay is in the keys of the trials; a head that has adamw itself says so in its own part of the key.
    decays = "adamw" in _values(sweep.grid, "optimizer", None) and "weight_decay" not in {
        *sweep.grid,
        *head.model_fields_set,
    }
    return _there(
        plain_log_loss=smooth,
        one_epoch=_in_folds(sweep, head),
        adamw_decays=decays,
        copies_once=_has_copies(sweep, manifest),
        # Of what is said of trials, and not of how they are trained or ranked: those that are known stay so.
        groups_count=_has_groups(sweep, manifest),
    )


def _in_folds(sweep: SweepSpec, head: AnyHead) -> bool:
    return sweep.cv is not None and isinstance(head, TrainedSpec)


def _there(**markers: bool) -> dict[str, bool]:
    return {name: True for name, applies in markers.items() if applies}


def _values(grid: Mapping[str, list[Any] | Range], field: str, otherwise: Any) -> Iterable[Any]:
    """The values that a field has among the trials; the ends of a range."""
    found = grid.get(field, [otherwise])
    return [found.low, found.high] if isinstance(found, Range) else found


def _has_copies(sweep: SweepSpec, manifest: Manifest) -> bool:
    """Whether an image is there twice, with one label, among those that are scored."""
    rows = _scored(sweep, manifest)
    return len(set(rows)) < len(rows)


def _has_groups(sweep: SweepSpec, manifest: Manifest) -> bool:
    """Whether two images of one group are among those that are scored."""
    rows, of = set(_scored(sweep, manifest)), manifest.group_of
    return bool(of) and len({(sha256 in of, of.get(sha256, sha256)) for sha256, _ in rows}) < len(rows)


def _scored(sweep: SweepSpec, manifest: Manifest) -> list[tuple[str, str]]:
    """Contents and labels of the images that trials are scored on."""
    splits = ("train", "validation") if sweep.cv else ("validation",)
    return [(record.sha256, record.label) for record in manifest.records if record.split in splits]
