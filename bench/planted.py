"""What the audit finds of errors that were planted among photographs that nobody chose for it: the stamps of Tux Paint (`bench.stamps`).

    apt install tuxpaint-stamps-default
    python -m bench.planted [--seed 13]

Five images get a wrong label. Of five others, all in train, a near-copy is put into validation or test: half the size; compressed again, at
quality 40; cropped to 90%; mirrored; and both half the size and compressed. It prints which of them the audit lists, and at which rank, on
features of the packaged MobileNetV2 at 224×224. The photographs have near-copies and doubtful labels of their own, which are listed beside.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bench.stamps import write_stamps

CONFIG = """
[data]
root = "photos"

[base]
name = "MobileNetV2"
input_size = 224
weights = "packaged"
precision = "float32"
"""
PLANTED = 5
SPLITS, SHARES = ("train", "validation", "test"), (0.6, 0.2, 0.2)


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 20, height // 20, width - width // 20, height - height // 20))


# What is done to a copy, and the quality at which it is compressed.
WAYS = {
    "half the size": (half, 90),
    "compressed again": (lambda image: image, 40),
    "cropped to 90%": (cropped, 90),
    "mirrored": (ImageOps.mirror, 90),
    "half the size, compressed": (half, 40),
}


def plant(source: Path, folder: Path, seed: int) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Write the photos of ``source`` into splits, with errors: the true label of each file that has a wrong one, and the copies, each
    with what it is a copy of.
    """
    rng = np.random.default_rng(seed)
    files = sorted(source.rglob("*.jpg"))
    split = {file: str(rng.choice(SPLITS, p=SHARES)) for file in files}
    classes = sorted({file.parent.name for file in files})
    order = [files[i] for i in rng.permutation(len(files))]
    wrong: dict[str, str] = {}
    for file in files:
        label = file.parent.name
        if file in order[:PLANTED]:
            label = str(rng.choice([name for name in classes if name != label]))
            wrong[f"{split[file]}/{label}/{file.name}"] = file.parent.name
        target = folder / split[file] / label / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    copies: dict[str, tuple[str, str]] = {}
    in_train = [file for file in order[PLANTED:] if split[file] == "train"]
    for (way, (make, quality)), file in zip(WAYS.items(), in_train, strict=False):
        path = f"{rng.choice(SPLITS[1:])}/{file.parent.name}/planted-{file.name}"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        make(Image.open(file)).save(folder / path, quality=quality)
        copies[way] = (path, f"train/{file.parent.name}/{file.name}")
    return wrong, copies


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "artifacts" / "audit" / "base" / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=13)
    seed = parser.parse_args().seed
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_stamps(folder / "stamps")
        wrong, copies = plant(folder / "stamps", folder / "photos", seed)
        (folder / "headstart.toml").write_text(CONFIG)
        for step in ("features", "audit"):
            subprocess.run([sys.executable, "-m", "pipeline", step, "--config", folder / "headstart.toml"], check=True)
        labels = {row["path"]: row for row in table(folder, "labels.csv")}
        print(
            f"\nwrong labels: {sum(path in labels for path in wrong)} of {len(wrong)} are among the {len(labels)} listed"
        )
        for path, true in wrong.items():
            row = labels.get(path)
            said = f"rank {row['rank']}, likely {row['likely']}" if row else "not listed"
            print(f"  {path}: {said}; it is {true}")
        rows = table(folder, "near_copies.csv")
        group = {row["path"]: row["group"] for row in rows}
        groups = list(dict.fromkeys(group.values()))
        across = len({row["group"] for row in rows if row["across"] == "yes"})
        found = [way for way, (copy, source) in copies.items() if group.get(copy, copy) == group.get(source)]
        print(
            f"near-copies: {len(found)} of {len(copies)} are in the {len(groups)} groups listed, {across} of them across splits"
        )
        for way, (copy, _) in copies.items():
            said = f"group {groups.index(group[copy]) + 1}" if way in found else "not listed"
            print(f"  {way}: {said} ({copy}, {Image.open(folder / 'photos' / copy).width} pixels wide)")


if __name__ == "__main__":
    main()
