"""``headstart report``: the page of what was trained."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from cache.errors import HeadError
from pipeline.common.sources import looker_of
from pipeline.config.load import Config
from pipeline.targets.features import BaseTarget
from pipeline.targets.graph import Graph, load_graph
from stages.bases.licences import licence_of
from stages.bases.weights import note
from stages.heads.looks import test_looks
from stages.progress import SILENT, Progress
from stages.report.data import AuditSummary, BaseSummary, HeadSummary, ReportData

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stages.predict.looker import Looker


def write_stale(config: Config, progress: Progress) -> Graph:
    """Write the report where it is stale. Raises HeadError while a head is not trained."""
    graph = load_graph(config, progress=progress)
    for name, head in graph.heads.items():
        if head.stale:
            raise HeadError(f"head {name!r} is not up to date: {'; '.join(head.reasons)}; run `make heads`")
    for name, sweep in graph.sweeps.items():
        if not sweep.done:
            progress.say(f"report: sweep {name} is not in it: {'; '.join(sweep.reasons)}; run `make sweep`")
    if graph.report_reasons:
        from stages.report.render import write_report

        write_report(graph.report_path, report_data(graph, progress))
        progress.say(f"report: written → {graph.report_path}")
    else:
        progress.say("report: up to date")
    return graph


def report_data(graph: Graph, progress: Progress = SILENT) -> ReportData:
    """Everything that the page shows."""
    return ReportData(
        title=graph.config.data.root.name,
        manifest=graph.manifest,
        skipped=graph.manifest.skipped,
        root=graph.config.data.root if graph.images_here else None,
        bases=[_base_summary(base, layer) for base in graph.bases.values() for layer in base.stores],
        heads=[HeadSummary(name, head.folder, head.result) for name, head in graph.heads.items() if head.result],
        parts=graph.report_parts,
        metric=graph.config.report.metric,
        # Heads that an earlier version trained are not counted there.
        looks=max(
            test_looks(graph.config.cache.dir / "heads", graph.manifest),
            sum("test" in head.result["metrics"] for head in graph.heads.values() if head.result),
        ),
        sweeps=[sweep.done for sweep in graph.sweeps.values() if sweep.done],
        cost=graph.config.cost,
        audit=AuditSummary(graph.audit.folder, graph.audit.result) if graph.audit and graph.audit.result else None,
        maps=_maps(graph, progress) if graph.config.report.maps and graph.images_here else None,
    )


def _maps(graph: Graph, progress: Progress) -> "Callable[[str, str, str], NDArray[np.uint8] | None]":
    """What draws where a head looked; a head that does not say where is named once."""
    lookers: dict[str, Looker | None] = {}

    def draw(name: str, path: str, label: str) -> "NDArray[np.uint8] | None":
        from stages.data.images import BadImageError
        from stages.explain.drawing import overlay
        from stages.report.pictures import EDGE

        if name not in lookers:
            lookers[name] = looker_of(graph, graph.heads[name], progress)
        if (looker := lookers[name]) is None:
            return None
        try:
            first, *_ = looker.look(graph.config.data.root / path, label, edge=EDGE)
        except BadImageError:
            return None
        except HeadError as error:
            lookers[name] = None
            progress.say(f"report: no maps: {error}")
            return None
        return overlay(first.image, first.map) if first.map is not None else None

    return draw


def _base_summary(base: BaseTarget, layer: str) -> BaseSummary:
    store = base.stores[layer]
    infos, views = store.info(), base.view_stores[layer]
    licence = licence_of(base.spec, base.weights.folder)
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
        note=note(base.spec),
        licence=f"{licence.terms} ({licence.source})",
        view_rows=sum(map(len, views)),
        view_seconds=sum(info.seconds for each in views for info in each.info()),
    )
