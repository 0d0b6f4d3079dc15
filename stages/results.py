"""What a trained head leaves behind, read back without the libraries that made it."""

from pathlib import Path
from typing import Any

from cache.files import read_json

MODEL_SUFFIX = {"dense": ".keras", "sklearn": ".skops"}


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a head that was trained and is whole, else None."""
    path = folder / "result.json"
    if not path.exists():
        return None
    result = read_json(path, "the result of a head")
    names = (f"model{MODEL_SUFFIX.get(result.get('kind'), '')}", "history.csv", "predictions.csv")
    return result if all((folder / name).exists() for name in names) else None


def best_on_validation(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The head to use: the highest validation accuracy, then the lowest validation log loss, then its name."""
    return min(results, key=ranking)


def ranking(result: dict[str, Any]) -> tuple[float, float, str]:
    """Sort key of a leaderboard. Test scores have no part in it."""
    validation = result["metrics"]["validation"]
    return -validation["accuracy"], validation["log_loss"], result["head"]
