"""The one thread that computes: what waits for it meanwhile is its next batch."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, TypeVar

from stages.serve.ladder import MOST
from stages.serve.served import Asked, Found, answer

T = TypeVar("T")
# How long a batch waits for more: a share of what the last one took, and seconds at most.
PATIENCE, MOST_PATIENCE = 0.5, 0.1


class Worker:
    """Answers images in batches, and calls what has to do with bases and heads, one after another. While nothing waits, ``prepare`` is
    called until it gives False.

    While others are ``coming``, a batch that is not full waits for them, but no longer than a part of what the last one took.
    """

    def __init__(self, prepare: Callable[[], bool] = lambda: False) -> None:
        self._waiting: SimpleQueue[Asked | tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._prepare = prepare
        self._is_ready = False
        self._patience = 0.0
        # Images that are being decoded. Counted by one thread, that of the server.
        self.coming = 0
        # A daemon, as it may be in the middle of a compilation when all is to end.
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> "Future[Found]":
        """Have an image answered in the next batch of its head."""
        self._waiting.put(asked)
        return asked.answer

    def call(self, function: Callable[[], T]) -> "Future[T]":
        """Have a function called by the thread that computes, after the batch that is being collected."""
        future: Future[T] = Future()
        self._waiting.put((function, future))
        return future

    def end(self, seconds: float) -> bool:
        """Finish what is being computed, and nothing else; whether that was done within so many seconds."""
        self._waiting.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            asked: list[Asked] = []
            call: tuple[Callable[[], Any], Future[Any]] | None = None
            until = 0.0
            # A call ends the batch, and comes after it: it may take long, and those were there first.
            while len(asked) < MOST and not call:
                try:
                    item = self._next(until) if asked else self._waiting.get(block=self._is_ready)
                except Empty:
                    break
                if item is None:
                    for each in asked:
                        each.answer.cancel()
                    return
                if isinstance(item, Asked):
                    asked.append(item)
                    until = until or perf_counter() + self._patience
                else:
                    call = item
            if asked:
                start = perf_counter()
                answer(asked)
                self._patience = min(PATIENCE * (perf_counter() - start), MOST_PATIENCE)
            if call:
                _called(*call)
                self._is_ready = False
            elif not asked:
                self._is_ready = not self._prepared()

    def _next(self, until: float) -> Any:
        """What waits, or comes by then. Raises Empty."""
        left = until - perf_counter()
        if self.coming and left > 0:
            return self._waiting.get(timeout=left)
        return self._waiting.get_nowait()

    def _prepared(self) -> bool:
        try:
            return self._prepare()
        except Exception:  # whoever asks for that will be told
            return False


def _called(function: Callable[[], Any], future: "Future[Any]") -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
