"""What is looked at before anything is extracted or trained, so that a mistake is found now and not an hour later."""

import json
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

from cache.errors import BaseError, HeadError
from pipeline.config.heads import HeadEntry
from pipeline.targets.graph import Graph
from pipeline.targets.heads import SweepTarget
from stages.fields import Range
from stages.heads.tuned_spec import EndToEndSpec, FinetuneSpec

# The fields of a head that say from where its base is trained.
BEGINS = ("base", "head", "from")


def check_heads(graph: Graph, extracts: bool = True) -> None:
    """Find a misspelt estimator, and where it ``extracts`` a layer that is to be extracted too. Raises HeadError."""
    from stages.heads.train import check_spec

    check = beginnings(graph)
    for name, head in graph.heads.items():
        if not head.stale:
            continue
        check_spec(name, head.entry.spec)
        if not extracts:
            continue  # a head that finds what it needs is trained, whatever another lacks
        try:
            check(head.entry)
        except (BaseError, HeadError) as error:
            raise HeadError(f"[heads.{name.split('@')[0]}] {error}") from error
    for sweep in graph.sweeps.values():
        if extracts and sweep.stale:
            check_sweep(graph, sweep, check)


def check_sweep(graph: Graph, sweep: SweepTarget, check: Callable[[HeadEntry], None]) -> None:
    """Find a trial that does not pass a ``check`` of where it begins. Raises HeadError, which names what the trial differs by."""
    grid = sweep.entry.spec.grid
    listed = {
        name: range(int(values.low), int(values.high) + 1) if isinstance(values, Range) else values
        for name, values in grid.items()
        if name in BEGINS
    }
    for values in product(*listed.values()):
        params = dict(zip(listed, values, strict=True))
        try:
            check(graph.config.variant(sweep.entry, params))
        except (BaseError, HeadError) as error:
            said = ", ".join(f"{name} = {json.dumps(value)}" for name, value in params.items())
            problem = f"{said}: {str(error).removeprefix('from: ')}" if said else error
            raise HeadError(f"[sweeps.{sweep.entry.name}] {problem}") from error


def beginnings(graph: Graph) -> Callable[[HeadEntry], None]:
    """What raises BaseError or HeadError for a head whose base cannot be trained from where it says, or on activations that are not
    extracted. Each base is built once, where it is needed.
    """

    @cache
    def built(name: str) -> Any:
        from stages.bases.model import build

        return build(graph.bases[name].spec, graph.bases[name].weights, "float32")

    def check(entry: HeadEntry) -> None:
        if isinstance(entry.spec, FinetuneSpec | EndToEndSpec):
            from stages.heads.tuning import check_start

            check_start(entry.spec, entry.layers[-1], graph.bases[entry.base].spec, lambda: built(entry.base))

    return check
