"""The page and the endpoints: an upload comes in, is decoded by threads, waits for the worker's next batch, and goes out as JSON."""

import asyncio
import json
import math
import os
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from cache.errors import HeadError, HeadstartError
from stages.data.images import BadImageError
from stages.extract.decoding import step_back
from stages.serve.guard import check_name, check_site
from stages.serve.limits import Limits, RefusedError
from stages.serve.page import rendered
from stages.serve.served import Asked, Served
from stages.serve.told import prepared, told, told_in_detail
from stages.serve.worker import Worker

# What may stand around a file in a form.
AROUND = 2**20
# An upload that is too large is read so many times as far, so that whoever sends it gets to hear why it is refused.
READ = 8
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Heads(Protocol):
    """The trained heads of a project. A name that is None is that of the head that is asked where none is named."""

    def ready(self, name: str | None) -> Served | None:
        """The head, where it is loaded and is what there is on the disk; else None. Quick."""

    def load(self, name: str | None) -> Served:
        """The head as it is on the disk. Called by the worker. Raises HeadError for one that there is not, and other HeadstartErrors."""

    def told(self) -> dict[str, Any]:
        """Which heads there are. Called by the worker."""


class App:
    """Answers requests about ``heads`` within ``limits``; ``names`` in lower case are those under which it may be asked, beside addresses.

    ``unforeseen`` is told of errors that nobody foresaw, and gives the line for them.
    """

    def __init__(
        self,
        heads: Heads,
        worker: Worker,
        limits: Limits,
        title: str,
        min_accuracy: float | None = None,
        names: Collection[str] = ("localhost",),
        unforeseen: Callable[[Exception], str] = repr,
    ) -> None:
        self._heads, self._worker, self._limits, self._title = heads, worker, limits, title
        self._min_accuracy, self._names, self._unforeseen = min_accuracy, names, unforeseen
        self._decoders = ThreadPoolExecutor(os.cpu_count() or 1, "decode", initializer=step_back)
        self._under_way = 0
        routes = [("/", self._page, "GET"), ("/heads", self._told_heads, "GET"), ("/predict", self._predict, "POST")]
        self.starlette = Starlette(
            routes=[Route(path, self._guarded(answer), methods=[method]) for path, answer, method in routes],
            exception_handlers={HTTPException: _unknown},
        )

    def end(self) -> None:
        self._decoders.shutdown(wait=False, cancel_futures=True)

    def _guarded(self, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """What goes wrong is one line of JSON, and never the end of the server."""

        async def guarded(request: Request) -> Response:
            try:
                check_name(request.headers, self._names)
                if answer != self._page:  # which others may link to
                    check_site(request.headers)
                response: Response = await answer(request)
            except RefusedError as refused:
                response = _error(refused.status, str(refused))
            except BadImageError as bad:
                response = _error(422, str(bad))
            except HeadstartError as error:
                response = _error(500, str(error))
            except ClientDisconnect:
                response = Response(status_code=400)  # nobody is there to read it
            except Exception as error:
                response = _error(500, self._unforeseen(error))
            response.headers.update(HEADERS)
            return response

        return guarded

    async def _page(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        page = rendered(self._title, self._limits, self._min_accuracy, nonce)
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY.format(nonce=nonce)})

    async def _told_heads(self, request: Request) -> Response:
        async with self._timed():
            return _json(await asyncio.wrap_future(self._worker.call(self._heads.told)))

    async def _predict(self, request: Request) -> Response:
        async with self._counted(), self._timed():
            data = await self._upload(request)
            return _json(await _unless_gone(request, self._answer(data, request.query_params)))

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        if self._under_way >= self._limits.requests:
            raise RefusedError(
                503, f"{self._under_way} requests are under way, as many as are taken; try again in a moment"
            )
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    @asynccontextmanager
    async def _timed(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limits.seconds) as limit:
                yield
        except TimeoutError:
            if not limit.expired():  # but that of a disk or a network
                raise
            raise RefusedError(
                504, f"not done within {self._limits.seconds:g} seconds; try again in a moment, or a smaller image"
            ) from None

    async def _upload(self, request: Request) -> bytes:
        """The image file in a request: its body, or the first file of a form."""
        kind = request.headers.get("content-type", "")
        is_form = kind.startswith("multipart/form-data")
        body = await self._body(request, self._limits.bytes + (AROUND if is_form else 0))
        if not is_form:
            return body
        data = await _file_of(request, body)
        if len(data) > self._limits.bytes:
            raise self._too_large(len(data))
        return data

    async def _body(self, request: Request, most: int) -> bytes:
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > READ * most:
            raise self._too_large(int(announced))
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size <= most:
                parts.append(part)
            elif size > READ * most:
                break
        if size > most:
            raise self._too_large(size)
        return b"".join(parts)

    def _too_large(self, size: int) -> RefusedError:
        # Rounded up, as it would say that it found what it expects.
        found = math.ceil(size / 1e5) / 10
        return RefusedError(413, f"expected at most {self._limits.bytes / 1e6:g} MB, found {found:.1f} MB")

    async def _answer(self, data: bytes, query: Mapping[str, str]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        served = await self._served(query.get("head"))
        detailed = _flag(query, "details")
        k = _class(query, served)
        min_accuracy = _accuracy(query, self._min_accuracy)
        specs = served.specs(detailed)
        threshold = 0.0
        self._worker.coming += 1
        try:
            upload = await loop.run_in_executor(self._decoders, prepared, data, specs, self._limits.pixels, detailed)
            if min_accuracy is not None:
                threshold = await loop.run_in_executor(self._decoders, _threshold, served, min_accuracy)
            size = None if upload.picture is None else (upload.picture.shape[0], upload.picture.shape[1])
            asked = self._worker.ask(Asked(served, upload.images, upload.digest, size, k))
        finally:
            self._worker.coming -= 1
        found = await asyncio.wrap_future(asked)
        out = told(served, found, min_accuracy, threshold)
        if detailed:
            out |= await loop.run_in_executor(self._decoders, told_in_detail, served, found, upload)
        return out

    async def _served(self, name: str | None) -> Served:
        if served := self._heads.ready(name):
            return served
        try:
            return await asyncio.wrap_future(self._worker.call(lambda: self._heads.load(name)))
        except HeadError as error:
            raise RefusedError(404, str(error)) from error


async def _unless_gone(request: Request, answer: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """The answer. Raises ClientDisconnect, and has the worker leave it out, where whoever asked does not wait for it any more."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.create_task(answer), asyncio.create_task(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


async def _file_of(request: Request, body: bytes) -> bytes:
    async def again() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(request.scope, again).form(max_files=1, max_fields=10) as form:
            for value in form.values():
                if not isinstance(value, str):
                    found: bytes = await value.read()
                    return found
    except HTTPException as error:
        raise RefusedError(400, f"expected a form with one image file: {error.detail}") from error
    raise RefusedError(400, "expected a form with an image file, found none; such as curl -F image=@photo.jpg")


def _flag(query: Mapping[str, str], name: str) -> bool:
    value = query.get(name, "0")
    if value not in ("0", "1"):
        raise RefusedError(400, f"{name}: expected 0 or 1, found {value!r}")
    return value == "1"


def _class(query: Mapping[str, str], served: Served) -> int | None:
    name = query.get("class")
    if name is not None and name not in served.classes:
        raise RefusedError(400, f"class: expected one of the classes of head {served.name!r}, found {name!r}")
    return None if name is None else served.classes.index(name)


def _accuracy(query: Mapping[str, str], otherwise: float | None) -> float | None:
    value = query.get("min_accuracy")
    if value is None:
        return otherwise
    if value == "":
        return None
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise RefusedError(400, f"min_accuracy: expected a number from 0 to 1, or nothing, found {value!r}")
    return number


def _threshold(served: Served, accuracy: float) -> float:
    try:
        return served.threshold(accuracy)
    except HeadError as error:
        raise RefusedError(422, str(error).replace("--min-accuracy", "min_accuracy")) from error


def _error(status: int, message: str) -> Response:
    return _json({"error": message}, status, {"Retry-After": "1"} if status == 503 else None)


def _json(told: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """In ASCII: names of files that are not UTF-8 cannot be encoded otherwise."""
    return Response(json.dumps(told, allow_nan=False, separators=(",", ":")), status, headers, "application/json")


async def _unknown(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: other paths and methods."""
    assert isinstance(error, HTTPException)
    return _error(
        error.status_code, f"{request.method} {request.url.path}: expected GET /, GET /heads or POST /predict"
    )
