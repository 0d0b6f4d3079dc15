"""An order in which heads can be trained and sweeps run: each comes after those that it needs."""

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from cache.errors import ConfigError
from pipeline.config.heads import HeadEntry
from pipeline.config.sweeps import SweepEntry


def in_order(heads: Mapping[str, HeadEntry], sweeps: Mapping[str, SweepEntry]) -> list[str]:
    """The names of heads and sweeps, each after those that it needs. Raises ConfigError for a circle."""
    needs = {name: (*entry.needs, *entry.sweeps) for name, entry in heads.items()} | {
        name: each.needs for name, each in sweeps.items()
    }
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))  # each was before the one that needs it
        raise ConfigError(
            f"expected heads that can be trained one after another, found a circle: {circle}; take one of them out of it"
        ) from None
