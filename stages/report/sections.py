"""The sections beside the leaderboard: data, bases, notices, curves."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cache.manifest import SPLITS, Manifest
from stages.audit.summary import warnings
from stages.data.leaks import notes_of
from stages.report.board import Board, Row
from stages.report.data import BaseSummary, ReportData
from stages.report.figures import accuracy_limits, curve
from stages.report.outcomes import read_history

Counts = dict[str, Counter[str]]
# So many notices stand on the page, the first of them unfolded.
NOTICES, NOTICES_OPEN = 200, 4


@dataclass(frozen=True)
class Reference:
    """The share that one answer for every image would get right: that of the class most frequent in train."""

    label: str
    share: float


@dataclass(frozen=True)
class DataSection:
    """Usable images by split and class, without those that were skipped."""

    manifest: Manifest
    counts: Counts
    splits: list[str]
    skipped: list[tuple[str, str]]
    ignored: list[tuple[str, int]]
    reference: Reference | None

    @property
    def images(self) -> int:
        return sum(self.total(split) for split in self.splits)

    def total(self, split: str) -> int:
        return self.counts[split].total()

    @property
    def largest(self) -> int:
        """Images of the largest class, at least one."""
        return max([1, *(self.of_class(name) for name in self.manifest.classes)])

    def of_class(self, name: str) -> int:
        return sum(self.counts[split][name] for split in self.splits)


@dataclass(frozen=True)
class Notices:
    """What a reader must know before any number: the first remarks, the folded ones, and how many are left out."""

    shown: list[str]
    folded: list[str]
    left_out: int


@dataclass(frozen=True)
class BaseSection:
    """A layer of a base, and the best of the heads on it by validation. ``title`` names it beside the others."""

    summary: BaseSummary
    best: Row | None
    title: str


@dataclass(frozen=True)
class Curves:
    """The two panels of one head trained in epochs. ``gaps`` tells that values which are not finite were left out."""

    row: Row
    loss: Markup
    accuracy: Markup
    gaps: bool


def describe_data(data: ReportData, split: str) -> DataSection:
    """What the data is; the reference is that of ``split``."""
    counts = data.manifest.counts()
    ignored = sorted(data.manifest.ignored.items(), key=lambda item: (-item[1], item[0]))
    return DataSection(
        manifest=data.manifest,
        counts=counts,
        splits=[name for name in SPLITS if counts[name]],
        skipped=sorted(data.skipped.items()),
        ignored=ignored,
        reference=_reference(counts, split),
    )


def _reference(counts: Counts, split: str) -> Reference | None:
    if not counts["train"] or not counts[split]:
        return None
    label = min(counts["train"], key=lambda name: (-counts["train"][name], name))
    return Reference(label, counts[split][label] / counts[split].total())


def describe_bases(bases: Sequence[BaseSummary], board: Board) -> list[BaseSection]:
    """Each layer of each base with the best of the heads that are trained on it alone."""
    # The board is sorted, so the first head of a base is its best.
    best = {
        (row.result.get("base"), *row.result.get("layers", ())): row
        for row in reversed(board.rows)
        if row.result["kind"] != "ensemble"
    }
    layers = Counter(base.name for base in bases)
    several = len(layers) > 1
    return [
        BaseSection(
            base,
            best.get((base.name, base.layer)) or best.get((base.name,)),
            base.name if layers[base.name] == 1 else f"{base.name}, {base.layer}" if several else base.layer,
        )
        for base in bases
    ]


def joint_heads(bases: Sequence[BaseSummary], board: Board) -> list[tuple[str, Row]]:
    """The best head of each combination of layers that heads are trained on, with the combination in words."""
    several = len({base.name for base in bases}) > 1
    found: dict[str, Row] = {}
    for row in board.rows:
        layers = row.result.get("layers", ())
        if len(layers) > 1:
            prefix = f"{row.result['base']}, " if several else ""
            found.setdefault(prefix + " + ".join(layers), row)
    return list(found.items())


def notices(data: ReportData) -> Notices:
    """Warnings of the audit, remarks on the weights and on the data, as many as a page can hold."""
    # What spoils the numbers stands first.
    notes = warnings(data.audit.result) if data.audit else []
    notes += dict.fromkeys(f"{base.spec.name}: {base.note}" for base in data.bases if base.note)
    notes += notes_of(data.manifest)
    return Notices(notes[:NOTICES_OPEN], notes[NOTICES_OPEN:NOTICES], max(0, len(notes) - NOTICES))


def describe_curves(rows: Sequence[Row]) -> list[Curves]:
    """Curves of the heads that are trained in epochs, in the order of the leaderboard."""
    trained = [row for row in rows if row.result["kind"] in ("dense", "keras")]
    histories = [read_history(row.head.folder) for row in trained]
    limits = accuracy_limits(histories)
    out = []
    for i, (row, history) in enumerate(zip(trained, histories, strict=True), 1):
        best_epoch = row.result.get("best_epoch")
        loss = curve(history, "loss", best_epoch, f"loss-{i}", row.name, None)
        accuracy = curve(history, "accuracy", best_epoch, f"accuracy-{i}", row.name, limits)
        gaps = any(value != value or abs(value) == float("inf") for values in history.values() for value in values)
        out.append(Curves(row, loss, accuracy, gaps))
    return out
