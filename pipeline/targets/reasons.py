"""Why a target is stale, in words: what was added, changed, relabelled, damaged or set otherwise."""

import csv
import json
from collections import defaultdict
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import read_sealed
from cache.manifest import Manifest
from cache.store import FeatureStore
from stages.bases.spec import SCHEMA
from stages.heads.spec import AnyHead, trained_with
from stages.progress import counted
from stages.sweeps.protocol import MARKERS


def feature_reasons(store: FeatureStore, manifest: Manifest, missing: tuple[str, ...]) -> tuple[str, ...]:
    """What a store lacks, or has otherwise than the manifest."""
    damaged = [*store.damaged, *store.set_aside()]
    if missing and not len(store) and not damaged:
        return (f"{counted(len(missing), 'image')} never extracted with this base", *_older_schemas(store))
    reasons = []
    if missing and damaged:
        reasons.append(f"{counted(len(missing), 'image')} to extract, as {', '.join(damaged)} is damaged")
    elif missing:
        before = set(store.paths().values())
        changed = sum(manifest.by_digest[sha].path in before for sha in missing)
        told = ((len(missing) - changed, "added"), (changed, "changed"))
        reasons += [counted(n, f"image {what}", f"images {what}") for n, what in told if n]
    elif damaged:
        reasons.append(f"{', '.join(damaged)} is damaged, and not needed")
    if len(store) and not store.spec_is_whole:
        reasons.append("spec.json is damaged (nothing to extract)")
    if outdated := len(store.outdated(manifest)):
        reasons.append(f"labels or names changed in {counted(outdated, 'shard')} (nothing to extract)")
    return tuple(reasons)


def _older_schemas(store: FeatureStore) -> list[str]:
    """Stores beside this one that a headstart with another schema wrote."""
    found = []
    for path in sorted(store.folder.parent.glob("*/spec.json")):
        try:
            schema = read_sealed(path, "the spec of a feature store").get("schema")
        except (CacheError, OSError):
            continue
        if schema != SCHEMA:
            found.append(f"{path.parent.name} was written with schema {schema}, this headstart has schema {SCHEMA}")
    return found


