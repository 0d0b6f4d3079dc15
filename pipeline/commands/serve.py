"""``headstart serve``: a page and a small JSON endpoint to try trained heads by, in one process that has them loaded."""

import os
import signal
import socket
from contextlib import suppress
from functools import partial
from importlib import import_module
from ipaddress import ip_address
from logging import CRITICAL, getLogger
from pathlib import Path
from threading import Event
from traceback import print_exception
from typing import TYPE_CHECKING, Any, NoReturn

from cache.errors import HeadstartError
from cache.files import abandon_writing
from pipeline.common.errors import unforeseen
from pipeline.common.served import ServedProject
from pipeline.config.load import load_config
from stages.progress import Progress

if TYPE_CHECKING:
    from stages.serve.limits import Limits

PACKAGES = ("starlette", "uvicorn", "python_multipart")
# Seconds that requests under way get to end, and then the batch that is being computed.
GRACE = 3
# Connections beyond the requests that are taken: browsers keep some open, and each more gets to hear why it is refused.
IDLE = 64


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def serve(
    path: Path,
    progress: Progress,
    limits: "Limits",
    head: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8770,
    min_accuracy: float | None = None,
) -> None:
    """Answer requests until Ctrl-C or SIGTERM. No lock is held, and nothing is written but what other commands keep in the cache, too.

    ``head`` is asked where a request names none (left out, the best on validation), and answers from the confidence on that gave
    ``min_accuracy`` on validation. Raises HeadstartError where what it needs is not installed, the port is taken, or the head cannot
    answer.
    """
    _require()
    from stages.serve.app import App
    from stages.serve.worker import Worker

    config = load_config(path)
    with _listening(host, port) as listening:
        project, started = ServedProject(path, progress, head), Event()
        worker = Worker(lambda: started.is_set() and project.warm_up())
        try:
            signal.signal(signal.SIGTERM, _terminated)
            served = worker.call(lambda: project.load(None)).result()
            for warning in served.warnings:
                progress.say(f"warning: {warning}")
            if min_accuracy is not None:
                threshold = served.threshold(min_accuracy)
                progress.say(
                    f"head: answers from a probability of {threshold:.3f} on, for an accuracy of {min_accuracy:g}"
                )
            started.set()  # and not before: what was an error would wait for a compilation
            worker.call(project.warm_up).result()

            def said(error: Exception) -> str:
                progress.say(f"serve: {unforeseen(error)}")
                if os.environ.get("HEADSTART_DEBUG"):
                    print_exception(error)
                return unforeseen(error)

            names = {"localhost", host.lower(), socket.gethostname().lower()}
            app = App(project, worker, limits, config.data.root.name, min_accuracy, names, said)
            address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
            if not _is_loopback(host):
                progress.say("serve: warning: everybody who can reach this machine over the network can use the page")
            progress.say(f"serve: {served.name} and the other heads are at {address} (Ctrl-C ends)")
            try:
                _run(app.starlette, listening, limits)
            finally:
                app.end()
        except KeyboardInterrupt as end:
            is_done = worker.end(GRACE)
            if is_done and not isinstance(end, _Terminated):
                raise
            abandon_writing()
            if isinstance(end, _Terminated):
                signal.raise_signal(signal.SIGTERM)
            progress.say("headstart: interrupted")
            os._exit(130)  # the worker is in the middle of a compilation, which cannot be interrupted


def _terminated(number: int, frame: Any) -> NoReturn:
    # The next one ends the process at once: that of its user, and that by which it says in the end how it ended.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise _Terminated


def _run(app: Any, listening: socket.socket, limits: "Limits") -> None:
    """Until a signal, which comes again when all is answered: raises KeyboardInterrupt."""
    import uvicorn

    from stages.serve.connection import Connection

    # What a client sends that is no form is its own affair, and told in the answer.
    getLogger("python_multipart").setLevel(CRITICAL)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=partial(Connection, limits.seconds),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.requests + IDLE,
        timeout_graceful_shutdown=GRACE,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _require() -> None:
    for package in PACKAGES:
        try:
            import_module(package)
        except ImportError as error:
            raise HeadstartError(
                f"headstart serve: expected the package {package}, found none ({error}); install headstart[serve]"
            ) from error


def _listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections. Raises HeadstartError where the address cannot be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise HeadstartError(
            f"{host}:{port}: cannot be served at ({error.strerror}); name another port with --port, or 0 for any, or another --host"
        ) from error


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host.lower() == "localhost"
