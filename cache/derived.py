"""Rows that were made of those of a store, and are kept: one file, checked each time. Losing it costs time, nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from cache.files import atomic_path


def write_derived(path: Path, made_of: str, digests: Sequence[str], rows: NDArray[Any]) -> None:
    """Keep ``rows`` (n, d), row i of the content ``digests[i]``, atomically. ``made_of`` is the key of what they were made of, and how."""
    names, rows = np.array(digests, "S64"), np.ascontiguousarray(rows)
    head = np.array([made_of, _checksum(names, rows)])
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        for each in (head, names, rows):
            np.save(file, each, allow_pickle=False)


def read_derived(path: Path, made_of: str) -> tuple[NDArray[np.bytes_], NDArray[Any]] | None:
    """The digests (n,) S64 and the rows (n, d) of a file that is whole and was made of the same; None where there is none."""
    try:
        with open(path, "rb") as file:
            key, checksum = np.load(file, allow_pickle=False).tolist()
            if key == made_of:
                names, rows = (np.load(file, allow_pickle=False) for _ in range(2))
                if _checksum(names, rows) == checksum and len(names) == len(rows):
                    return names, rows
    except Exception:  # a damaged head of an array may say anything
        return None
    return None


def _checksum(names: NDArray[np.bytes_], rows: NDArray[Any]) -> str:
    digest = xxhash.xxh3_128(f"{rows.dtype.str}{rows.shape}".encode())
    for each in (names, rows):
        digest.update(each.reshape(-1).view(np.uint8).data if each.size else b"")
    return digest.hexdigest()
