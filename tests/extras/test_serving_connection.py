"""A connection of `headstart serve` alone, to one who reads slowly; tests/extras/test_serving.py has a process with one who never reads."""

import asyncio
from collections.abc import Callable
from functools import partial

from stages.serve.connection import Connection


def test_who_reads_slowly_or_again_and_again_is_let_be() -> None:
    """An answer that began after another was taken counted as that one, of which nothing had been taken."""

    class Transport(asyncio.Transport):
        size, aborted = 0, False

        def get_write_buffer_size(self) -> int:
            return self.size

        def abort(self) -> None:
            self.aborted = True

    class Loop:
        """Time passes where the test says so: that of a busy machine passes between two lines of it."""

        def __init__(self) -> None:
            self.due: list[Callable[[], None]] = []

        def call_later(self, seconds: float, function: Callable[..., None], *arguments: object) -> object:
            assert seconds == 30
            self.due.append(partial(function, *arguments))
            return self.due[-1]

        def let_pass(self) -> None:
            due, self.due = self.due, []
            for each in due:
                each()

    def serve(sizes: list[int], cycles: list[object]) -> bool:
        connection, loop = Connection.__new__(Connection), Loop()
        connection._seconds, connection._untaken = 30, None
        connection.loop, connection.transport = loop, Transport()
        connection.cycle, connection.transport.size = cycles[0], sizes[0]
        connection._look_for_readers()
        for size, cycle in zip(sizes[1:], cycles[1:], strict=True):
            connection.transport.size, connection.cycle = size, cycle
            loop.let_pass()
        return connection.transport.aborted

    first, second = object(), object()
    assert not serve([900, 600, 300, 0], [first] * 4)
    assert not serve([900, 900, 500], [first, second, second])
    assert serve([900, 900], [first] * 2) and serve([900, 600, 600], [first] * 3)
