"""headstart's commands in the tests' own process, which has imported everything once; also for the recipes of make.

What a command does is the same in a process of its own, but for the seconds that TensorFlow and the compilation of the base take
to start. Tests of what a process of its own shows (kills, what is imported, environments) start one.
"""

import gc
import io
import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

# What make runs in the place of `headstart`: it sends the command to the process of the tests, and prints what comes back.
CLIENT = """#!{python} -ISs
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    request = [[os.fsencode(each).hex() for each in sys.argv[1:]], os.getcwd(), dict(os.environ)]
    connection.sendall(json.dumps(request).encode() + b"\\n")
    code, out, error = json.loads(connection.makefile("rb").read())
os.write(1, bytes.fromhex(out))
os.write(2, bytes.fromhex(error))
sys.exit(code)
"""
PASSED_ON = ("HEADSTART_ERROR", "HEADSTART_DEBUG", "REHASH")
_ONE_AT_A_TIME = threading.Lock()


def run(arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> tuple[int, bytes, bytes]:
    """`headstart …` in a folder: its exit code, and what it wrote to standard output and standard error."""
    from pipeline.cli import app

    out, error = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace") for _ in range(2))
    before, thresholds = {name: os.environ.pop(name, None) for name in PASSED_ON}, gc.get_threshold()
    os.environ.update({name: environment[name] for name in PASSED_ON if name in environment})
    code: Any = 0
    with _ONE_AT_A_TIME:
        home = os.getcwd()
        os.chdir(folder)
        try:
            with redirect_stdout(out), redirect_stderr(error):
                app(list(arguments))
        except SystemExit as end:
            code = end.code or 0
        finally:
            os.chdir(home)
            gc.set_threshold(*thresholds)
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
    out.flush()
    error.flush()
    return code, out.buffer.getvalue(), error.buffer.getvalue()  # type: ignore[attr-defined]


class Server:
    """Runs the commands that make's recipes send. ``client`` is what they start."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warm")  # a socket's path is short
        address = f"{self._folder.name}/socket"
        self.client = Path(self._folder.name) / "headstart"
        self.client.write_text(CLIENT.format(python=sys.executable, address=address))
        self.client.chmod(0o755)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(address)
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection, connection.makefile("rb") as lines:
                arguments, folder, environment = json.loads(lines.readline())
                try:
                    code, out, error = run([os.fsdecode(bytes.fromhex(a)) for a in arguments], folder, environment)
                except BaseException as unforeseen:  # make's recipe waits for an answer
                    code, out, error = 70, b"", repr(unforeseen).encode()
                connection.sendall(json.dumps([code, out.hex(), error.hex()]).encode())
