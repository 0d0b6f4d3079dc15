"""``headstart leaderboard``: the trained heads, best on validation first."""

from typing import Any

from pipeline.common.trained import scored_now
from pipeline.targets.graph import Graph
from stages.heads.results import ranking


def up_to_date_line(graph: Graph) -> str:
    """That everything is up to date, or the names of what is not."""
    stale = [f"features of {name}" for name, base in graph.bases.items() if base.stale]
    stale += [f"head {name}" for name, head in graph.heads.items() if head.stale]
    stale += [f"sweep {name}" for name, sweep in graph.sweeps.items() if sweep.stale]
    stale += ["report"] if graph.report_reasons else []
    return f"stale: {', '.join(stale)}" if stale else "Everything is up to date."


def leaderboard_lines(graph: Graph) -> list[str]:
    """The trained heads, best on validation first, with 95% intervals. Raises HeadError where those of today cannot be computed."""
    metric, results = standings(graph)
    if not results:
        return ["no head is trained yet; run `make report`"]
    width = max(len("head"), *(len(result["head"]) for result in results))
    lines = [] if metric == "accuracy" else [f"ranked by {metric}"]
    lines += [f"{'head':{width}}  {'validation (chooses)':>22}  {'test':>22}  {'seconds':>8}"]
    for result in results:
        scores = [_interval(result["metrics"].get(split), metric) for split in ("validation", "test")]
        lines.append(f"{result['head']:{width}}  {scores[0]:>22}  {scores[1]:>22}  {result['seconds']:8.1f}")
    return lines


def standings(graph: Graph) -> tuple[str, list[dict[str, Any]]]:
    """The metric that ranks heads, and the results of those that are trained, the best first. Raises HeadError."""
    metric = graph.config.report.metric
    found = [scored_now(graph, head) for head in graph.heads.values() if head.result and not head.stale]
    return metric, sorted(found, key=lambda result: ranking(result, metric))


def changed_lines(before: tuple[str, list[dict[str, Any]]], now: tuple[str, list[dict[str, Any]]]) -> list[str]:
    """What an edit did to the leaderboard: heads that are new or were trained again, and those that are no longer in it."""
    metric, results = now
    old = {result["head"]: (place, result) for place, result in enumerate(before[1], 1)}
    lines = []
    for place, result in enumerate(results, 1):
        name = result["head"]
        if name in old and old[name][1] == result:
            continue
        words = (
            f"{name}: validation {_interval(result['metrics'].get('validation'), metric)}, {place} of {len(results)}"
        )
        if name in old:
            was = old[name][1]["metrics"]["validation"].get(metric) if before[0] == metric else None
            words += f" (was {'' if was is None else f'{was:.3f}, '}{old[name][0]} of {len(old)})"
        lines.append(words)
    gone = [name for name in old if name not in {result["head"] for result in results}]
    return [*lines, *(f"{name}: no longer in the leaderboard" for name in gone)]


def _interval(metrics: dict[str, Any] | None, metric: str) -> str:
    if metrics is None or metrics.get(metric) is None:
        return "–"
    interval = metrics.get(f"{metric}_interval")
    return f"{metrics[metric]:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
