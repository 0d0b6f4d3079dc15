"""What use.py needs beside the model: photos as training saw them, and what is said of each. It needs NumPy and Pillow alone."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HOME = Path(__file__).parent
ABOUT = json.loads((HOME / "model.json").read_text(encoding="utf-8"))


def pixels(path: str) -> np.ndarray:
    """RGB (1, height, width, 3) uint8: upright, 16 bits scaled to 8, what is transparent over white."""
    image: Image.Image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):
        image = Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))[None]


def photos(paths: Iterable[str] = sys.argv[1:]) -> Iterator[tuple[str, np.ndarray]]:
    """Each file that can be read, with its pixels; of each other one, why it cannot is printed."""
    for path in paths:
        try:
            image = pixels(path)
        except Exception as error:  # whatever a decoder meets in a damaged file
            print(json.dumps({"path": path, "error": str(error)}))
        else:
            yield path, image


def tell(path: str, probabilities: np.ndarray) -> None:
    """Print the label and the probabilities (classes,) of a photo; no label where none is probable enough."""
    sure = probabilities.max() >= (ABOUT["threshold"] or 0)
    label = ABOUT["classes"][probabilities.argmax()] if sure else None
    named = dict(zip(ABOUT["classes"], probabilities.tolist(), strict=True))
    print(json.dumps({"path": path, "label": label, "probabilities": named}))
