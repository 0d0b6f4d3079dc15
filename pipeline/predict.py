"""``headstart predict``: labels for image files, by a trained head."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import DataError
from pipeline.build import base_as_stored
from pipeline.config import Config
from pipeline.graph import load_graph
from pipeline.heads import trained_head
from stages.progress import Progress

if TYPE_CHECKING:
    from stages.predict.predict import Prediction


def predict_files(config: Config, progress: Progress, paths: Sequence[Path], head: str | None) -> list["Prediction"]:
    """Labels and probabilities for image files, by the head named or the best on validation."""
    from stages.heads.train import load_head
    from stages.predict.predict import find_images, predict_images

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
    model = load_head(chosen.folder)
    stores = {layer: target.stores[layer] for layer in chosen.entry.layers}
    temperature = result.get("temperature", 1.0)
    make_base = partial(base_as_stored, target, progress, list(stores))
    return predict_images(files, model, stores, make_base, progress, temperature)


def prediction_lines(predictions: Sequence["Prediction"]) -> list[str]:
    """One line a file: the label, and the probability of each class (of the three most probable, where there are many)."""
    lines = []
    for prediction in predictions:
        if prediction.reason:
            lines.append(f"{prediction.path}: skipped: {prediction.reason}")
            continue
        ranked = sorted(zip(prediction.classes, prediction.probabilities, strict=True), key=lambda pair: -pair[1])
        shown = ", ".join(f"{name} {p:.3f}" for name, p in (ranked if len(ranked) <= 5 else ranked[:3]))
        lines.append(f"{prediction.path}: {prediction.label} ({shown})")
    return lines


def written_lines(csv: Path, predictions: Sequence["Prediction"]) -> list[str]:
    """Write the predictions to a file; a line for each that could not be read, and how many were written."""
    from stages.predict.predict import write_submission

    written = write_submission(csv, predictions)
    unread = [prediction for prediction in predictions if prediction.reason]
    return [*prediction_lines(unread), f"{csv}: {written} of {len(predictions)} predictions written"]
