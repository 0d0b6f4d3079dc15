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
from pipeline.graph import Graph

SECOND = 1_000_000_000


def write_fragment(graph: Graph, fragment: Path, sweeps: bool = False, audit: bool = False) -> None:
    """Write ``fragment`` where it changed, and the key files and stamps into the folder beside it that bears its stem.

    Where ``sweeps`` or the ``audit`` are asked for, too, they are run before the report, which shows what came of them.
    """
    folder = fragment.with_suffix("")
    keys = {
        "features": " ".join(str(base.key()) for base in graph.bases.values()),
        **{f"heads/{name}": str(head.key) for name, head in graph.heads.items()},
        **{f"sweeps/{name}": sweep.key for name, sweep in graph.sweeps.items()},
        "report": digest_json(graph.report_parts),
    }
    to_sweep = any(sweep.stale for sweep in graph.sweeps.values())
    stale = {
        "features": {"features": any(base.stale for base in graph.bases.values())},
        "heads": {f"heads/{name}": head.stale for name, head in graph.heads.items()},
        "sweeps": {f"sweeps/{name}": sweep.stale for name, sweep in graph.sweeps.items()},
        "report": {"report": bool(graph.report_reasons) or (sweeps and to_sweep)},
    }
    if audit:
        keys["audit"] = next(iter(graph.audits.values())).key
    for name, key in keys.items():
        write_if_changed(folder / f"{name}.key", key + "\n")
    for leftover in (*folder.glob("heads/*.key"), *folder.glob("sweeps/*.key")):
        if f"{leftover.parent.name}/{leftover.name.removesuffix('.key')}" not in keys:
            leftover.unlink()
    before = {
        "features": "",
        "heads": "features",
        "sweeps": "features",
        "report": "heads sweeps" if sweeps else "heads",
    }
    if audit:
        target = next(iter(graph.audits.values()))
        stale["audit"], before["audit"] = {"audit": target.stale}, "features"
        stale["report"]["report"] |= target.stale
        before["report"] += " audit"
    rules = []
    for stamp, targets in stale.items():
        _settle(folder, stamp, targets)
        order = " ".join(f"{folder}/{name}.stamp" for name in before[stamp].split())
        rules.append(f"{folder}/{stamp}.stamp: {' '.join(f'{folder}/{name}.key' for name in targets)} | {order}\n")
    write_if_changed(
        fragment, "# Written by headstart: what depends on what. Make it anew with any target.\n" + "".join(rules)
    )


def _settle(folder: Path, stamp_name: str, stale: Mapping[str, bool]) -> None:
    """Make each key file newer than the stamp where its target is stale, and older where it is not."""
    stamp = folder / f"{stamp_name}.stamp"
    keys = {folder / f"{name}.key": is_stale for name, is_stale in stale.items()}
    if stamp.exists() and all((_mtime(key) > _mtime(stamp)) == is_stale for key, is_stale in keys.items()):
        return
    stamp.touch()
    # All in the past, so that make does not warn of clocks, and far enough apart for any file system.
    now = time.time_ns()
    _set_mtime(stamp, now - 4 * SECOND)
    for key, is_stale in keys.items():
        _set_mtime(key, now - (2 if is_stale else 6) * SECOND)


def _mtime(path: Path) -> int:
    return path.stat().st_mtime_ns


def _set_mtime(path: Path, ns: int) -> None:
    os.utime(path, ns=(ns, ns))
