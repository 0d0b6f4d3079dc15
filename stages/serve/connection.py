"""A connection that does not wait for ever."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):  # type: ignore[misc]
    """Closed where the head of a request is not there within so many ``seconds``.

    Uvicorn itself waits without end for the first, and for any that has begun: whoever opens connections and is silent could shut
    others out.
    """

    def __init__(self, seconds: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seconds = seconds
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def _wait(self) -> None:
        if self._late:
            self._late.cancel()
        self._late = self.loop.call_later(self._seconds, self._close_unless_asked, self.cycle)

    def _close_unless_asked(self, last: Any) -> None:
        # Each request is a cycle of its own.
        if self.cycle is last and (last is None or last.response_complete):
            self.timeout_keep_alive_handler()
