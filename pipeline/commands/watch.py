"""``headstart watch``: what is edited is trained at once, in a process that has TensorFlow and the features in memory already."""

import os
import select
import signal
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from cache.errors import HeadstartError
from pipeline.commands.features import extract_missing
from pipeline.commands.heads import FailedHeadsError, train_stale, warm_up
from pipeline.commands.leaderboard import changed_lines, leaderboard_lines, standings
from pipeline.commands.report import write_stale
from pipeline.common.edits import Edits
from pipeline.common.errors import unforeseen
from pipeline.config.load import Config, load_config
from pipeline.targets.graph import Graph, load_graph
from stages.progress import Progress
from stages.report.live import LivePage

if TYPE_CHECKING:
    from pipeline.commands.heads import Datasets

# Most names of files that are told of one edit.
TOLD = 3


def watch(path: Path, progress: Progress, port: int) -> None:
    """Bring everything up to date, and again after each edit, until Ctrl-C. An edit that cannot be trained is one line.

    No lock is held between two edits. Raises HeadstartError where watchfiles is not installed, or the port is taken.
    """
    _end_with_make()
    with Edits(path) as edits:
        live = LiveProject(path, progress, edits.follow)
        # Opened before anything runs: a port that is taken is not to be found after an hour of extraction.
        with LivePage(port, lambda: live.report) as page:
            progress.say(f"watch: the report is at {page.address}, and reloads itself")
            live.bring_up_to_date()
            while True:
                live.warm_up()
                if not edits.waiting:  # what was edited while it ran
                    progress.say(f"watch: waiting for edits of {', '.join(edits.names)} (Ctrl-C ends)")
                changed = edits.next()
                progress.say(f"watch: {_in_words({path.name for path in changed})} changed")
                live.bring_up_to_date()


class LiveProject:
    """A project that is kept up to date, what it came to so far, and the features that its heads were trained on."""

    def __init__(self, path: Path, progress: Progress, follow: Callable[[Config], bool] = lambda _: False) -> None:
        """``follow`` is called with the configuration before what it names is read, and says whether that was not followed so far."""
        self._path, self._progress, self._follow = path, progress, follow
        self._datasets: Datasets = {}
        self._graph: Graph | None = None
        self._is_warm = False

    @property
    def report(self) -> Path | None:
        """The page; None where there is no configuration yet that can be read."""
        return self._graph.report_path if self._graph else None

    def bring_up_to_date(self) -> None:
        """Extract, train and write what is stale, and say what changed. Whatever goes wrong is one line."""
        try:
            config = load_config(self._path)
            # What changes from now on is told. What changed before it was followed is read here: it is never followed after it was read.
            while self._follow(config):
                config = load_config(self._path)
            self._run(config)
        except HeadstartError as error:
            self._progress.say(f"watch: {error}")
        except Exception as error:
            self._progress.say(f"watch: {unforeseen(error)}")

    def _run(self, config: Config) -> None:
        start, before = perf_counter(), self._graph
        graph = load_graph(config, progress=self._progress)
        if any(base.stale for base in graph.bases.values()):
            extract_missing(config, self._progress)
            graph = load_graph(config)
        if any(head.stale for head in graph.heads.values()):
            with suppress(FailedHeadsError):  # each was said when it failed
                train_stale(config, self._progress, datasets=self._datasets)
            graph = load_graph(config)
        self._graph = graph
        self._tell(before, graph, perf_counter() - start)
        if graph.report_reasons and not any(head.stale for head in graph.heads.values()):
            write_stale(config, self._progress)

    def _tell(self, before: Graph | None, now: Graph, seconds: float) -> None:
        if not before and not standings(now)[1]:
            self._progress.say("watch: no head is trained yet")
            return
        lines = changed_lines(standings(before), standings(now)) if before else leaderboard_lines(now)
        for line in lines:
            self._progress.say(line)
        if stale := [name for name, head in now.heads.items() if head.stale]:
            self._progress.say(f"watch: not up to date: {_in_words(stale)}")
        elif before:
            self._progress.say(f"watch: {f'up to date after {seconds:.1f} s' if lines else 'nothing to train'}")

    def warm_up(self) -> None:
        """Import, and compile, what heads that are edited next will need; once."""
        if self._graph and not self._is_warm:
            self._is_warm = True
            try:
                warm_up(self._graph, self._datasets)
            except HeadstartError as error:
                self._progress.say(f"watch: {error}")


def _end_with_make() -> None:
    """Have this process end as soon as the make that runs it does, which may be killed alone."""
    number = os.environ.get("HEADSTART_MAKE", "")
    if not number.isdecimal() or not hasattr(os, "pidfd_open"):
        return
    try:
        make = os.pidfd_open(int(number))
    except ProcessLookupError:
        signal.raise_signal(signal.SIGTERM)
        return
    except OSError:  # an old kernel
        return

    def end() -> None:
        select.select([make], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, name="make", daemon=True).start()


def _in_words(found: Collection[str]) -> str:
    names = sorted(found)
    more = f" and {len(names) - TOLD:,} more" if len(names) > TOLD else ""
    return f"{', '.join(names[:TOLD])}{more}"
