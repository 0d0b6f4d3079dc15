"""`headstart serve` in a process of its own, as a test asks it; and its application alone."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import HEADSTART, ROOT, Project

from stages.serve.app import App

# Longer than anything takes on a machine that is slow and busy.
SECONDS = 120
# Small enough that tests come to them, but for the seconds, to which a busy machine would come.
LIMITS = ("--max-megabytes", "0.1", "--max-megapixels", "1", "--max-requests", "24", "--max-seconds", "100")


class Serving:
    """A process that serves a project; ``code`` starts it otherwise than the command does."""

    def __init__(self, project: Project, *options: str, code: str = "") -> None:
        self.project = project
        self._log = project.folder / f"serve{len(list(project.folder.glob('serve*.log')))}.log"
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        with open(self._log, "w") as log:
            program = [sys.executable, "-c", code] if code else HEADSTART
            command = [*program, "serve", "--port", "0", *options]
            # A group of its own, so that a test can look for what it leaves.
            self.process = subprocess.Popen(
                command, cwd=project.folder, env=env, stdout=log, stderr=log, start_new_session=True
            )
        until(lambda: "Ctrl-C ends" in self.said or self.process.poll() is not None)
        assert "Ctrl-C ends" in self.said, self.said
        self.address = self.said.rpartition(" are at ")[2].partition(" ")[0]

    @property
    def said(self) -> str:
        return self._log.read_text()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        return self._sent(urllib.request.Request(self.address + path, headers=headers))

    def post(self, data: bytes, query: str = "", **headers: str) -> tuple[int, dict]:
        request = urllib.request.Request(
            f"{self.address}predict?{query}", data, {"Content-Type": "image/jpeg", **headers}
        )
        code, text = self._sent(request)
        return code, json.loads(text)

    def _sent(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ended(self) -> int:
        """The exit status, and nothing that is left of the process."""
        code = self.process.wait(SECONDS)
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)
        return code


@contextmanager
def serving(project: Project, *options: str, code: str = "") -> Iterator[Serving]:
    """A project that is served, and no longer after that."""
    process = Serving(project, *options, code=code)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.wait()


def copied(built: Project, folder: Path) -> Project:
    shutil.copytree(built.folder, folder)
    return Project(folder)


def until(holds: Callable[[], object]) -> None:
    """Wait for something."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def sent(
    app: App, target: str, method: str = "POST", body: bytes = b"", is_gone: bool = False, kind: str = ""
) -> tuple[int, str]:
    """What an application answers, without a server. Whoever asks may be gone when all is sent."""
    came = [{"type": "http.request", "body": body, "more_body": False}]
    answer: list[dict] = []

    async def receive() -> dict:
        if not came and not is_gone:
            await asyncio.Event().wait()
        return came.pop() if came else {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        answer.append(message)

    path, _, query = target.partition("?")
    headers = [(b"host", b"127.0.0.1"), (b"content-type", kind.encode())]
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers}
    asyncio.run(asyncio.wait_for(app.starlette(scope, receive, send), SECONDS))
    return answer[0]["status"], b"".join(each["body"] for each in answer[1:]).decode()
