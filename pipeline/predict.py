"""``headstart predict``: labels for image files, by a trained head."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import DataError, HeadError
from pipeline.build import base_as_stored
from pipeline.config import Config
from pipeline.graph import load_graph
from pipeline.heads import trained_head
from stages.progress import Progress

if TYPE_CHECKING:
    from stages.predict.predict import Prediction


def predict_files(
    config: Config, progress: Progress, paths: Sequence[Path], head: str | None, min_accuracy: float | None = None
) -> list["Prediction"]:
    """Labels and probabilities for image files, by the head named or the best on validation.

    With ``min_accuracy`` the head answers only from the confidence on that gave this accuracy on validation.
    """
    from stages.heads.abstention import threshold_for
    from stages.heads.train import load_head
    from stages.predict.predict import find_images, predict_images
    from stages.report.data import HeadSummary
    from stages.report.rescored import as_scored_now

    graph = load_graph(config, progress=progress)
    chosen = trained_head(graph, head)
    target = graph.bases[chosen.entry.base]
    if chosen.stale:
        progress.say(f"warning: head {chosen.entry.name} is not up to date: {'; '.join(chosen.reasons)}")
    files = find_images(paths) if paths else [config.data.root / path for path in graph.manifest.unlabelled]
    if not files:
        raise DataError("expected image files or folders to predict, found none; name some: headstart predict PATH…")
    result = chosen.result or {}
    progress.say(f"head: {chosen.entry.name} (validation accuracy {result['metrics']['validation']['accuracy']:.3f})")
    threshold = 0.0
    if min_accuracy is not None:
        if "abstention" not in result:
            raise HeadError(
                f"head {chosen.entry.name!r}: expected its confidences on validation, found none, as an earlier version trained it; "
                f"remove {chosen.folder} and run `make heads`"
            )
        if graph.manifest.groups and "validation_groups" not in result["abstention"]:
            # An earlier version took images of one group for as many.
            summary = HeadSummary(chosen.entry.name, chosen.folder, result)
            result = as_scored_now(summary, graph.manifest.group_of).result
        threshold = threshold_for(result["abstention"], min_accuracy)
        progress.say(f"head: answers from a probability of {threshold:.3f} on, for an accuracy of {min_accuracy:g}")
    model = load_head(chosen.folder)
    stores = {layer: target.stores[layer] for layer in chosen.entry.layers}
    temperature = result.get("temperature", 1.0)
    make_base = partial(base_as_stored, target, progress, list(stores))
    return predict_images(files, model, stores, make_base, progress, temperature, threshold)


def prediction_lines(predictions: Sequence["Prediction"]) -> list[str]:
    """One line a file: the label, and the probability of each class (of the three most probable, where there are many)."""
    lines = []
    for prediction in predictions:
        if prediction.reason:
            lines.append(f"{prediction.path}: skipped: {prediction.reason}")
            continue
        ranked = sorted(zip(prediction.classes, prediction.probabilities, strict=True), key=lambda pair: -pair[1])
        shown = ", ".join(f"{name} {p:.3f}" for name, p in (ranked if len(ranked) <= 5 else ranked[:3]))
        label = prediction.label if prediction.sure else "not sure enough"
        lines.append(f"{prediction.path}: {label} ({shown})")
    return lines


def written_lines(csv: Path, predictions: Sequence["Prediction"]) -> list[str]:
    """Write the predictions to a file; a line for each that could not be read, and how many were written."""
    from stages.predict.predict import write_submission

    written = write_submission(csv, predictions)
    left_out = [prediction for prediction in predictions if prediction.reason or not prediction.sure]
    return [*prediction_lines(left_out), f"{csv}: {written} of {len(predictions)} predictions written"]
