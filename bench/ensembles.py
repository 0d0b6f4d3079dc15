"""Is the mean of several heads better than the best of them, and does it matter how it is taken?

    python -m bench.fashion artifacts/fashion
    python -m bench.ensembles artifacts/fashion/artifacts/heads [NAME …]

Reads what trained heads said of the validation and the test images (of all heads in the folder, or of those named), averages it in four
ways, and prints accuracy and log loss on test, each mean with a temperature of its own that is fitted on validation.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.heads.calibration import cooled, log_probabilities, temperature
from stages.heads.ensemble import best_weights, too_good
from stages.heads.metrics import scores
from stages.heads.predictions import read_probabilities
from stages.heads.results import best_on_validation, whole_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of trained heads")
    parser.add_argument("names", nargs="*", help="of heads; left out, all")
    arguments = parser.parse_args()
    folder, names = arguments.folder, arguments.names
    results = {
        path.name: whole_result(path) for path in sorted(folder.glob("*/")) if path.name in (names or [path.name])
    }
    results = {name: result for name, result in results.items() if result["kind"] != "ensemble"}
    classes = next(iter(results.values()))["classes"]
    found = {
        split: [read_probabilities(folder / name, classes, split) for name in results]
        for split in ("validation", "test")
    }
    for each in (*found["validation"], *found["test"]):
        assert each.calibrated, "trained by an earlier version"
    y = {split: each[0].y for split, each in found.items()}
    warm = {split: np.stack([head.p for head in each]) for split, each in found.items()}
    raw = {split: np.stack([head.before for head in each]) for split, each in found.items()}

    def line(what: str, p: dict[str, NDArray[np.float64]]) -> None:
        logs = {split: log_probabilities(each) for split, each in p.items()}
        t = temperature(y["validation"], logs["validation"])
        test = scores(y["test"], cooled(logs["test"], t), classes)
        low, high = test["accuracy_interval"]
        print(f"{what:44} {test['accuracy']:.3f} ({low:.3f} to {high:.3f})  {test['log_loss']:.4f}")

    best = list(results).index(best_on_validation(list(results.values()))["head"])
    print(f"{'of ' + ', '.join(results)}\n{'':44} accuracy on test, 95%   log loss")
    line(f"best head by validation: {list(results)[best]}", {split: each[best] for split, each in warm.items()})
    line("mean, each head after its temperature", {split: each.mean(axis=0) for split, each in warm.items()})
    line("mean, heads as they were trained", {split: each.mean(axis=0) for split, each in raw.items()})
    of_true = warm["validation"][:, np.arange(len(y["validation"])), y["validation"]]
    weights = best_weights(of_true)
    line("weights by validation", {split: np.tensordot(weights, each, 1) for split, each in warm.items()})
    optimism = too_good(of_true, np.arange(len(y["validation"])))
    print(f"weights {', '.join(f'{w:.2f}' for w in weights)}; too good on validation by {optimism:.4f} of log loss")


if __name__ == "__main__":
    main()
