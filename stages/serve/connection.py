"""A connection that does not wait for ever."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):  # type: ignore[misc]
    """Closed where the head of a request is not there within so many ``seconds``, or where for so long nothing of an answer is taken.

    Uvicorn itself waits without end for the first request, for any that has begun, and for who does not read what it was answered:
    whoever opens connections and is silent could shut others out.
    """

    def __init__(self, seconds: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seconds = seconds
        self._late: asyncio.TimerHandle | None = None
        self._untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()
        self._look_for_readers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_for_readers()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._late, self._untaken):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def _look_for_readers(self) -> None:
        if not self._untaken and (size := self.transport.get_write_buffer_size()):
            self._untaken = self.loop.call_later(self._seconds, self._end_unless_taken, size, self.cycle)

    def _end_unless_taken(self, before: int, cycle: Any) -> None:
        self._untaken = None
        # Of another answer by now, the one before was taken as far as it must be for the next to begin.
        if self.cycle is cycle and self.transport.get_write_buffer_size() >= before:
            self.transport.abort()  # to close would be to wait until the rest is taken
        else:
            self._look_for_readers()

    def _wait(self) -> None:
        if self._late:
            self._late.cancel()
        self._late = self.loop.call_later(self._seconds, self._close_unless_asked, self.cycle)

    def _close_unless_asked(self, last: Any) -> None:
        # Each request is a cycle of its own.
        if self.cycle is last and (last is None or last.response_complete):
            self.timeout_keep_alive_handler()
