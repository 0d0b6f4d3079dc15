"""Digests, canonical JSON, atomic replacement and locks: what everything else in the cache stands on."""

import csv
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cache.errors import CacheError

TEMPORARY_PREFIX = ".tmp-"
# What this process is writing.
_under_way: set[Path] = set()


def canonical_json(value: Any) -> str:
    """JSON with one spelling per value: sorted keys, no spaces, ASCII, no NaN.

    File names that are not UTF-8 (surrogate escapes) survive as ``\\udcXX``.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_text(text: str) -> str:
    """SHA-256 of a text, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``, as 64 hexadecimal digits."""
    return digest_text(canonical_json(value))


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    The file is synced before the rename, and the folder after it, so that a crash leaves the old file or
    the new one and nothing between. When the block raises, the temporary file is removed. The name keeps
    the suffix of ``path``, as libraries choose a format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    _under_way.add(temporary)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        # Nobody knows the temporary name; the error is about the file that could not be written.
        if error.errno:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        _under_way.discard(temporary)
        with suppress(FileNotFoundError):
            temporary.unlink()


def abandon_writing() -> None:
    """Remove the temporary files that ``atomic_path`` has open in any thread: this process ends without going back to them."""
    for temporary in tuple(_under_way):
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """As ``atomic_path``, for a folder, which is there when the block begins.

    What was there before is set aside, and removed when the new one stands. Killed in between, there is no folder, and never a half one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{path.name}"
    new, old = path.with_name(name), path.with_name(f"{name}-before")
    new.mkdir()
    try:
        yield new
        for each in (*new.rglob("*"), new):
            _sync(each)
        with suppress(FileNotFoundError):
            os.replace(path, old)
        os.replace(new, path)
        _sync(path.parent)
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)  # a folder cannot be opened as a file
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by a file that holds ``text`` in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Replace ``path`` by a table in UTF-8, atomically; file names that are not UTF-8 stay as they are."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_if_changed(path: Path, text: str) -> bool:
    """Write ``text`` unless the file holds it already; says whether it wrote.

    A file that did not change keeps its modification time, which is what make looks at.
    """
    with suppress(FileNotFoundError):
        if path.read_bytes() == text.encode("utf-8", "surrogateescape"):
            return False
    write_text(path, text)
    return True


def write_sealed(path: Path, value: dict[str, Any]) -> bool:
    """Keep ``value`` as sealed JSON, as ``write_if_changed`` does."""
    return write_if_changed(path, seal(canonical_json(value)) + "\n")


def seal(body: str) -> str:
    """The text of a JSON object with the SHA-256 of that text as its first member, so that damage is noticed."""
    return f'{{"checksum":"{digest_text(body)}",{body[1:]}'


def read_sealed(path: Path, what: str) -> dict[str, Any]:
    """The object in a sealed JSON file. Raises CacheError that names ``what`` where it is damaged, OSError where absent."""
    return read_sealed_with_digest(path, what)[1]


def read_sealed_with_digest(path: Path, what: str) -> tuple[str, dict[str, Any]]:
    """As ``read_sealed``, with the SHA-256 of the object's text."""
    text = path.read_bytes().removesuffix(b"\n")
    checksum, body = text[13:77], b"{" + text[79:]
    if text[:13] != b'{"checksum":"' or hashlib.sha256(body).hexdigest().encode() != checksum:
        raise CacheError(f"{path}: expected {what}, found a damaged file (its checksum does not match)")
    value = json.loads(body)
    assert isinstance(value, dict)
    return checksum.decode(), value


def read_memo(path: Path) -> dict[str, Any]:
    """The object in a sealed JSON file that can be made anew: an empty one where the file is absent, damaged or unreadable."""
    try:
        return read_sealed(path, "a memo")
    except (CacheError, OSError):
        return {}


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left in ``folder``. Call it only while holding the folder's lock."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def is_alive(temporary: Path) -> bool:
    """Whether it is a temporary file, and the process that made it still runs here."""
    if not temporary.name.startswith(TEMPORARY_PREFIX):
        return False
    try:
        os.kill(int(temporary.name.removeprefix(TEMPORARY_PREFIX).split("-")[0]), 0)
    except PermissionError:
        return True
    except (ValueError, OSError):
        return False
    return True


@contextmanager
def lock(folder: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold ``folder`` for one writer; where another process holds it, say for whom through ``waiting``, and wait.

    The kernel drops the lock of a dead process by itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            waiting(f"waiting for {file.read().strip() or 'another process'}, which is writing {folder}")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield
