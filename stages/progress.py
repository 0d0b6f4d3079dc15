"""How a stage tells what it is doing, without knowing where it is shown."""

import re
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


# Control characters, line separators, overrides of the writing direction, and surrogates, which UTF-8 cannot hold.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""The text with what cannot be seen or encoded, or what a terminal would obey, spelled out, as ``\n`` or ``\udcff``."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def counted(n: int, one: str = "", many: str = "") -> str:
    """``n`` things, in words: 1 trial, 1,200 trials; the number alone where no word is given."""
    word = one if n == 1 else many or one + "s"
    return f"{n:,} {word}" if one else f"{n:,}"


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
    """Bytes in decimal units: ``12_300_000`` → ``12.3 MB``."""
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:,.1f} TB"


def in_percent(share: float) -> str:
    """``0.934`` → ``93.4%``."""
    return f"{100 * share:.1f}%"


class _Silent:
    def say(self, line: str) -> None:
        pass

    def show(self, lines: Sequence[str]) -> None:
        pass

    def task(self, what: str, total: int, unit: str = "images") -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(lambda done: None)


SILENT: Progress = _Silent()
