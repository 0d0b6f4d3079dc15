"""Where the seconds of one command go: a process of its own, in which imports and steps are timed.

    python -m bench.parts FILE COMMAND …

Runs `headstart COMMAND …` and adds a line of JSON to FILE: seconds by part. A part within a part counts once, for the inner one, so that
they sum up to the process; of `watch`, a line for each edit. Imports are charged to the package that was asked for first, with all
that it brings along.
"""

import argparse
import importlib._bootstrap as bootstrap  # type: ignore[import-not-found]
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OURS = ("pipeline", "stages", "cache", "bench", "headstart")
# Packages by the name that they are printed under; those that are not named here are "others".
IMPORTS = {name: name for name in ("keras", "tensorflow", "sklearn", "skops", "scipy", "matplotlib", "numpy", "jinja2")}
IMPORTS |= {"keras": "TensorFlow", "tensorflow": "TensorFlow", "sklearn": "scikit-learn"}
STEPS = {
    "configuration and graph": [
        "pipeline.config.load:load_config",
        "pipeline.targets.graph:load_graph",
        "pipeline.commands.graph:write_fragment",
    ],
    "reading features": ["stages.heads.dataset:Dataset.X", "stages.heads.dataset:Dataset.source"],
    "training": [
        "stages.training.together:train_all",
        "stages.heads.fitting:fit_all",
        "stages.heads.own:KerasHead.fit",
    ],
    "scoring": ["stages.heads.train:_outcome"],
    "saving": ["stages.heads.results:write_head"],
    "report": ["stages.report.render:write_report"],
    "loading the head": ["stages.heads.train:load_head"],
    "building the base": ["pipeline.common.build:base_as_stored", "stages.bases.frozen:FrozenBase.__init__"],
    "computing features": ["stages.predict.predict:_extract"],
}


class Clock:
    """Seconds by part, each second in the innermost one that is under way."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._under_way = ["others"]
        self._since = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._count()
        self._under_way.append(name)
        try:
            yield
        finally:
            self._count()
            self._under_way.pop()

    @property
    def importing(self) -> bool:
        return self._under_way[-1].startswith("import of ")

    def stop(self) -> dict[str, float]:
        self._count()
        return dict(self.seconds)

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds[self._under_way[-1]] += now - self._since
        self._since = now


def watch_imports(clock: Clock) -> None:
    """Time what is imported from now on, and the steps in our own modules as these arrive."""
    plain: Callable[..., Any] = bootstrap._find_and_load
    steps: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for part, places in STEPS.items():
        for place in places:
            module, _, name = place.partition(":")
            steps[module].append((name, part))

    def timed(name: str, *rest: Any) -> Any:
        top = name.partition(".")[0]
        if clock.importing:
            return plain(name, *rest)
        if top in OURS:
            fresh = name not in sys.modules
            with clock.part("headstart itself"):  # what it imports at its top is charged to packages, in turn
                module = plain(name, *rest)
            for attribute, part in steps.get(name, ()) if fresh else ():
                _time(module, attribute, part, clock)
            return module
        with clock.part(f"import of {IMPORTS.get(top, 'others')}"):
            return plain(name, *rest)

    bootstrap._find_and_load = timed


def _time(module: Any, path: str, part: str, clock: Clock) -> None:
    *owner, name = path.split(".")
    home = getattr(module, owner[0]) if owner else module
    if (function := getattr(home, name, None)) is None:
        return

    def timed(*args: Any, **kwargs: Any) -> Any:
        with clock.part(part):
            return function(*args, **kwargs)

    setattr(home, name, timed)


def watch_rounds(clock: Clock, file: str) -> None:
    """Of `headstart watch`, a line for each edit: the seconds from then on until its row is told."""
    from pipeline.commands.watch import LiveProject

    run, tell = LiveProject.bring_up_to_date, LiveProject._tell
    begun: dict[str, float] = {}

    def timed(self: Any) -> Any:
        begun.clear()
        begun.update(clock.stop())
        return run(self)

    def told(self: Any, *rest: Any) -> None:
        tell(self, *rest)
        _add(file, {part: value - begun.get(part, 0.0) for part, value in clock.stop().items()})

    LiveProject.bring_up_to_date, LiveProject._tell = timed, told  # type: ignore[method-assign]


def _add(file: str, parts: dict[str, float]) -> None:
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(parts) + "\n")


def since_start() -> float:
    """Seconds since this process was started."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return float(Path("/proc/uptime").read_text().split()[0]) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    before = since_start()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="that a line of JSON is added to")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="of headstart, with its arguments")
    arguments = parser.parse_args()
    file, sys.argv[1:] = arguments.file, arguments.command
    clock = Clock()
    watch_imports(clock)
    if sys.argv[1:2] == ["watch"]:
        watch_rounds(clock, file)
    try:
        from pipeline.cli import main as headstart

        headstart()
    finally:
        _add(file, {"process start": before, **clock.stop()})


if __name__ == "__main__":
    main()
