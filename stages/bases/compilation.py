"""What XLA compiled, kept for the next process: a head of a shape that was trained before begins a second earlier.

It is machine code, so that it stays with the user and the machine: in ``~/.cache/headstart`` (``XDG_CACHE_HOME``), and never in the cache
of a project, which may come from elsewhere.
"""

import atexit
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cache.files import digest_json, read_memo, write_sealed

# Compiled functions that are kept, the newest; each takes some hundred kilobytes.
KEPT = 500
# The names of the files that were written to their end, with their sizes.
WHOLE = "whole.json"


def keep_compiled(backend: str) -> None:
    """Keep what this process will compile on a backend that is not imported yet, and use what is kept; nothing, where there is no place."""
    with suppress(OSError):
        if backend == "tensorflow" and "persistent_cache_directory" not in os.environ.get("TF_XLA_FLAGS", ""):
            # Of the processor alone, as what is compiled for a GPU belongs to its driver, too.
            flags = f"--tf_xla_persistent_cache_directory={_folder(backend)} --tf_xla_persistent_cache_device_types=CPU"
            os.environ["TF_XLA_FLAGS"] = f"{flags} {os.environ.get('TF_XLA_FLAGS', '')}".strip()
        elif backend == "jax":
            os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_folder(backend)))
            os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _folder(backend: str) -> Path:
    """The folder of this processor and this version. What a process that was killed, or a power cut, left in it is removed, as TensorFlow
    would stop at a file that is not whole; and so are the oldest files beyond those that are kept. Raises OSError.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "headstart" / f"{backend}-{digest_json(_told(backend))[:12]}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK) or any(c.isspace() for c in str(folder)):  # flags are parted by spaces
        raise PermissionError(f"{folder}: cannot be used")
    whole = read_memo(folder / WHOLE)
    there = sorted(_files(folder), key=lambda path: path.stat().st_mtime)
    for i, path in enumerate(there):
        if i < len(there) - KEPT or whole.get(path.name) != path.stat().st_size:
            path.unlink(missing_ok=True)
    atexit.register(_record, folder)
    return folder


def _record(folder: Path) -> None:
    """Note what is whole: all that there is, when a process ends by itself."""
    with suppress(OSError):
        known, sizes = read_memo(folder / WHOLE), {}
        for path in _files(folder):
            sizes[path.name] = path.stat().st_size
            if path.name not in known:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        write_sealed(folder / WHOLE, sizes)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file() and path.name != WHOLE]


def _told(backend: str) -> list[Any]:
    """What machine code depends on: the versions of what compiles it, and the units of the processor."""
    versions = {}
    for name in (backend, f"{backend}lib"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    lines: list[str] = []
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        lines = [line for line in text.splitlines() if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return [versions, platform.machine(), sorted(set(lines))]
