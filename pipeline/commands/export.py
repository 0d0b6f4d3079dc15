"""``headstart export``: a trained head as one model to take with you, from pixels to probabilities."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.files import lock, remove_temporaries
from cache.manifest import ImageRecord
from pipeline.common.trained import chosen_among, threshold_of, thresholds_of, trained_head
from pipeline.common.words import bytes_in
from pipeline.config.load import Config
from pipeline.targets.graph import Graph, load_graph
from pipeline.targets.heads import HeadTarget
from stages.export.spec import EXPORTS, Precision, check_format, export_key, folder_name, model_key_of, read_export
from stages.progress import Progress, counted, in_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stages.export.export import Seen, Wanted

# Validation images that the model is compared on with `predict`: few where it must be the same, more where it costs something.
COMPARED = {"float32": 32, "float16": 200, "int8": 200}
# A difference of probabilities in float32 that is told.
LARGE = 1e-3
# The share of labels which another precision may change before that is told.
MANY = 0.1


def export_lines(
    config: Config,
    progress: Progress,
    head: str,
    to: str,
    precision: str = "float32",
    min_accuracy: float | None = None,
) -> list[str]:
    """Export a trained head, unless that was done: what is to be printed."""
    checked = check_format(to, precision)
    graph = load_graph(config, progress=progress)
    chosen = trained_head(graph, head, progress)
    assert chosen.result is not None
    home = config.cache.dir / EXPORTS
    folder = home / folder_name(chosen.entry.name, to, precision)
    keys = [
        export_key(chosen.result, to, precision, asked, chosen_among(graph, chosen)) for asked in (min_accuracy, None)
    ]
    if _is_done(folder, keys[0]):
        return [f"export: up to date: {folder}"]
    with lock(home, progress.say):
        remove_temporaries(home)
        if _is_done(folder, keys[0]):
            return [f"export: up to date: {folder}"]
        wanted = _wanted(graph, chosen, folder, to, checked, min_accuracy, keys)
        about = read_export(folder)
        if about and model_key_of(about) == keys[1]:
            from stages.export.export import tell_thresholds

            tell_thresholds(wanted, about)
            return [f"export: the model is up to date, and its threshold was set anew: {folder}"]
        about = _exported(graph, chosen, wanted, progress)
    return [f"export: {folder} ({in_bytes(bytes_in(folder))})", *compared_words(about)]


def _is_done(folder: Path, key: str) -> bool:
    about = read_export(folder)
    return about is not None and about["key"] == key


def compared_words(about: dict[str, Any]) -> list[str]:
    """What is to be printed of how an export differs from ``predict``."""
    found = about["agreement"]
    if not found:
        return ["export: not compared with `headstart predict`, as no validation image is here"]
    told = (
        f"export: on {found['images']} validation images, probabilities differ from those of `headstart predict` by "
        f"{found['largest_difference']:.1e} at most; {_others(found['labels_changed'])}; {found['right']} are right, "
        f"and {found['right_before']} before"
    )
    warnings = []
    if about["precision"] == "float32" and found["largest_difference"] > LARGE:
        warnings = [f"that is more than {LARGE:g}, which float32 should keep to; docs/export.md says what can differ"]
    elif about["precision"] != "float32" and found["labels_changed"] > max(1, MANY * found["images"]):
        share = f"more than {MANY:.0%} of the labels"
        warnings = [f"{about['precision']} changes {share}; another format or precision may cost less"]
    return [told, *(f"warning: {each}" for each in warnings)]


def _others(n: int) -> str:
    return f"{counted(n, 'label') if n else 'no label'} {'are others' if n > 1 else 'is another'}"


def _wanted(
    graph: Graph,
    chosen: HeadTarget,
    folder: Path,
    to: str,
    precision: Precision,
    min_accuracy: float | None,
    keys: Sequence[str],
) -> "Wanted":
    """What is to be exported, with the thresholds that validation shows. Raises HeadError where it shows none for ``min_accuracy``."""
    from stages.export.export import Wanted
    from stages.export.model import Built

    threshold = threshold_of(graph, chosen, min_accuracy) if min_accuracy is not None else None
    thresholds = {name: found for name, found in thresholds_of(graph, chosen).items() if found is not None}
    key, model_key = keys
    bases = {name: Built(base.spec, base.weights) for name, base in graph.bases.items()}
    return Wanted(chosen.folder, bases, folder, to, precision, key, model_key, threshold, min_accuracy, thresholds)


def _exported(graph: Graph, chosen: HeadTarget, wanted: "Wanted", progress: Progress) -> dict[str, Any]:
    from stages.export.export import export_head

    for name, base in graph.bases.items():
        if base.spec.precision == "int8" and name in _bases_of(chosen):
            progress.say(
                f"export: the base {name} is exported in float32, and not in the int8 that its features were computed in"
            )
    records = _validation(graph, (chosen.result or {}).get("classes", ()), COMPARED[wanted.precision])
    return export_head(
        wanted, _seen(graph, chosen, records, progress), len(records), lambda: _sample(graph, chosen), progress
    )


def _bases_of(chosen: HeadTarget) -> list[str]:
    assert chosen.result is not None
    return [told["base"] for told in chosen.result.get("heads", [chosen.result])]


def _validation(graph: Graph, classes: Collection[str], most: int) -> list[ImageRecord]:
    """Validation images of the classes that a head knows, drawn by their contents; none where the images are not here."""
    if not graph.images_here:
        return []
    found = {
        each.sha256: each for each in graph.manifest.records if each.split == "validation" and each.label in classes
    }
    return [found[digest] for digest in sorted(found)[:most]]


def _seen(graph: Graph, chosen: HeadTarget, records: Sequence[ImageRecord], progress: Progress) -> "Iterator[Seen]":
    """What ``predict`` says of images, and their pixels, one at a time."""
    import numpy as np

    from pipeline.commands.predict import predicted
    from stages.data.images import BadImageError, decode
    from stages.export.export import Seen
    from stages.heads.train import load_head

    root = graph.config.data.root
    found = (
        predicted(graph, chosen, load_head(chosen.folder), [root / each.path for each in records], progress)
        if records
        else []
    )
    for record, prediction in zip(records, found, strict=True):
        if prediction.reason:
            continue
        with suppress(OSError, BadImageError):
            label = prediction.classes.index(record.label)
            yield Seen(decode(prediction.path.read_bytes()), label, np.array(prediction.probabilities))


def _sample(graph: Graph, chosen: HeadTarget) -> "list[NDArray[np.uint8]]":
    """Training images (1, height, width, 3) uint8 to quantise on. Raises DataError where there are none."""
    from stages.extract.precision import calibration_images
    from stages.heads.tuned_spec import CnnSpec

    spec = chosen.entry.spec
    base = next((graph.bases[name].spec for name in _bases_of(chosen) if name in graph.bases), None)
    if isinstance(spec, CnnSpec) or base is None:
        base = spec.images if isinstance(spec, CnnSpec) else next(iter(graph.bases.values())).spec
    return list(calibration_images(graph.manifest, graph.config.data.root, base))
