"""`headstart features`, with a line in a file for every batch that has gone through the base: what a killed run did is known.

python counting.py CONFIG LOG
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.commands.features import extract_missing
from pipeline.config.load import load_config


class Counting:
    def __init__(self, log: str) -> None:
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(self, line: str) -> None:
        print(line, flush=True)

    @contextmanager
    def task(self, what: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
        def advance(done: int) -> None:
            if what == "Extracting features":
                os.write(self.log, b"%d\n" % done)

        yield advance


if __name__ == "__main__":
    extract_missing(load_config(Path(sys.argv[1])), Counting(sys.argv[2]))
