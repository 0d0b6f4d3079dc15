"""What a trained head leaves behind, written, and read back without the libraries that made it."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import CacheError, HeadError
from cache.files import atomic_path, read_sealed, seal, sha256_file, write_csv, write_text
from cache.manifest import ImageRecord
from stages.heads.scored import METRICS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stages.heads.head import Head

MODEL_SUFFIX = dict.fromkeys(("dense", "keras", "finetune", "end_to_end", "cnn"), ".keras") | {
    "sklearn": ".skops",
    "ensemble": ".json",
}
FILES = ("history.csv", "predictions.csv", *dict.fromkeys(f"model{suffix}" for suffix in MODEL_SUFFIX.values()))
# In the folder of a head that is under way, of the kinds that can be gone on with.
CHECKPOINTS = "checkpoint*.npz"
# In the folder of an ensemble: a folder for each of its heads.
HEADS = "heads"
PREDICTION_COLUMNS = ("path", "split", "true", "predicted", "sha256")


def write_head(
    folder: Path,
    head: "Head",
    records: Sequence[ImageRecord],
    logs: "NDArray[np.float64]",
    result: dict[str, Any],
) -> None:
    """Write the model, its history, its predictions for ``records``, and last its ``result.json``.

    ``logs`` (n, classes) are log-probabilities before the temperature. In ``predictions.csv`` stand the probabilities after it, as
    ``predict`` gives them, and before it.
    """
    import numpy as np

    from stages.heads.calibration import cooled

    folder.mkdir(parents=True, exist_ok=True)
    # Its result goes first: a folder without one counts as untrained, whatever else lies there.
    for stale in ("result.json", *FILES):
        (folder / stale).unlink(missing_ok=True)
    with atomic_path(folder / f"model{MODEL_SUFFIX[head.spec.kind]}") as temporary:
        head.save(temporary, {layer: tuple(shape) for layer, shape in result["feature_shapes"].items()})
    columns = dict.fromkeys(name for row in head.history_ for name in row if name != "epoch")
    history = [[i, *(row[name] for name in columns)] for i, row in enumerate(head.history_, 1)]
    write_csv(folder / "history.csv", ["epoch", *columns], history)
    names = [str(name) for name in head.classes_]
    rows = []
    both = np.hstack([np.exp(cooled(logs, result["temperature"])), np.exp(logs)])
    for record, predicted, p in zip(records, logs.argmax(axis=1), both, strict=True):
        told = [record.path, record.split, record.label, names[int(predicted)], record.sha256]
        rows.append([*told, *(f"{value:.6f}" for value in p)])
    write_csv(folder / "predictions.csv", prediction_header(names), sorted(rows))
    there = [name for name in (*FILES, *head.files_) if (folder / name).exists()]
    result["files"] = {name: sha256_file(folder / name) for name in there}
    write_text(folder / "result.json", seal(json.dumps(result, indent=1)) + "\n")
    for done in folder.glob(CHECKPOINTS):
        with suppress(OSError):  # the head is whole; `prune` lists what is left
            done.unlink()


def prediction_header(names: Sequence[str], calibrated: bool = True) -> list[str]:
    """The first line of ``predictions.csv``; earlier versions wrote the probabilities before the temperature alone, as ``p_…``."""
    raw = [f"uncalibrated_{name}" for name in names] if calibrated else []
    return [*PREDICTION_COLUMNS, *(f"p_{name}" for name in names), *raw]


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a head that was trained and is whole, else None."""
    try:
        result = read_sealed(folder / "result.json", "the result of a head")
    except (CacheError, OSError):
        return None
    return result if all((folder / name).exists() for name in result["files"]) else None


def as_trained(result: dict[str, Any]) -> dict[str, str]:
    """What a head that is made of this one notes of it. What was trained again with the same key may still be another head."""
    return {"key": result["key"], "predictions": result["files"]["predictions.csv"]}


def whole_result(folder: Path) -> dict[str, Any]:
    """As ``read_result``; raises HeadError where there is none."""
    if (result := read_result(folder)) is None:
        raise HeadError(f"{folder}: expected a trained head, found none or a damaged result.json; run `make heads`")
    return result


def read_sweep(folder: Path) -> dict[str, Any] | None:
    """The result of a sweep that was run and is whole, else None."""
    try:
        return read_sealed(folder / "result.json", "the result of a sweep")
    except (CacheError, OSError):
        return None


def trials_compared(sweep: Mapping[str, Any]) -> int:
    """Among how many trials a sweep, of which this is the result, chose its winner. Those that halving dropped were among them."""
    if sweep["strategy"] != "halving":
        return int(sweep["complete"])
    return int(sweep["trials"]) - len(sweep.get("failures", []))


def damaged_files(folder: Path, result: dict[str, Any]) -> list[str]:
    """The files of a head, an audit or an export that are not as they were written, or gone."""
    return [name for name, digest in result["files"].items() if not _is(folder / name, digest)]


def _is(path: Path, digest: str) -> bool:
    with suppress(FileNotFoundError):
        return sha256_file(path) == digest
    return False


def best_on_validation(results: list[dict[str, Any]], metric: str = "accuracy") -> dict[str, Any]:
    """The head to use: the best validation score by ``metric``, then the lowest validation log loss, then its name."""
    return min(results, key=lambda result: ranking(result, metric))


def ranking(result: dict[str, Any], metric: str = "accuracy") -> tuple[float, float, str]:
    """Sort key of a leaderboard: the best first. Test scores have no part in it. A head without the score comes last."""
    validation = result["metrics"]["validation"]
    return rank_of(metric, validation.get(metric)), validation["log_loss"], result["head"]


def rank_of(metric: str, value: float | None) -> float:
    """A score as a number that is lower for a better one; infinity for none."""
    return float("inf") if value is None else value if METRICS[metric] == "low" else -value
