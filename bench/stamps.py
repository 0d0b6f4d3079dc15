"""Photographs of eight kinds of things, for the benchmarks: the stamps of Tux Paint, a few of them drawings, as JPEG files.

apt install tuxpaint-stamps-default
"""

from pathlib import Path

from PIL import Image

SOURCE = Path("/usr/share/tuxpaint/stamps")
CLASSES = ("animals", "clothes", "food", "household", "plants", "seasonal", "town", "vehicles")


def write_stamps(folder: Path) -> int:
    """Write them into one folder for each class, over white; says how many."""
    count = 0
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in sorted((SOURCE / name).rglob("*.png")):
            image = Image.open(path).convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            target = folder / name / f"{'-'.join(path.relative_to(SOURCE / name).with_suffix('').parts)}.jpg"
            Image.alpha_composite(white, image).convert("RGB").save(target, quality=95)
            count += 1
    if not count:
        raise SystemExit(f"{SOURCE}: expected the stamps of Tux Paint, found none; apt install tuxpaint-stamps-default")
    return count
