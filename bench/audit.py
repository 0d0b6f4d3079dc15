"""Does the audit find what is planted, and how long does it take? Fashion-MNIST and tiles of two photographs, through VGG16.

    apt install dataset-fashion-mnist
    python -m bench.audit [FOLDER] [--only planted|time] [--classes 120]

Near-copies: of 286 training images of Fashion-MNIST and of every third tile, one changed copy is put into validation (a crop, a stronger
JPEG compression, other brightness, another size, a small rotation, a mirror image); printed is the share of each kind that is found,
and how many groups hold images that were not planted together. Labels: 5% of them are exchanged for another class; printed are precision
and recall of the list of suspicious labels, and of its head, for five draws. Outliers: eight of the
tiles among Fashion-MNIST. Time: a whole audit of 25,000 made-up rows of 512 features by that of
scikit-learn's exhaustive search for 20 neighbours in the same rows, the better of two.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images
from sklearn.neighbors import NearestNeighbors

from bench.fashion import write_photos
from cache import FeatureStore, ImageRecord, Manifest
from cache.files import digest_text
from cache.shard import ShardInfo
from pipeline.config.load import load_config
from pipeline.targets.graph import load_graph
from stages.audit.audit import AuditTask, audit
from stages.audit.contents import Contents
from stages.audit.copies import Copies, near_copies
from stages.audit.folds import kin
from stages.audit.labels import out_of_fold, suspicions
from stages.audit.neighbours import nearest
from stages.audit.outliers import far_off
from stages.heads.dataset import Dataset

CONFIG = '[data]\nroot = "photos"\n\n[base]\nname = "VGG16"\nweights = "packaged"\n'
FLIPPED = 0.05
DRAWS = 5
TILE, STRANGE = 48, 8


def crop(image: Image.Image) -> Image.Image:
    width, height = image.size
    left, top = round(0.05 * width), round(0.05 * height)
    return image.crop((left, top, width - left, height - top)).resize(image.size, Image.Resampling.BICUBIC)


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def turned(image: Image.Image) -> Image.Image:
    corner = image.getpixel((0, 0))
    return image.rotate(5, Image.Resampling.BICUBIC, fillcolor=corner)  # type: ignore[arg-type]


# Kind of copy → what is done to the picture, and the quality of the JPEG.
KINDS: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "crop to 90%": (crop, 92),
    "JPEG, quality 40": (lambda image: image, 40),
    "brightness × 1.3": (lambda image: ImageEnhance.Brightness(image).enhance(1.3), 92),
    "half the size": (smaller, 92),
    "rotated by 5°": (turned, 92),
    "mirrored": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 92),
}


def plant(photos: Path, originals: list[Path]) -> None:
    """A changed copy of each image into validation, the kinds in turn; its name tells the kind and the original."""
    for i, path in enumerate(originals):
        number = i % len(KINDS)
        change, quality = list(KINDS.values())[number]
        target = photos / "validation" / path.parent.name / f"copy-{number}-{path.stem}.jpg"
        change(Image.open(path).convert("RGB")).save(target, quality=quality)


def write_tiles(photos: Path) -> None:
    """Tiles of two photographs that do not overlap, a class each; every tile is a picture of its own."""
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        for split in ("train", "validation"):
            (photos / split / name).mkdir(parents=True, exist_ok=True)
        rows, columns = pixels.shape[0] // TILE, pixels.shape[1] // TILE
        for i in range(rows * columns):
            top, left = i // columns * TILE, i % columns * TILE
            tile = Image.fromarray(pixels[top : top + TILE, left : left + TILE])
            tile.resize((150, 150), Image.Resampling.BICUBIC).save(photos / "train" / name / f"{i:03d}.jpg", quality=95)


def features(folder: Path) -> Contents:
    """The features of a folder, extracted where they are not yet."""
    (folder / "headstart.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "pipeline", "features", "--config", folder / "headstart.toml"]
    subprocess.run(command, check=True)
    graph = load_graph(load_config(folder / "headstart.toml"))
    base = graph.bases["base"]
    return Contents.read(Dataset(graph.manifest, base.stores), base.layers[-1].layer)


def original(path: str) -> str:
    """What an image shows: its class, and the number that a copy has of its original."""
    parts = path.split("/")
    stem = parts[-1].removesuffix(".jpg")
    return f"{parts[-2]}/{stem.split('-')[2]}" if stem.startswith("copy-") else path


def score_copies(contents: Contents, found: Copies) -> None:
    """Print the share of each kind that was found, and the groups that hold what was not planted together."""
    paths = [contents.records[row].path for row in contents.first]
    kinds = list(KINDS)
    at = {path: i for i, path in enumerate(paths)}
    hits: dict[str, list[bool]] = {kind: [] for kind in kinds}
    for i, path in enumerate(paths):
        name = path.split("/")[-1]
        if name.startswith("copy-"):
            number, source = int(name.split("-")[1]), at[f"train/{original(path)}.jpg"]
            hits[kinds[number]].append(bool(found.group[i] >= 0 and found.group[i] == found.group[source]))
    for kind, each in hits.items():
        print(f"  {kind:20} {sum(each):4} of {len(each):4} found: recall {np.mean(each):.2f}")
    everything = [hit for each in hits.values() for hit in each]
    planted = sum(everything)
    others = sum(
        _shows(paths[one]) != _shows(paths[two]) for one, two in found.pairs if found.group[one] == found.group[two]
    )
    print(
        f"  all kinds: recall {planted / len(everything):.2f}; pairs that were not planted: {others} of {len(found.pairs)}; "
        f"dimension {found.dimension:.1f}, limit {found.limit:.3f}"
    )


def _shows(path: str) -> str:
    name = original(path)
    return name.removeprefix("train/").removesuffix(".jpg")


def score_labels(contents: Contents, found: Copies) -> None:
    """Print how many exchanged labels are on the list of suspicious ones, and how much of the list is right: for some draws, and the
    means of these."""
    drawn = [_one_draw(contents, found, seed) for seed in range(DRAWS)]
    for name, values in (*((f"draw {i}", each) for i, each in enumerate(drawn)), ("mean", np.mean(drawn, axis=0))):
        wrong, listed, precision, recall, head, likely, accuracy = values
        print(
            f"  {name}: {wrong:.0f} of {len(contents.y)} labels exchanged; {listed:.0f} listed: precision {precision:.2f}, recall "
            f"{recall:.2f}; of as many as were exchanged: precision {head:.2f}; the likely label is the true one for {likely:.2f}; "
            f"accuracy out of fold {accuracy:.3f}"
        )


def _one_draw(contents: Contents, found: Copies, seed: int) -> tuple[float, ...]:
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(contents.y)) < FLIPPED
    classes = len(contents.classes)
    y = np.where(wrong, (contents.y + rng.integers(1, classes, len(wrong))) % classes, contents.y)
    changed = Contents(**{**vars(contents), "y": y})
    scored = out_of_fold(changed, kin(changed, found.group))
    listed = suspicions(changed, scored)
    rows = np.array([each.row for each in listed])
    right = [each.likely == contents.y[each.row] for each in listed if wrong[each.row]]
    total = int(wrong.sum())
    head = wrong[rows[:total]].mean()
    return total, len(rows), wrong[rows].mean(), wrong[rows].sum() / total, head, float(np.mean(right)), scored.accuracy


def score_outliers(contents: Contents, strange: Contents) -> None:
    """Print how many of a few images of another kind are listed, and what else is."""
    X = np.concatenate([contents.unit, strange.unit[:: len(strange.unit) // STRANGE][:STRANGE]])
    listed = [each.content for each in far_off(nearest(X))]
    right = sum(content >= len(contents.unit) for content in listed)
    print(f"  {right} of {STRANGE} listed, and {len(listed) - right} others")


def planted(folder: Path) -> None:
    fashion, tiles = folder / "fashion", folder / "tiles"
    if not (fashion / "photos").exists():
        write_photos(fashion / "photos")
    clean = features(fashion)
    print("Fashion-MNIST as it is:")
    found = near_copies(clean.unit, nearest(clean.unit))
    print(
        f"  {len(found.pairs)} pairs among {len(clean.unit)}; dimension {found.dimension:.1f}, limit {found.limit:.3f}"
    )
    for one, two in found.pairs[:20]:
        print(f"    {clean.records[clean.first[one]].path}  {clean.records[clean.first[two]].path}")
    print("Labels of Fashion-MNIST:")
    score_labels(clean, found)
    copied = folder / "copied"
    if not (copied / "photos").exists():
        shutil.copytree(fashion, copied)  # with the features of what is not planted
        plant(copied / "photos", sorted((copied / "photos" / "train").glob("*/*.jpg"))[::7][:300])
    if not (tiles / "photos").exists():
        write_tiles(tiles / "photos")
        plant(tiles / "photos", sorted((tiles / "photos" / "train").glob("*/*.jpg"))[::3])
    print("Tiles of photographs among Fashion-MNIST:")
    score_outliers(clean, features(tiles))
    for name, where in (("Fashion-MNIST", copied), ("tiles of photographs", tiles)):
        contents = features(where)
        print(f"Near-copies planted in {name}:")
        score_copies(contents, near_copies(contents.unit, nearest(contents.unit)))


def made_up(folder: Path, rows: int, classes: int = 10) -> Dataset:
    """Overlapping classes of ``rows`` × 512 features, averaged already, with as many near-copies as 1% of them."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, rows)
    X = rng.normal(0, 0.35, (classes, 512))[y] + rng.normal(0, 1, (rows, 64)) @ rng.normal(0, 0.12, (64, 512))
    X = np.maximum(X + rng.normal(0, 0.3, X.shape), 0)
    X[: rows // 100] = X[rows // 2 : rows // 2 + rows // 100] * rng.normal(1, 0.03, (rows // 100, 512))
    names = tuple(f"class{i}" for i in range(classes))
    splits = rng.choice(["train", "validation", "test"], rows, p=[0.6, 0.2, 0.2])
    records = [ImageRecord(f"{i}.jpg", digest_text(str(i)), names[y[i]], str(splits[i])) for i in range(rows)]
    store = FeatureStore(folder)
    store.create({})
    with store.writing():
        for start in range(0, rows, 5000):
            part = slice(start, start + 5000)
            store.append(
                X[part].astype(np.float16), records[part], names, ShardInfo("", {}, "float32", "CPU", {}), "none"
            )
    return Dataset(Manifest("bench", names, tuple(records)), {"last": store})


class Steps:
    """A ``Progress`` that prints the seconds of each step, and adds them up."""

    taken = 0.0

    def say(self, line: str) -> None:
        print(line)

    def show(self, lines: object) -> None:
        pass

    def task(self, what: str, total: int, unit: str = "images") -> "Steps":
        self.what, self.start = what, perf_counter()
        return self

    def __enter__(self) -> Callable[[int], None]:
        return lambda done: None

    def __exit__(self, *error: object) -> None:
        seconds = perf_counter() - self.start
        self.taken += seconds
        print(f"  {self.what}: {seconds:.1f} s")


def timed(rows: int, classes: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        data = made_up(Path(name) / "store", rows, classes)
        unit = Contents.read(data, "last").unit
        search = min(
            _seconds(lambda: NearestNeighbors(n_neighbors=20, algorithm="brute").fit(unit).kneighbors())
            for _ in range(2)
        )
        task = AuditTask("base", "VGG16", "last", "", {}, Path(name) / "audit", None, Path(name) / "pixels.json")
        steps = Steps()
        start = perf_counter()
        result = audit(task, data, steps)
        taken = perf_counter() - start
        print(f"  the rest (law, map, tables): {taken - steps.taken:.1f} s")
        print(
            f"audit of {rows:,} × 512 in {classes} classes, {os.cpu_count()} cores: {taken:.1f} s, {taken / search:.1f} of the time of one "
            f"exhaustive search by scikit-learn ({search:.1f} s); near-copies: {result['copies']['groups']} groups, {rows // 100} planted"
        )


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("artifacts/bench-audit"))
    parser.add_argument("--only", choices=["planted", "time"])
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--classes", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.only != "time":
        arguments.folder.mkdir(parents=True, exist_ok=True)
        planted(arguments.folder)
    if arguments.only != "planted":
        timed(arguments.rows, arguments.classes)


if __name__ == "__main__":
    main()
