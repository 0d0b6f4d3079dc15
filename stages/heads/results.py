"""What a trained head leaves behind, read back without the libraries that made it."""

from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import read_sealed, sha256_file

MODEL_SUFFIX = {"dense": ".keras", "keras": ".keras", "sklearn": ".skops"}


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a head that was trained and is whole, else None."""
    try:
        result = read_sealed(folder / "result.json", "the result of a head")
    except (CacheError, OSError):
        return None
    return result if all((folder / name).exists() for name in result["files"]) else None


def read_sweep(folder: Path) -> dict[str, Any] | None:
    """The result of a sweep that was run and is whole, else None."""
    try:
        return read_sealed(folder / "result.json", "the result of a sweep")
    except (CacheError, OSError):
        return None


def damaged_files(folder: Path, result: dict[str, Any]) -> list[str]:
    """The files of a head that are not as they were written."""
    return [name for name, digest in result["files"].items() if sha256_file(folder / name) != digest]


def best_on_validation(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The head to use: the highest validation accuracy, then the lowest validation log loss, then its name."""
    return min(results, key=ranking)


def ranking(result: dict[str, Any]) -> tuple[float, float, str]:
    """Sort key of a leaderboard. Test scores have no part in it."""
    validation = result["metrics"]["validation"]
    return -validation["accuracy"], validation["log_loss"], result["head"]
