"""``headstart predict``: labels for image files, by a trained head."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.sources import sources_of, takes_of
from pipeline.common.trained import asked, threshold_of
from pipeline.config.load import Config
from pipeline.targets.graph import Graph, load_graph
from pipeline.targets.heads import HeadTarget
from stages.data.views import View
from stages.progress import Progress, counted

if TYPE_CHECKING:
    from stages.heads.head import Head
    from stages.predict.predict import Prediction


def predict_lines(
    config: Config,
    progress: Progress,
    paths: Sequence[Path],
    head: str | None,
    min_accuracy: float | None = None,
    csv: Path | None = None,
    views: int = 0,
) -> tuple[list[str], bool]:
    """Label image files by the head named or the best on validation: what is to be printed, and whether all could be read.

    With ``min_accuracy`` the head answers only from the confidence on that gave this accuracy on validation. With ``csv`` predictions
    are written there, and the lines tell how many. Probabilities are means over the image and so many ``views`` of it.
    """
    from stages.heads.train import load_head
    from stages.predict.submission import form_of, write_submission

    graph = load_graph(config, progress=progress)
    chosen, files = asked(
        graph,
        head,
        paths,
        progress,
        "expected image files or folders to predict, found none; name some: headstart predict PATH…",
    )
    threshold = 0.0
    if min_accuracy is not None:
        threshold = threshold_of(graph, chosen, min_accuracy)
        progress.say(f"head: answers from a probability of {threshold:.3f} on, for an accuracy of {min_accuracy:g}")
    model = load_head(chosen.folder)
    # Before hours of predicting, as it may be an error.
    form = form_of(graph.manifest.layout, config.data.root, [str(name) for name in model.classes_]) if csv else None
    predictions = predicted(graph, chosen, model, files, progress, threshold, views)
    complete = not any(each.reason for each in predictions)
    if csv is None or form is None:
        return _lines(predictions), complete
    left_out = [each for each in predictions if each.reason or not each.sure]
    return [*_lines(left_out), *write_submission(csv, predictions, form)], complete


def predicted(
    graph: Graph,
    chosen: HeadTarget,
    model: "Head",
    files: Sequence[Path],
    progress: Progress,
    threshold: float = 0.0,
    views: int = 0,
) -> "list[Prediction]":
    """What a head says of image files, as ``predict_images`` does; ``model`` is the head, loaded."""
    from stages.predict.predict import predict_images

    takes = takes_of(chosen, model)
    sources = sources_of(graph, takes, progress, len(files))
    temperature = (chosen.result or {}).get("temperature", 1.0)
    recipe, seed = graph.config.views.whole, graph.config.views.seed
    every = [None, *(View(recipe, seed, number) for number in range(1, views + 1))]
    if views:
        progress.say(
            f"predict: means over each image and {counted(views, 'view')} of it, so the base computes {views + 1} times as much"
        )
    return predict_images(files, model, takes, sources, progress, temperature, threshold, every)


def _lines(predictions: Sequence["Prediction"]) -> list[str]:
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
