"""What a person sees: lines, a progress bar on a terminal, a line now and then elsewhere."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from io import TextIOWrapper
from time import perf_counter

from stages.progress import visible

SECONDS_BETWEEN_LINES = 10.0


class Terminal:
    """A ``Progress`` that shows itself: results go to standard output, progress to standard error."""

    def __init__(self) -> None:
        # A file name that is not UTF-8 is shown escaped; it must not stop the run.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        self._shown: list[str] = []
        self._bars = 0
        self._printed = perf_counter()

    def say(self, line: str) -> None:
        """Print one line, with what is not printable made visible."""
        print(visible(line), file=sys.stderr, flush=True)

    def show(self, lines: Sequence[str]) -> None:
        """Lines under the bars, in the place of those before; off a terminal they are printed, now and then."""
        if sys.stderr.isatty():
            self._shown = [visible(line) for line in lines]
        elif perf_counter() - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = perf_counter()
            for line in lines:
                self.say(line)

    def task(self, what: str, total: int, unit: str = "images") -> AbstractContextManager[Callable[[int], None]]:
        """A bar with things per second and the time left; off a terminal, a line every ten seconds."""
        return (self._bar if sys.stderr.isatty() else self._lines)(what, total, unit)

    @contextmanager
    def _bar(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        from rich.console import Console, RenderableType
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.text import Text

        terminal = self

        class WithLines(Progress):
            def get_renderables(self) -> Iterator[RenderableType]:
                yield from super().get_renderables()
                # A head of one's own has a bar within that of its sweep.
                if terminal._bars == 1 and terminal._shown:
                    yield Text("\n".join(terminal._shown))

        start = perf_counter()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with WithLines(*columns, console=Console(stderr=True, emoji=False), transient=True) as progress:
            task = progress.add_task(what, total=total, rate="")

            def advance(done: int) -> None:
                rate = (progress.tasks[0].completed + done) / max(perf_counter() - start, 1e-9)
                progress.update(task, advance=done, rate=f"{rate:,.{0 if rate >= 10 else 1}f} {unit}/s")

            self._bars += 1
            try:
                yield advance
            finally:
                self._bars -= 1

    @contextmanager
    def _lines(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        start = said = perf_counter()
        done = 0

        def advance(more: int) -> None:
            nonlocal done, said
            done += more
            now = perf_counter()
            if now - said >= SECONDS_BETWEEN_LINES:
                said = now
                rate = done / (now - start)
                self.say(f"{what}: {done:,} of {total:,}, {rate:,.1f} {unit}/s, {(total - done) / rate:,.0f} s left")

        yield advance