def head_reasons(
    folder: Path,
    result: dict[str, Any] | None,
    key: str,
    base_key: str,
    where: str,
    spec: AnyHead,
    manifest: Manifest,
    of_needs: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Why the head in a folder, with this ``result``, is not the one with this ``key``; ``where`` names base and layers, and
    ``of_needs`` says what is stale or another among the heads that it needs.
    """
    if result is None:
        return ("never trained",)
    if result["key"] == key:
        return of_needs
    reasons = list(of_needs)
    if result["base_key"] != base_key:
        reasons.append(f"the base changed ({where})")
    was, now = trained_with(spec, result["spec"]), spec.parameters()
    if was != now:
        same_kind = was.get("kind", now.get("kind")) == now.get("kind")  # another has other fields
        names = [name for name in {**was, **now} if was.get(name) != now.get(name)] if same_kind else ["kind"]
        reasons.append(", ".join(f"{name} {json.dumps(was.get(name))} → {json.dumps(now.get(name))}" for name in names))
    if result["rows_digest"] != manifest.rows_digest:
        reasons.append(_data_changes(folder, manifest))
    return tuple(reasons) or ("trained by a headstart with other keys",)


def sweep_reasons(
    folder: Path, result: dict[str, Any] | None, parts: dict[str, Any], head: str, of_needs: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Why the sweep in a folder, with this ``result``, is not the one that is made of these ``parts``; ``of_needs`` says which of the
    heads that its trials need are others.
    """
    if result is None:
        return ("never run",)
    if not (folder / "trials.csv").exists():
        return ("its trials.csv is gone",)
    why = {
        "sweep": "its settings changed",
        "head": f"head {head} changed",
        "bases": "the base changed",
        "rows": "images, labels or splits changed",
        "schema": "run by a headstart with other keys",
        "metric": "trials are ranked by another score",
        "needs": "a head that its trials need changed",
    } | MARKERS
    # A marker that neither has is no reason.
    reasons = [reason for part, reason in why.items() if result["parts"].get(part) != parts.get(part)]
    if result["parts"].get("needs") == parts.get("needs"):
        reasons += of_needs
    if not reasons and (failed := result.get("failed")):
        reasons = [f"{failed} of {result['trials']} trials failed, and will be tried again"]
    return tuple(reasons)


def audit_reasons(result: dict[str, Any], parts: dict[str, Any], images_here: bool) -> tuple[str, ...]:
    """Why an audit with this ``result`` is not the one that is made of these ``parts``, or would find more now."""
    why = {
        "base": "the base changed",
        "rows": "images, labels or splits changed",
        "names": "names of images changed",
        "schema": "run by a headstart with another audit",
    }
    # A renamed file changes its name alone; other changes of images change names as well, which says nothing more.
    changed = [part for part in why if result["parts"].get(part) != parts[part]]
    reasons = [why[part] for part in changed if part != "names" or "rows" not in changed]
    if "pixels" in result["left_out"] and images_here:
        reasons.append("the images are here again")
    if (
        "labels" in result["left_out"]
        and not reasons
        and find_spec("cleanlab")
        and "cleanlab" in result["left_out"]["labels"]
    ):
        reasons.append("cleanlab is installed now")
    return tuple(reasons)


def report_reasons(
    written: dict[str, Any] | None, parts: dict[str, Any], sweeps: Collection[str] = ()
) -> tuple[str, ...]:
    """Why a page that was ``written`` of other parts, or not at all, is not the one of these ``parts``. ``sweeps`` are those that are
    configured: a winner that is not among the heads is not removed.
    """
    if written is None:
        return ("never written",)
    why = {
        "page": "this headstart writes another page",
        "data": "images, names, labels, splits or what is skipped changed",
        "bases": "the base changed",
        "sweeps": "a sweep has another result",
        "metric": "heads are ranked by another score",
        "maps": "maps of the mistakes were switched on or off",
        "audit": "the audit has another result",
        "cost": "the cost of an hour changed",
    }
    # A part that neither has, such as an audit that was never run, is no reason.
    reasons = [reason for part, reason in why.items() if written.get(part) != parts.get(part)]
    if parts["images"] and not written.get("images"):
        reasons.append("the images are here again")  # without them a page is written without thumbnails
    before, now = written.get("heads", {}), parts["heads"]
    reasons += [
        f"sweep {name} is not up to date" if name in sweeps else f"head {name} was removed"
        for name in before
        if name not in now
    ]
    reasons += [f"head {name} was added" for name in now if name not in before]
    reasons += [
        f"head {name} is trained anew"
        for name, result in now.items()
        if result is None or before.get(name, result) != result
    ]
    return tuple(reasons)


def _data_changes(folder: Path, manifest: Manifest) -> str:
    """What happened to the images since the head was trained, from the predictions that it left behind."""
    try:
        with open(folder / "predictions.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.reader(file, strict=True)
            next(rows, None)
            before = {path: (split, label, sha256) for path, split, label, _, sha256, *_ in rows}
    except (OSError, ValueError, csv.Error):  # damaged, which keeps no head from being trained anew
        return "images, labels or splits changed"
    now = {r.path: (r.split, r.label, r.sha256) for r in manifest.records}
    both = [(before[path], now[path]) for path in now.keys() & before.keys()]
    # Labels are folders in most projects, so that an image which got another one bears another name. Its content is the same.
    gone = defaultdict(list)
    for path in sorted(before.keys() - now.keys()):
        gone[before[path][2]].append(before[path])
    elsewhere = [now[path] for path in sorted(now.keys() - before.keys())]
    both += [(gone[each[2]].pop(0), each) for each in elsewhere if gone[each[2]]]
    counts = {
        "added": len(now) - len(both),
        "not drawn or deleted" if manifest.drawn else "deleted": len(before) - len(both),
        "relabelled": sum(was[1] != is_now[1] for was, is_now in both),
        "moved to another split": sum(was[0] != is_now[0] and was[1] == is_now[1] for was, is_now in both),
    }
    told = [counted(n, f"image {what}", f"images {what}") for what, n in counts.items() if n]
    return ", ".join(told) or "the content of images changed"
