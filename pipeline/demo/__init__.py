"""The demo: real data that ships inside scikit-learn, written out as a folder of images, and its configuration."""

from importlib.resources import files
from pathlib import Path

from cache.files import atomic_path, write_if_changed

IMAGES = 600


def write_demo(folder: Path) -> str:
    """Write 600 handwritten digits (8×8 PNG, one folder a class) and ``headstart.toml`` into ``folder``; says what it did.

    The digits are the test set of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998,
    CC BY 4.0), as scikit-learn ships them. What is there already stays untouched.
    """
    config = folder / "headstart.toml"
    write_if_changed(config, files(__name__).joinpath("headstart.toml").read_text(encoding="utf-8"))
    photos = folder / "digits"
    if len(list(photos.glob("*/*.png"))) < IMAGES:
        import numpy as np
        from PIL import Image
        from sklearn.datasets import load_digits

        digits = load_digits()
        for i in range(IMAGES):
            # Pixels are counts from 0 to 16.
            pixels = np.round(digits.images[i] * (255 / 16)).astype(np.uint8)
            with atomic_path(photos / str(digits.target[i]) / f"{i:04d}.png") as temporary:
                Image.fromarray(pixels).save(temporary)
    return f"demo: {IMAGES} handwritten digits in {photos}, configured by {config}"
