"""Sweeps and paths: halving against the full grid and plain Keras, shared baselines against scikit-learn one by one.

    python -m bench.sweep [--rows 2000] [--epochs 30] [--only halving|baselines] [--json FILE]

Halving: 216 mixed trials (flattened and pooled, no to two hidden layers, four rates, three dropouts) on made-up features
(4, 4, 512), its seconds of training, those of the full grid by the same code, those of ``keras.Model.fit`` one after
another (nine trials, one of each architecture on pooled and flattened features in turn, multiplied up), and both winners'
validation accuracy. Baselines: twenty strengths of ridge and ten of logistic regression, on pooled and on flattened
features, against scikit-learn's fits of the same, standardised once for both.
"""

import argparse
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler

from bench.heads import plain
from cache import FeatureStore, ImageRecord, Manifest
from cache.files import digest_json
from cache.shard import ShardInfo
from stages.heads.dataset import Dataset
from stages.heads.fitting import fit_all
from stages.heads.spec import SklearnSpec
from stages.heads.strengths import Shared
from stages.progress import SILENT
from stages.sweeps.halving import halve
from stages.sweeps.ledger import Ledger
from stages.sweeps.spec import SweepSpec
from stages.sweeps.sweep import Sweep
from stages.sweeps.trials import Trial, trials_of, winner
from stages.training.program import program
from stages.training.spec import DenseSpec

CLASSES = ("cat", "dog")
VALIDATION = 1000
UNITS = [[], [16], [32], [64], [128], [256], [64, 32], [128, 64], [256, 64]]
GRID = {
    "pool": ["avg", "flatten"],
    "units": UNITS,
    "learning_rate": [1e-5, 1e-4, 1e-3, 1e-2],
    "dropout": [0.0, 0.25, 0.5],
}


