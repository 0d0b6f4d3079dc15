"""What a report is made of: plain values that its caller collects."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.manifest import Manifest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stages.bases.spec import BaseSpec
    from stages.extract.cost import CostSpec


@dataclass(frozen=True)
class BaseSummary:
    """One layer of a base and its store. ``folder`` is where the features lie, ``feature_shape`` that of one image.

    ``precisions`` and ``devices`` are those that were really used, ``seconds`` how long extraction took (in one pass for
    all layers of the base; 0 where it was not recorded); ``note`` is a remark on the weights, ``licence`` their terms and source.
    ``view_rows`` and ``view_seconds`` are those of the augmented views of its images, of all of them together.
    """

    name: str
    spec: "BaseSpec"
    layer: str
    folder: str
    rows: int
    feature_shape: tuple[int, ...]
    bytes_on_disk: int
    seconds: float
    precisions: list[str]
    devices: list[str]
    note: str | None
    licence: str = ""
    view_rows: int = 0
    view_seconds: float = 0.0


@dataclass(frozen=True)
class HeadSummary:
    """One trained head: its folder, and its ``result.json`` as read."""

    name: str
    folder: Path
    result: dict[str, Any]


@dataclass(frozen=True)
class AuditSummary:
    """An audit of the images as they are: its folder, and its ``result.json`` as read."""

    folder: Path
    result: dict[str, Any]


@dataclass(frozen=True)
class ReportData:
    """Everything that the page shows.

    ``skipped`` maps a path to the reason, for what the scan left out and for what could not be decoded; ``root`` is
    the data folder, or None where the images are not on this machine; ``parts`` is kept in the page and read back by
    ``read_report_parts``; ``metric`` ranks heads; ``looks`` is how many heads have been scored on these test images in all;
    ``sweeps`` are their ``result.json`` as read; ``audit`` is None where none was run; ``cost`` is None where no cost is configured.
    ``maps`` draws where a head, by its name, looked for a class in an image, by its path: (height, width, 3) uint8, or None where that
    cannot be told; it is None itself where no maps are asked for.
    """

    title: str
    manifest: Manifest
    skipped: dict[str, str]
    root: Path | None
    bases: list[BaseSummary]
    heads: list[HeadSummary]
    parts: dict[str, Any]
    metric: str = "accuracy"
    looks: int = 0
    sweeps: list[dict[str, Any]] = field(default_factory=list)
    audit: AuditSummary | None = None
    cost: "CostSpec | None" = None
    maps: "Callable[[str, str, str], NDArray[np.uint8] | None] | None" = None
