"""The graph, written for make: a fragment that names the targets, and small files whose times tell what is stale.

For each target there is a key file, rewritten only when the key changes, and a stamp that a recipe touches when it is done.
What is stale is found from contents (a head's result holds the key it was trained for), so the times are set to agree with that:
a copied cache, with whatever times it arrived, is as fresh as it was.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from cache.files import digest_json, write_if_changed
from pipeline.targets.graph import Graph


def write_fragment(graph: Graph, fragment: Path, sweeps: bool = False, audit: bool = False) -> None:
    """Write ``fragment`` where it changed, and the key files and stamps into the folder beside it that bears its stem.

    Where ``sweeps`` or the ``audit`` are asked for, too, they are run before the report, which shows what came of them.
    """
    folder = fragment.with_suffix("")
    features = " ".join(str(base.key(views=True)) for base in graph.bases.values())
    # Heads that need the winner of a sweep, or its best trials, come after it.
    of_sweeps = any(graph.sweeps.keys() & {*head.entry.needs, *head.entry.sweeps} for head in graph.heads.values())
    before_heads = ["sweeps"] if sweeps and of_sweeps else []
    to_sweep = sweeps and any(sweep.stale for sweep in graph.sweeps.values())
    # For each stamp the stamps before it, and its targets, each with its key and whether it is stale.
    stamps: dict[str, tuple[list[str], dict[str, tuple[str, bool]]]] = {
        "features": ([], {"features": (features, any(base.stale for base in graph.bases.values()))}),
        "heads": (
            ["features", *before_heads],
            {f"heads/{name}": (str(head.key), head.stale) for name, head in graph.heads.items()},
        ),
        "sweeps": (["features"], {f"sweeps/{name}": (each.key, each.stale) for name, each in graph.sweeps.items()}),
        "report": (
            ["heads", "sweeps"] if sweeps else ["heads"],
            {"report": (digest_json(graph.report_parts), bool(graph.report_reasons) or to_sweep)},
        ),
    }
    if audit:
        target = next(iter(graph.audits.values()))
        stamps = {"audit": (["features"], {"audit": (target.key, target.stale)})} | stamps
        before, reports = stamps["report"]
        key, is_stale = reports["report"]
        stamps["report"] = ([*before, "audit"], {"report": (key, is_stale or target.stale)})
    rules = ["# Written by headstart: what depends on what. Make it anew with any target.\n"]
    known: set[Path] = set()
    for stamp, (before, targets) in stamps.items():
        stale = {folder / f"{name}.key": is_stale for name, (_, is_stale) in targets.items()}
        for path, (key, _) in zip(stale, targets.values(), strict=True):
            write_if_changed(path, key + "\n")
        _settle(folder / f"{stamp}.stamp", stale)
        order = " ".join(f"{folder}/{name}.stamp" for name in before)
        rules.append(f"{folder}/{stamp}.stamp: {' '.join(map(str, stale))} | {order}\n")
        known |= stale.keys()
    for leftover in {*folder.glob("heads/*.key"), *folder.glob("sweeps/*.key")} - known:
        leftover.unlink()
    write_if_changed(fragment, "".join(rules))


def _settle(stamp: Path, stale: Mapping[Path, bool]) -> None:
    """Make each key file newer than the stamp where its target is stale, and older where it is not."""
    if stamp.exists():
        made = stamp.stat().st_mtime_ns
        if all((key.stat().st_mtime_ns > made) == is_stale for key, is_stale in stale.items()):
            return
    stamp.touch()
    # All in the past, so that make does not warn of clocks, and far enough apart for any file system.
    now = time.time()
    for path, age in {stamp: 4, **{key: 2 if is_stale else 6 for key, is_stale in stale.items()}}.items():
        os.utime(path, (now - age, now - age))
