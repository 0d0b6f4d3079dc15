"""Trained heads that a command asks: the one named or the best, whether it is of the configuration as it is, and its scores."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cache.errors import DataError, HeadError
from pipeline.common.words import score_words
from pipeline.config.tables import no_such
from pipeline.targets.graph import Graph
from pipeline.targets.heads import HeadTarget
from pipeline.targets.origin import base_key_of
from stages.heads.results import best_on_validation, trials_compared
from stages.heads.scored import SCORING
from stages.heads.spec import trained_with
from stages.progress import SILENT, Progress

# For which accuracies an export and the page of `serve` tell a threshold.
ACCURACIES = (0.8, 0.9, 0.95, 0.99)


def known_head(graph: Graph, name: str) -> HeadTarget:
    """The head of this name. Raises HeadError, with the nearest name, where there is none."""
    if name in graph.sweeps and name not in graph.heads:
        raise HeadError(
            f"the winner of sweep {name!r} is not known: {'; '.join(graph.sweeps[name].reasons)}; run `make sweep`"
        )
    if name not in graph.heads:
        raise HeadError(no_such("head", name, graph.heads))
    return graph.heads[name]


def trained_head(graph: Graph, name: str | None, progress: Progress = SILENT) -> HeadTarget:
    """The head of this name, or the best on validation; where it is stale, that is said. Raises HeadError unless it was trained on the
    base, and with the parameters, that the configuration has now.
    """
    usable = _usable(graph)
    if name is None and not usable:
        raise HeadError("no head is trained for this configuration; run `make heads`")
    chosen = known_head(graph, name or best_on_validation(usable, graph.config.report.metric)["head"])
    if chosen.result is None:
        raise HeadError(f"head {chosen.entry.name!r} is not trained yet; run `make heads`")
    if not _as_configured(graph, chosen):
        why = "; ".join(chosen.reasons)
        raise HeadError(f"head {chosen.entry.name!r} was trained with another configuration: {why}; run `make heads`")
    if chosen.stale:
        progress.say(f"warning: head {chosen.entry.name} is not up to date: {'; '.join(chosen.reasons)}")
    return chosen


def _usable(graph: Graph) -> list[dict[str, Any]]:
    """The results of the heads that the best is chosen among."""
    return [head.result for head in graph.heads.values() if head.result and _as_configured(graph, head)]


def chosen_among(graph: Graph, head: HeadTarget) -> int:
    """Among how many heads the validation images chose this one, 1 where they did not. For the best they are all heads, whoever names it,
    as people name the best of the leaderboard. The winner of a sweep counts as many times as it had trials, and was chosen among these.
    """
    trials = {name: max(1, trials_compared(sweep.done)) for name, sweep in graph.sweeps.items() if sweep.done}
    usable, name = _usable(graph), head.entry.name
    if usable and best_on_validation(usable, graph.config.report.metric)["head"] == name:
        return sum(trials.get(result["head"], 1) for result in usable)
    return trials.get(name, 1)


def _as_configured(graph: Graph, head: HeadTarget) -> bool:
    """Whether a trained head is of the base and the parameters that the configuration has now."""
    result, spec = head.result, head.entry.spec
    key = base_key_of(graph.config, head.entry, graph.bases)
    if result is None or result["base_key"] != key or trained_with(spec, result["spec"]) != spec.parameters():
        return False
    if result["kind"] == "ensemble":  # what it holds of its heads, and not what these are by now
        return all(_held_as_configured(graph, each) for each in result["heads"])
    return all(name in graph.heads and _as_configured(graph, graph.heads[name]) for name in head.entry.needs)


def _held_as_configured(graph: Graph, told: Mapping[str, Any]) -> bool:
    """As ``_as_configured``, for a head in an ensemble, of which this is told. The trials of a sweep are as its result says."""
    base, layers, views = told["base"], told["layers"], bool(told["spec"].get("views"))
    if told["head"] in graph.heads:
        entry = graph.heads[told["head"]].entry
        if trained_with(entry.spec, told["spec"]) != entry.spec.parameters():
            return False
        return bool(base_key_of(graph.config, entry, graph.bases) == told["base_key"])
    if "tuned" in told:  # it takes the activations before the layers that were trained, and is on the last of these
        layers = [told["tuned"]["to"]]
    return base in graph.bases and graph.bases[base].key(layers, views) == told["base_key"]


def asked(
    graph: Graph, head: str | None, paths: Sequence[Path], progress: Progress, nothing: str
) -> tuple[HeadTarget, list[Path]]:
    """The head named or the best on validation, and the image files it is to look at: those of ``paths``, or the images of the data
    folder without a label. Raises DataError, which says ``nothing``, where there are none.
    """
    from stages.predict.predict import find_images

    chosen, config = trained_head(graph, head, progress), graph.config
    files = find_images(paths) if paths else [config.data.root / path for path in graph.manifest.unlabelled]
    if not files:
        raise DataError(nothing)
    progress.say(f"head: {chosen.entry.name} ({score_words(chosen.result or {}, config.report.metric)})")
    return chosen, files


def threshold_of(graph: Graph, chosen: HeadTarget, accuracy: float) -> float:
    """The probability from which on a head answers, for an ``accuracy``. Raises HeadError where validation cannot show it."""
    from stages.heads.abstention import threshold_for

    return threshold_for(_abstention_of(graph, chosen), accuracy, chosen_among(graph, chosen))


def thresholds_of(graph: Graph, chosen: HeadTarget) -> dict[str, float | None]:
    """The threshold for each of ``ACCURACIES``, by its name ("0.95"): None where `threshold_of` raises, as validation shows none."""
    found: dict[str, float | None] = {f"{accuracy:g}": None for accuracy in ACCURACIES}
    for name in found:
        with suppress(HeadError):
            found[name] = threshold_of(graph, chosen, float(name))
    return found


def _abstention_of(graph: Graph, chosen: HeadTarget) -> dict[str, Any]:
    """The confidences of a head on validation. Raises HeadError for a head of an earlier version, which has none."""
    result = chosen.result or {}
    if "abstention" not in result:
        raise HeadError(
            f"head {chosen.entry.name!r}: expected its confidences on validation, found none, as an earlier version trained it; "
            f"remove {chosen.folder} and run `make heads`"
        )
    if graph.manifest.groups and "validation_groups" not in result["abstention"]:
        # An earlier version took images of one group for as many.
        result = scored_now(graph, chosen)
    found: dict[str, Any] = result["abstention"]
    return found


def scored_now(graph: Graph, head: HeadTarget) -> dict[str, Any]:
    """The result of a trained head with the scores that this version gives, as the report shows them. Raises HeadError."""
    result = head.result or {}
    if result.get("scoring", 1) == SCORING:
        return result
    # These compute, and import NumPy and scikit-learn for it.
    from stages.report.data import HeadSummary
    from stages.report.rescored import as_scored_now

    return as_scored_now(HeadSummary(head.entry.name, head.folder, result), graph.manifest.group_of).result
