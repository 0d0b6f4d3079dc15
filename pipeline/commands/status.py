"""``headstart status``: each target, up to date or stale and why."""

from typing import Any

from cache.files import is_alive
from pipeline.common.trained import chosen_among
from pipeline.common.words import bytes_in, data_lines, score_words, scored_on
from pipeline.config.load import Config
from pipeline.targets.features import BaseTarget
from pipeline.targets.graph import Graph, load_graph
from stages.export.spec import EXPORTS, export_key, folder_names, read_export
from stages.progress import Progress, counted, in_bytes


def status_lines(config: Config, progress: Progress) -> list[str]:
    """Each target: up to date, or stale and why."""
    graph = load_graph(config, progress=progress)
    lines = [*data_lines(graph), _size_line(graph)]
    rows = []
    for name, base in graph.bases.items():
        for layer in base.layers:
            words = ["features", *([name] if len(graph.bases) > 1 else []), *([layer.layer] if base.layers[1:] else [])]
            store, what = layer.store, ""
            if store is not None:
                what = f"{len(store):,} images, {in_bytes(store.size())} in {store.folder}"
            rows.append((" ".join(words), layer.reasons, what))
        if base.views:
            rows.append(_views_row(base, len(graph.bases) > 1))
    for name, head in graph.heads.items():
        what = score_words(head.result, graph.config.report.metric) if head.result else ""
        rows.append((f"head {name}", head.reasons, what))
    rows += [(f"sweep {name}", sweep.reasons, _sweep_words(sweep.result)) for name, sweep in graph.sweeps.items()]
    for name, audit in graph.audits.items():
        # One that was never asked for is nothing to do.
        if audit.result:
            title = f"audit {name}" if len(graph.audits) > 1 else "audit"
            rows.append((title, audit.reasons, _audit_words(audit.result)))
    rows += _export_rows(graph)
    rows.append(("report", _report_reasons(graph), str(graph.report_path)))
    width = max(len(name) for name, *_ in rows)
    lines += [
        f"{name:{width}}  {'stale: ' + '; '.join(why) if why else 'up to date  ' + what}" for name, why, what in rows
    ]
    return lines


def _views_row(base: BaseTarget, several: bool) -> tuple[str, tuple[str, ...], str]:
    """All views of a base in one row: what it is called, why it is stale, and what there is."""
    stores = [store for each in base.view_stores.values() for store in each]
    title = f"features {base.name} views" if several else "features views"
    what = f"{counted(len(base.views), 'view')}, {sum(map(len, stores)):,} rows, {in_bytes(sum(each.size() for each in stores))}"
    return title, base.reasons_of_views, what


def _export_rows(graph: Graph) -> list[tuple[str, tuple[str, ...], str]]:
    """The exports that there are, of heads that are configured; those of others are for prune."""
    rows: list[tuple[str, tuple[str, ...], str]] = []
    known = {folder for name in (*graph.heads, *graph.sweeps) for folder in folder_names(name)}
    for folder in sorted((graph.config.cache.dir / EXPORTS).glob("*/")):
        about = read_export(folder)
        head = graph.heads.get(about["head"]) if about else None
        if not about and folder.name in known:
            rows.append((f"export {folder.name}", ("a file of it is damaged or gone",), ""))
        if about and not head and about["head"] in graph.sweeps:
            # Its winner, which is not among the heads until the sweep is up to date.
            rows.append((f"export {folder.name}", (f"sweep {about['head']} is not up to date",), ""))
        if not about or not head or not head.result:
            continue
        made_of = about["format"], about["precision"], about.get("min_accuracy"), chosen_among(graph, head)
        same = about["key"] == export_key(head.result, *made_of)
        why = "is stale" if head.stale else None if same else "was trained anew, or is exported otherwise by now"
        rows.append((f"export {folder.name}", (f"head {about['head']} {why}",) if why else (), str(folder)))
    return rows


def _report_reasons(graph: Graph) -> tuple[str, ...]:
    stale = [name for name, head in graph.heads.items() if head.stale]
    if len(stale) > 3:
        others = tuple(reason for reason in graph.report_reasons if not reason.endswith("is trained anew"))
        return (*others, f"{len(stale)} heads are trained anew")
    return graph.report_reasons


def _sweep_words(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    parts, winner = result["parts"], result["winner"]
    score = winner.get("score", winner["accuracy"])
    best = f"best {scored_on(parts['sweep']['cv'], parts.get('metric', 'accuracy'))} {'not known' if score is None else f'{score:.3f}'}"
    return f"{counted(result['trials'], 'trial')}, {best}"


def _audit_words(result: dict[str, Any]) -> str:
    labels = result["labels"]
    found = [counted(result["copies"]["groups"], "group") + " of near-copies"]
    found += [counted(labels["suspicious"], "suspicious label")] if labels else []
    return ", ".join(found)


def _size_line(graph: Graph) -> str:
    """Where the bytes of the cache are, and how many of them belong to nothing that this configuration names."""
    folder = graph.config.cache.dir
    sizes = {
        name: bytes_in(folder / name)
        for name in ("features", "heads", "sweeps", "audit", "export", "weights", "report")
    }
    used = {layer.store.folder for base in graph.bases.values() for layer in base.every if layer.store is not None}
    # As prune has it: the winner of a sweep that is stale is kept, files beside the folders of heads are of all of them, and what a process
    # writes just now is its own.
    used |= {folder / "heads" / name for name in (*graph.heads, *graph.sweeps)}
    there = (path for kind in ("features", "heads") for path in folder.glob(f"{kind}/*/") if not is_alive(path))
    other = sum(bytes_in(path) for path in there if path not in used)
    words = ", ".join(f"{name} {in_bytes(size)}" for name, size in sizes.items() if size)
    return f"cache: {folder}: {words or 'empty'}" + (
        f"; {in_bytes(other)} not in use by this configuration, see prune" if other else ""
    )
