"""What was scanned, in words. Apart from what runs, as a command that only looks comes here too."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.targets.graph import Graph
from stages.data.corrections import DROPPED
from stages.data.leaks import notes_of
from stages.heads.scored import in_words
from stages.progress import counted

# Files that are named for each reason for which they were skipped, and lines for all.
OF_A_REASON, MOST_SKIPPED = 10, 50
_OF_A_FILE = re.compile(r"\d+|\(.*\)|b'.*'")


def data_lines(graph: Graph) -> list[str]:
    """What was scanned, in words: images, classes, layout, splits, what was left out and why."""
    manifest = graph.manifest
    counts = manifest.counts()
    splits = ", ".join(f"{split} {sum(counter.values()):,}" for split, counter in counts.items() if counter)
    classes = sorted(f"{name} {n:,}" for name, n in sum(counts.values(), Counter()).items())
    more = f" … and {len(classes) - 12} more" if len(classes) > 12 else ""
    lines = [
        f"data: {len(manifest.records):,} images in {len(manifest.classes)} classes, layout {manifest.layout!r} ({splits})",
        f"data: classes {', '.join(classes[:12])}{more}",
    ]
    if manifest.unlabelled:
        lines.append(
            f"data: {len(manifest.unlabelled):,} images without a label, such as {manifest.unlabelled[0]} (for predict)"
        )
    if copies := len(manifest.records) - len(manifest.by_digest):
        lines.append(f"data: {copies:,} of them copies of others; each content is extracted once")
    if manifest.ignored:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in manifest.ignored.items())
        lines.append(f"data: ignored files that are not images: {kinds}")
    lines += first([f"data: {note}" for note in notes_of(manifest)], 5)
    return lines + _skipped_lines(manifest.skipped)


def _skipped_lines(skipped: Mapping[str, str]) -> list[str]:
    """A line for each file, but of many for one reason, and of very many, for the first alone: one reason must not hide another."""
    paths = defaultdict[str, list[str]](list)
    # Bad images first, as the list may be cut: what is dropped is known to who dropped it.
    for path, reason in sorted(skipped.items(), key=lambda each: each[1].startswith(DROPPED)):
        # A reason may tell the bytes, pixels or first letters of its file.
        paths[_OF_A_FILE.sub("", reason)].append(path)
    lines, left = list[str](), 0
    for named in paths.values():
        shown = named if len(named) == OF_A_REASON + 1 else named[:OF_A_REASON]
        shown = shown[: max(0, MOST_SKIPPED - len(lines))]
        lines += [f"skipped: {path}: {skipped[path]}" for path in shown]
        left += (more := len(named) - len(shown))
        if shown and more:
            lines.append(f"skipped: … and {more:,} more like this one, see the report")
            left -= more
    return [*lines, f"… and {counted(left, 'more file')} skipped, see the report"] if left else lines


def scored_on(cv: int | None, metric: str = "accuracy") -> str:
    """What the score of a sweep's trials is called."""
    name = in_words(metric)
    return f"{name} over {cv} folds" if cv else f"validation {name}"


def score_words(result: dict[str, Any], metric: str, interval: bool = False) -> str:
    """The validation score of a head that ranks it, as the report's metric says, with its 95% interval where that is asked."""
    found = result["metrics"]["validation"]
    if found.get(metric) is None:
        return f"{scored_on(None, metric)} not known"
    low, high = found.get(f"{metric}_interval") or (None, None)
    words = f"{scored_on(None, metric)} {found[metric]:.3f}"
    return f"{words} ({low:.3f} to {high:.3f})" if interval and low is not None else words


def bytes_in(path: Path) -> int:
    """The bytes of a file, or of all files in a folder and those below it, but for what goes away meanwhile: others write there, too."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(folder, name)).st_size
    return total


def first(lines: list[str], most: int) -> list[str]:
    """The first lines of a long list, and where the rest can be read."""
    more = len(lines) - most
    return [*lines[:most], f"… and {more:,} more of these, see the report"] if more > 0 else lines