def write_features(folder: Path, rows: int, apart: float = 0.12, by_path: bool = False) -> Dataset:
    """Two classes, ``apart`` in places and channels of the map, that overlap; most values are zero.

    Paths are those of one folder for each class, and shards hold images in the order of digests; or ``by_path`` class after class,
    as earlier versions wrote them.
    """
    rng = np.random.default_rng(0)
    store = FeatureStore(folder)
    store.create({"dtype": "float16"})
    channels = rng.normal(0, apart, (2, 1, 1, 512))
    places = rng.normal(0, apart, (2, 4, 4, 512)) * (rng.random((2, 4, 4, 512)) < 0.2)
    count = rows + VALIDATION
    held = set(rng.permutation(count)[:VALIDATION].tolist())
    every = [
        ImageRecord(
            f"{CLASSES[2 * i // count]}/{i:06}.jpg",
            hashlib.sha256(str(i).encode()).hexdigest(),
            CLASSES[2 * i // count],
            "validation" if i in held else "train",
        )
        for i in range(count)
    ]
    if not by_path:
        every.sort(key=lambda record: record.sha256)
    for start in range(0, count, 500):
        new = every[start : start + 500]
        y = np.array([CLASSES.index(record.label) for record in new])
        strength = rng.gamma(2.0, 0.5, (len(new), 1, 1, 1))
        X = strength * (channels[y] + places[y]) + rng.normal(-0.6, 1.0, (len(new), 4, 4, 512))
        store.append(np.maximum(X, 0).astype(np.float16), new, CLASSES, ShardInfo("", {}, "float32", "CPU", {}), "none")
    return Dataset(Manifest("bench", CLASSES, tuple(sorted(every))), {"last": store})


def seconds(function: Callable[[], Any]) -> float:
    start = perf_counter()
    function()
    return perf_counter() - start


def spec_of(params: dict[str, Any], epochs: int) -> DenseSpec:
    return DenseSpec.model_validate({"kind": "dense", "optimizer": "adam", "epochs": epochs, "patience": 8, **params})


def halving(data: Dataset, work: Path, epochs: int) -> dict[str, Any]:
    def variant(params: dict[str, Any]) -> Trial:
        spec = spec_of(params, epochs)
        return Trial(params, "base", ("last",), spec, digest_json(spec.slice()))

    table: dict[str, Any] = {}
    for pool in ("avg", "flatten"):
        data.X(pool, ("last",))  # read once, before the clock runs
    for strategy in ("halving", "grid"):
        program.cache_clear()
        sweep_spec = SweepSpec.model_validate({"head": "x", "strategy": strategy, "grid": GRID})
        trials = trials_of(sweep_spec, variant)
        sweep = Sweep(sweep_spec, {"base": data}, Ledger(work / strategy), SILENT, strategy)
        taken = seconds(partial(halve, sweep, trials) if strategy == "halving" else partial(sweep.run, trials))
        best, record = winner(sweep.ranked(trials), strategy, "this bench")
        table[strategy] = {"seconds": taken, "accuracy": record.scores[-1].accuracy, "winner": dict(best.params)}
        print(
            f"{strategy:8} {len(trials)} trials: {taken:7.1f} s, winner {record.scores[-1].accuracy:.4f} {dict(best.params)}"
        )
    rows = len(data.rows("train"))
    order = np.concatenate([data.rows("train"), data.rows("validation")])
    alone = 0.0
    for i, units in enumerate(UNITS):
        pool = GRID["pool"][i % 2]
        params = {"pool": pool, "units": units, "learning_rate": 1e-4, "dropout": 0.25}
        alone += seconds(partial(plain, [spec_of(params, epochs)], data.X(pool, ("last",))[order], data.y[order], rows))
    table["keras_s"] = alone / len(UNITS) * len(trials)
    distance = 100 * (table["grid"]["accuracy"] - table["halving"]["accuracy"])
    print(
        f"full grid ÷ halving: {table['grid']['seconds'] / table['halving']['seconds']:.1f}x; Keras one after another ÷ "
        f"halving: {table['keras_s'] / table['halving']['seconds']:.0f}x; halving's winner is {distance:+.2f} points below the grid's"
    )
    return table


def one_by_one(kind: Any, field: str, values: np.ndarray, more: dict[str, Any], X: np.ndarray, y: np.ndarray) -> None:
    """What scikit-learn takes, the features standardised once."""
    scaled = StandardScaler().fit_transform(X)
    for value in values:
        kind(**{field: value}, **more).fit(scaled, y)


def baselines(data: Dataset) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    table = {}
    rows = data.rows("train")
    for pool in ("avg", "flatten"):
        X, y = data.X(pool, ("last",))[rows], data.y[rows]
        for name, field, values, kind, more in (
            ("ridge, 20 strengths", "alpha", np.geomspace(1e-2, 1e4, 20), RidgeClassifier, {}),
            (
                "logistic regression, 10 strengths",
                "C",
                np.geomspace(1e-4, 1e1, 10),
                LogisticRegression,
                {"max_iter": 1000},
            ),
        ):
            specs = [
                SklearnSpec(kind="sklearn", estimator=kind.__name__, params={field: float(value), **more})
                for value in values
            ]
            ratios = []
            for _ in range(3):
                theirs = seconds(partial(one_by_one, kind, field, values, more, X, y))
                ratios.append(seconds(partial(fit_together, specs, X, y)) / theirs)
            table[f"{name}, {X.shape[1]} features"] = float(np.median(ratios))
            print(f"{name}, {len(X)} × {X.shape[1]}: {np.median(ratios):.3f} of the time of scikit-learn one by one")
    return table


def fit_together(specs: list[SklearnSpec], X: np.ndarray, y: np.ndarray) -> None:
    fit_all(specs, Shared(X, y))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--only", choices=["halving", "baselines"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        data = write_features(Path(name) / "store", arguments.rows)
        if arguments.only != "halving":
            table["baselines"] = baselines(data)
        if arguments.only != "baselines":
            table["halving"] = halving(data, Path(name), arguments.epochs)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
