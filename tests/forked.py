"""Processes of their own that need not load TensorFlow again: forks of one that has imported everything and computed nothing.

Loading it takes five seconds of a core. What a kill, a full disk, or two writers at once come to is the same in a fork. Tests of what is
imported, of environments and of a first start begin a process anew.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADSTART = "from pipeline.cli import main; main()"


def slowed(seconds: float, code: str = HEADSTART) -> str:
    """``code`` that rests whenever it has put a file in its place: a test that waits for one, and kills, comes before the end, however
    quick the machine is, and however seldom it lets the test look.
    """
    return (
        f"import os, time\nreal = os.replace\nos.replace = lambda *names: (real(*names), time.sleep({seconds}))\n{code}"
    )


class Forked:
    """A process that runs ``code`` with ``arguments`` in a folder, in a session of its own; ``stdout`` holds both of its streams."""

    def __init__(self, folder: Path, *arguments: str, code: str = HEADSTART) -> None:
        self.returncode: int | None = None
        self._told, theirs = socket.socketpair()
        reads, writes = os.pipe()
        self.stdout = os.fdopen(reads, encoding="utf-8", errors="backslashreplace")
        request = json.dumps([str(folder), code, [sys.argv[0], *arguments], dict(os.environ)]).encode()
        socket.send_fds(_parent(), [request], [theirs.fileno(), writes])
        theirs.close()
        os.close(writes)
        self._lines = self._told.makefile()
        self.pid = int(self._lines.readline())

    def communicate(self) -> tuple[str, None]:
        """What it prints until it ends."""
        out = self.stdout.read()
        self.wait()
        return out, None

    def wait(self) -> int:
        """Its exit code, minus the signal that killed it, once it has ended."""
        if self.returncode is None:
            self.returncode = int(self._lines.readline())
            self._told.close()
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL. Its number is its own until it was waited for, which the process above it does at once."""
        os.kill(self.pid, signal.SIGKILL)


@cache
def _parent() -> socket.socket:
    """Where requests go: a process that imports everything, and ends with this one."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    command = [sys.executable, __file__, str(theirs.fileno())]
    # Pipes, as forks have them: a file, which one can seek in, is written to in another way.
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    parent = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True, **piped)
    theirs.close()
    atexit.register(lambda: (ours.close(), parent.wait()))
    return ours


def _serve(requests: socket.socket) -> str:
    """Fork for each request; in a fork, the code to run."""
    watching = []
    while True:
        message, descriptors, *_ = socket.recv_fds(requests, 1 << 20, 2)
        watching = [pid for pid in watching if not os.waitpid(pid, 0 if not message else os.WNOHANG)[0]]
        if not message:
            sys.exit()
        told, out = descriptors
        if (pid := os.fork()) == 0:
            requests.close()
            return _begin(message, socket.socket(fileno=told), out)
        watching.append(pid)
        os.close(told)
        os.close(out)


def _begin(message: bytes, told: socket.socket, out: int) -> str:
    if child := os.fork():
        os.close(out)
        told.sendall(f"{child}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        told.sendall(f"{status}\n".encode())
        os._exit(0)
    told.close()
    os.setsid()
    folder, code, sys.argv, environment = json.loads(message)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    return str(code)


if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "tests")]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in (
        "keras",
        "skops.io",
        "pipeline.cli",
        "pipeline.commands.sweep",
        "stages.sweeps.halving",
        "stages.sweeps.search",
        "stages.extract.features",
        "stages.heads.train",
    ):
        import_module(name)
    gc.freeze()  # forks share what nobody writes to
    exec(_serve(socket.socket(fileno=int(sys.argv[1]))))
