"""The report in a browser of this machine, reloaded when it is written again. The file itself stays without a script."""

import os
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from cache.errors import HeadstartError

HOST = "127.0.0.1"
NONE_YET = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>headstart</title></head>'
    "<body><p>No report is written yet.</p></body></html>"
)
NONE = "none"  # the stamp of that
# What the page itself forbids to load is nearly all there is.
POLICY = "default-src 'none';"
RELOAD = """<script nonce="{nonce}">
const seen = "{stamp}";
setInterval(async () => {{
  try {{
    const now = await (await fetch("/stamp")).text();
    if (now !== seen) location.reload();
  }} catch {{}}  // headstart was ended
}}, 500);
</script>
"""


class LivePage:
    """Serves the page that ``path`` gives, or says that there is none yet. ``port`` 0 is any that is free.

    Raises HeadstartError where the port is taken.
    """

    def __init__(self, port: int, path: Callable[[], Path | None]) -> None:
        try:
            self._server = ThreadingHTTPServer((HOST, port), _handler(path))
        except OSError as error:
            raise HeadstartError(
                f"{HOST}:{port}: cannot be served at ({error.strerror}); name another port with --port, or 0 for any"
            ) from error
        self._server.daemon_threads = True
        self.address = f"http://{HOST}:{self._server.server_address[1]}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(path: Callable[[], Path | None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A site whose name was turned to this address would come with its own, and must not read photos.
            host = self.headers.get("Host", "").rpartition(":")[0]
            if host not in (HOST, "localhost"):
                self.send_error(403)
            elif self.path == "/":
                self._send(_with_reload(*_read(path())), "text/html")
            elif self.path == "/stamp":
                self._send(_stamp(path()), "text/plain")
            else:
                self.send_error(404)

        def _send(self, text: str, kind: str) -> None:
            body = text.encode("utf-8", "surrogateescape")
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            """Nothing: the terminal is for what is trained."""

    return Handler


def _read(path: Path | None) -> tuple[str, str]:
    """The page, and its stamp, of one file: another may be put in its place meanwhile."""
    if path is not None:
        with suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(), _in_words(os.fstat(file.fileno()))
    return NONE_YET, NONE


def _stamp(path: Path | None) -> str:
    """What is another when the page is written again."""
    if path is not None:
        with suppress(OSError):
            return _in_words(path.stat())
    return NONE


def _in_words(status: os.stat_result) -> str:
    return f"{status.st_ino}-{status.st_mtime_ns}"


def _with_reload(page: str, stamp: str) -> str:
    nonce = secrets.token_urlsafe(16)
    allowed = f"{POLICY} script-src 'nonce-{nonce}'; connect-src 'self';"
    head, _, rest = page.replace(POLICY, allowed, 1).partition("</head>")
    return f"{head}{RELOAD.format(nonce=nonce, stamp=stamp)}</head>{rest}"
