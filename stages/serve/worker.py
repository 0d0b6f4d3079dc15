"""The one thread that computes: what waits for it meanwhile is its next batch."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from stages.serve.ladder import MOST
from stages.serve.served import Asked, Found, answer

T = TypeVar("T")


class Worker:
    """Answers images in batches, and calls what has to do with bases and heads, one after another. While nothing waits, ``prepare`` is
    called until it gives False.
    """

    def __init__(self, prepare: Callable[[], bool] = lambda: False) -> None:
        self._waiting: SimpleQueue[Asked | tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._prepare = prepare
        self._is_ready = False
        # A daemon, as it may be in the middle of a compilation when all is to end.
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> "Future[Found]":
        self._waiting.put(asked)
        return asked.answer

    def call(self, function: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        self._waiting.put((function, future))
        return future

    def end(self, seconds: float) -> bool:
        """Finish what is being computed, and nothing else; whether that was done within so many seconds."""
        self._waiting.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        ended = False
        while not ended:
            asked: list[Asked] = []
            while len(asked) < MOST:
                try:
                    item = self._waiting.get(block=not asked and self._is_ready)
                except Empty:
                    break
                if item is None:
                    ended = True
                    break
                if isinstance(item, Asked):
                    asked.append(item)
                else:
                    _called(*item)
                    self._is_ready = False
            if ended:
                for each in asked:
                    each.answer.cancel()
            elif asked:
                answer(asked)
            else:
                self._is_ready = not self._prepared()

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
