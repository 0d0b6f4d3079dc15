"""What an exported model is beside ``headstart predict``: the difference of its probabilities, its size, its speed; and what float16 and
int8 cost.

    apt install tuxpaint-stamps-default
    python -m bench.export [FOLDER] [--images N]

The photographs are those of `bench.stamps`, as they are and four times as large on each side, so that they are larger and smaller than
the input. The packaged MobileNetV2 at 224 pixels, with a dense head, is exported to all formats, and each is read back by its runtime.
Differences are the largest from `predict`, which decodes the files: of photographs that are made smaller, of those that are made larger in
a side, and of tall ones, whose rows Pillow resizes first (`stages.export.resizing.goes_down`). Speeds are of photographs of 640×480
pixels, one by one and eight at a time, beside those of the Keras model: medians of rounds that take turns. A second configuration decodes
with `decode = "scaled"`.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from PIL import Image

from bench.stamps import write_stamps
from pipeline.commands.export import export_lines
from pipeline.commands.predict import predicted
from pipeline.common.words import bytes_in
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph
from stages.data.images import decode
from stages.export.resizing import goes_down
from stages.export.runtimes import Run, loaded
from stages.export.spec import FORMATS, folder_name
from stages.heads.train import load_head
from stages.progress import SILENT

CONFIG = """
[data]
root = "photos"
validation = 0.25
test = 0.25
[base]
name = "MobileNetV2"
weights = "packaged"
input_size = 224
precision = "float32"
decode = "{decode}"
[cache]
dir = "export-{decode}"
dtype = "float32"
[heads.dense128]
kind = "dense"
pool = "avg"
units = [128]
dropout = 0.3
learning_rate = 1e-3
epochs = 30
patience = 5
"""
HEAD = "dense128"
ROUNDS = 5
EDGE = 224  # of the input
KINDS = ("larger", "smaller", "tall")  # than the input, or so tall that Pillow goes down first


def project(folder: Path, how: str) -> Path:
    """A configuration whose head is trained."""
    path = folder / f"export-{how}.toml"
    path.write_text(CONFIG.format(decode=how))
    for step in ("features", "heads"):
        subprocess.run([sys.executable, "-m", "pipeline", step, "--config", path], check=True, stdout=sys.stderr)
    return path


def enlarged(files: list[Path], folder: Path) -> list[Path]:
    """The same photographs, four times as large on each side."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for i, path in enumerate(files):
        with Image.open(path) as image:
            big = image.resize((4 * image.width, 4 * image.height), Image.Resampling.BICUBIC)
        found.append(folder / f"{i}.jpg")
        big.save(found[-1], quality=95)
    return found


def kind_of(path: Path) -> str:
    """One of KINDS."""
    with Image.open(path) as image:
        size = (image.height, image.width)
    if goes_down(size, (EDGE, EDGE)):
        return "tall"
    return "larger" if min(size) >= EDGE else "smaller"


def said(config: Path, files: list[Path]) -> np.ndarray:
    """The probabilities (n, classes) that ``predict`` gives."""
    graph = load_graph(load_config(config))
    head = graph.heads[HEAD]
    return np.array([each.probabilities for each in predicted(graph, head, load_head(head.folder), files, SILENT)])


def answered(run: Run, files: list[Path]) -> np.ndarray:
    return np.concatenate([run(decode(path.read_bytes())[None]) for path in files])


def speeds(runs: dict[str, Run], batch: np.ndarray) -> dict[str, float]:
    """Images a second of each, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(ROUNDS + 1):  # the first warms up
        for name, run in runs.items():
            start = perf_counter()
            for _ in range(3):
                run(batch)
            if round_:
                seconds[name].append((perf_counter() - start) / 3)
    return {name: len(batch) / median(each) for name, each in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=Path("artifacts/bench-export"))
    parser.add_argument("--images", type=int, default=150)
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "photos").exists():
        write_stamps(folder / "photos")
    config = project(folder, "exact")
    graph = load_graph(load_config(config))
    held = sorted((r for r in graph.manifest.records if r.split == "test"), key=lambda r: r.sha256)[: options.images]
    files, labels = [folder / "photos" / r.path for r in held], [graph.manifest.classes.index(r.label) for r in held]
    big = enlarged(files, folder / "enlarged")
    sizes = [Image.open(path).size for path in files]
    print(
        f"{len(files)} test photographs of {min(map(min, sizes))} to {max(map(max, sizes))} pixels a side, and four times as large"
    )
    expected, expected_big = said(config, files), said(config, big)
    print(f"predict: accuracy {np.mean(expected.argmax(axis=1) == labels):.3f}\n")
    runs: dict[str, Run] = {}
    kinds = np.array([kind_of(path) for path in [*files, *big]])
    everything = np.concatenate([expected, expected_big])
    columns = " ".join(f"{kind:>9}" for kind in KINDS)
    print(f"{'':20} {'MB':>6} {columns} {'labels changed':>15} {'accuracy':>9}")
    print(f"{'photographs':27} {' '.join(f'{(kinds == kind).sum():9}' for kind in KINDS)}")
    for to, form in FORMATS.items():
        for precision in form.precisions:
            export_lines(load_config(config), SILENT, HEAD, to, precision)
            home = folder / "export-exact" / "export" / folder_name(HEAD, to, precision)
            name = f"{to} {precision}"
            runs[name] = loaded(home, to)
            found, found_big = answered(runs[name], files), answered(runs[name], big)
            changed = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
            accuracy = np.mean(found.argmax(axis=1) == labels)
            size = sum(
                bytes_in(home / each)
                for each in ("model.keras", "saved_model", "model.tflite", "model.onnx", "model.xml", "model.bin")
                if (home / each).exists()
            )
            away = np.abs(np.concatenate([found, found_big]) - everything).max(axis=1)
            columns = " ".join(f"{away[kinds == kind].max(initial=0):9.1e}" for kind in KINDS)
            print(f"{name:20} {size / 1e6:6.1f} {columns} {changed:15} {accuracy:9.3f}", flush=True)
    scaled = project(folder, "scaled")
    largest = np.abs(said(scaled, big) - answered(_exported(scaled, folder), big)).max(axis=1)
    print(
        f'\ndecode = "scaled", enlarged: keras differs by {largest.max():.1e} at most, {np.median(largest):.1e} in the median'
    )
    rng = np.random.default_rng(0)
    print("\nimages a second, of 640×480 pixels, and the ratio to keras")
    for n in (1, 8):
        found = speeds(runs, rng.integers(0, 256, (n, 480, 640, 3), dtype=np.uint8))
        for name, each in found.items():
            print(f"{name:20} batches of {n}: {each:7.1f}  {each / found['keras float32']:5.2f}×")


def _exported(config: Path, folder: Path) -> Run:
    export_lines(load_config(config), SILENT, HEAD, "keras")
    return loaded(folder / "export-scaled" / "export" / folder_name(HEAD, "keras", "float32"), "keras")


if __name__ == "__main__":
    main()
