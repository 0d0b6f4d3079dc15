"""``headstart predict``: labels for image files, by a trained head."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import DataError, HeadError
from pipeline.build import base_as_stored
from pipeline.config import Config
from pipeline.graph import Graph, load_graph
from pipeline.heads import chosen_among, trained_head
from pipeline.leaderboard import scored_now
from pipeline.targets import HeadTarget
from pipeline.words import score_words
from stages.data.views import View
from stages.progress import Progress, counted

if TYPE_CHECKING:
    from stages.bases.spec import BaseSpec
    from stages.heads.head import Head
    from stages.heads.images_of import BaseOrImages
    from stages.predict.predict import Prediction, Source, Taken


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
    from stages.predict.predict import predict_images, taken_by

    result = chosen.result or {}
    takes = taken_by(model, chosen.entry.base, result.get("layers", chosen.entry.layers))
    sources = {
        name: source_of(graph, name, takes, progress, len(files)) for name in dict.fromkeys(each.base for each in takes)
    }
    temperature = result.get("temperature", 1.0)
    recipe, seed = graph.config.views.whole, graph.config.views.seed
    every = [None, *(View(recipe, seed, number) for number in range(1, views + 1))]
    if views:
        progress.say(
            f"predict: means over each image and {counted(views, 'view')} of it, so the base computes {views + 1} times as much"
        )
    return predict_images(files, model, takes, sources, progress, temperature, threshold, every)


def source_of(
    graph: Graph, name: "BaseOrImages", takes: Sequence["Taken"], progress: Progress, files: int | None = None
) -> "Source":
    """What a head takes of a base of this name, or of images; ``files`` are as many as are to come, where that is known."""
    from stages.predict.pixels import Images
    from stages.predict.predict import Source

    if not isinstance(name, str):
        images = Images(spec_of(graph, name))
        return Source({}, lambda: images)
    layers = dict.fromkeys(layer for each in takes if each.base == name for layer in each.layers)
    target = graph.bases[name]
    make_base = partial(base_as_stored, target, progress, list(layers), files)
    return Source({layer: target.stores[layer] for layer in layers}, make_base)


def spec_of(graph: Graph, name: "BaseOrImages") -> "BaseSpec":
    """How images come to the base of this name, or to a head that takes images as they are."""
    if isinstance(name, str):
        return graph.bases[name].spec
    return name.spec({base: each.spec for base, each in graph.bases.items()})


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
