"""What a graph looks like to a person: the status, the leaderboard, the data of the report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import ConfigError
from pipeline.care import Garbage
from pipeline.config import base_of
from pipeline.graph import BaseTarget, Graph, LayerTarget
from pipeline.words import data_lines, scored_on
from stages.bases.weights import NOTES, Weights
from stages.heads.results import ranking
from stages.report.data import BaseSummary, HeadSummary, ReportData
from stages.sweeps.trials import counted

if TYPE_CHECKING:
    from stages.predict.predict import Prediction


def status_lines(graph: Graph) -> list[str]:
    """Each target: up to date, or stale and why."""
    lines = [*data_lines(graph), _size_line(graph)]
    rows = []
    for name, base in graph.bases.items():
        for layer in base.layers:
            words = ["features", *([name] if len(graph.bases) > 1 else []), *([layer.layer] if base.layers[1:] else [])]
            rows.append((" ".join(words), layer.reasons, _store_words(layer)))
    rows += [(f"head {name}", head.reasons, _score_words(head.result)) for name, head in graph.heads.items()]
    rows += [(f"sweep {name}", sweep.reasons, _sweep_words(sweep.result)) for name, sweep in graph.sweeps.items()]
    rows.append(("report", _report_reasons(graph), str(graph.report_path)))
    width = max(len(name) for name, *_ in rows)
    lines += [
        f"{name:{width}}  {'stale: ' + '; '.join(why) if why else 'up to date  ' + what}" for name, why, what in rows
    ]
    return lines


def _report_reasons(graph: Graph) -> tuple[str, ...]:
    stale = [name for name, head in graph.heads.items() if head.stale]
    if len(stale) > 3:
        others = tuple(reason for reason in graph.report_reasons if not reason.endswith("is trained anew"))
        return (*others, f"{len(stale)} heads are trained anew")
    return graph.report_reasons


def _store_words(layer: LayerTarget) -> str:
    if layer.store is None:
        return ""
    return f"{len(layer.store):,} images, {layer.store.size() / 1e6:,.1f} MB in {layer.store.folder}"


def _score_words(result: dict[str, Any] | None) -> str:
    return f"validation accuracy {result['metrics']['validation']['accuracy']:.3f}" if result else ""


def _sweep_words(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    best = f"best {scored_on(result['parts']['sweep']['cv'])} {result['winner']['accuracy']:.3f}"
    return f"{counted(result['trials'], 'trial')}, {best}"


def _size_line(graph: Graph) -> str:
    """Where the bytes of the cache are, and how many of them belong to nothing that this configuration names."""
    folder = graph.config.cache.dir
    sizes = {name: _bytes(folder / name) for name in ("features", "heads", "sweeps", "weights", "report")}
    used = sum(_bytes(store.folder) for base in graph.bases.values() for store in base.stores.values())
    used += sum(_bytes(head.folder) for head in graph.heads.values())
    other = sizes["features"] + sizes["heads"] - used
    words = ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in sizes.items() if size)
    return f"cache: {folder}: {words or 'empty'}" + (f"; {other / 1e6:,.1f} MB not in use, see prune" if other else "")


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def garbage_lines(found: list[Garbage], removed: bool) -> list[str]:
    """What prune found, with sizes."""
    if not found:
        return ["prune: nothing to remove; the configurations in the folder refer to everything"]
    total = sum(each.size for each in found) / 1e6
    end = "removed" if removed else "can be removed: headstart prune --yes"
    return [f"{each.what} ({each.size / 1e6:,.1f} MB)" for each in found] + [f"prune: {total:,.1f} MB {end}"]


def stale_targets(graph: Graph) -> list[str]:
    """The names of everything that is stale."""
    stale = [f"features of {name}" for name, base in graph.bases.items() if base.stale]
    stale += [f"head {name}" for name, head in graph.heads.items() if head.stale]
    stale += [f"sweep {name}" for name, sweep in graph.sweeps.items() if sweep.stale]
    return stale + (["report"] if graph.report_reasons else [])


def leaderboard_lines(graph: Graph) -> list[str]:
    """The trained heads, best on validation first, with 95% intervals."""
    results = sorted((head.result for head in graph.heads.values() if head.result and not head.stale), key=ranking)
    if not results:
        return ["no head is trained yet; run `make report`"]
    width = max(len("head"), *(len(result["head"]) for result in results))
    lines = [f"{'head':{width}}  {'validation (chooses)':>22}  {'test':>22}  {'seconds':>8}"]
    for result in results:
        scores = [_interval(result["metrics"].get(split)) for split in ("validation", "test")]
        lines.append(f"{result['head']:{width}}  {scores[0]:>22}  {scores[1]:>22}  {result['seconds']:8.1f}")
    return lines


def _interval(metrics: dict[str, Any] | None) -> str:
    if metrics is None:
        return "–"
    low, high = metrics["accuracy_interval"]
    return f"{metrics['accuracy']:.3f} [{low:.3f}, {high:.3f}]"


def report_data(graph: Graph) -> ReportData:
    """Everything that the page shows."""
    return ReportData(
        title=graph.config.data.root.name,
        manifest=graph.manifest,
        skipped=graph.manifest.skipped,
        root=graph.config.data.root if graph.images_here else None,
        bases=[_base_summary(base, layer) for base in graph.bases.values() for layer in base.stores],
        heads=[HeadSummary(h.name, h.folder, h.result) for h in graph.heads.values() if h.result],
        parts=graph.report_parts,
        sweeps=[sweep.done for sweep in graph.sweeps.values() if sweep.done],
    )


def _base_summary(base: BaseTarget, layer: str) -> BaseSummary:
    store = base.stores[layer]
    infos = store.info()
    return BaseSummary(
        name=base.name,
        spec=base.spec,
        layer=layer,
        folder=store.folder.name,
        rows=len(store),
        feature_shape=tuple(store.read(()).shape[1:]),
        bytes_on_disk=store.size(),
        seconds=sum(info.seconds for info in infos),
        precisions=sorted({info.precision for info in infos}),
        devices=sorted({info.device for info in infos}),
        note=NOTES.get(base.spec.weights),
    )


def layer_lines(name: str, size: str | None) -> list[str]:
    """The layers of a base with their shapes and sizes; the one that is kept where none is named is marked.

    Without a ``size``, at the one that a model file takes, else at 150×150. Raises ConfigError for a base or a size that
    there is not.
    """
    height, _, width = ("150" if size is None else size).partition("x")
    if not (height.isdecimal() and (width or height).isdecimal() and int(height) * int(width or height)):
        raise ConfigError(f"--input-size: expected a whole number or HEIGHTxWIDTH, found {size!r}")
    spec = base_of(name, (int(height), int(width or height)))
    from stages.bases.model import layers_of, own_size

    if spec.own_file and size is None:
        spec = base_of(name, own_size(spec))

    found = layers_of(spec, Weights(spec, Path("weights")))
    default = found[-1].name if spec.own_file else spec.cuts[0]
    columns = max(len(layer.name) for layer in found)
    lines = [f"{'layer':{columns}}  {'kind':22}  {'output':>18}  {'kB/image':>9}"]
    for layer in found:
        shape = " × ".join(str(n) for n in layer.shape)
        mark = "  ← the default" if layer.name == default else ""
        lines.append(f"{layer.name:{columns}}  {layer.kind:22}  {shape:>18}  {layer.bytes() / 1e3:9,.1f}{mark}")
    return [*lines, "kB/image: as float16, before compression; behind a ReLU that saves a half to nine tenths."]


def prediction_lines(predictions: list["Prediction"]) -> list[str]:
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
