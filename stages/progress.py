"""How a stage tells what it is doing, without knowing where it is shown."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """What a stage may call while it works."""

    def say(self, line: str) -> None:
        """Show one line."""

    def show(self, lines: Sequence[str]) -> None:
        """Show lines in the place of those that were shown before, where that can be done."""

    def task(self, what: str, total: int, unit: str = "images") -> AbstractContextManager[Callable[[int], None]]:
        """Show a bar over ``total`` things; the function that it gives is called with how many more are done."""


def counted(n: int, one: str, many: str = "") -> str:
    """``n`` things, in words: 1 trial, 2 trials."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def spans(numbers: Sequence[int]) -> str:
    """Ascending whole numbers in words: 1 to 4, 6."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ", ".join(" to ".join(map(str, each)) for each in found)


def in_bytes(size: float) -> str:
    """Bytes in words: MB or GB."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


class _Silent:
    def say(self, line: str) -> None:
        pass

    def show(self, lines: Sequence[str]) -> None:
        pass

    def task(self, what: str, total: int, unit: str = "images") -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(lambda done: None)


SILENT: Progress = _Silent()
