"""What the pixels of an image tell that its features hide: blank, nearly of one colour, tiny.

Each content is looked at once: what was seen is remembered by its SHA-256.
"""

import io
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from cache.files import read_memo, write_sealed
from stages.data.images import BadImageError, decode, formats_of
from stages.progress import SILENT, Progress, in_percent

# Raised by hand when something else is seen in the same bytes.
VERSION = 1
# Pixels a side that an image is looked at with.
EDGE = 64
# The shorter side of an image with too few pixels for a base to see much.
TINY = 32
# Levels of 255: the standard deviation of what is blank, and how far a pixel may be from the usual colour to be of it.
BLANK, ALIKE = 3.0, 12
# The share of pixels of one colour from which on there is next to nothing else to see.
ONE_COLOUR = 0.98

# What ``problem`` says.
PROBLEMS = ("blank", "nearly one colour", "tiny")
# Width and height in pixels; standard deviation of the brightness, 0 to 127.5; the share of pixels of the usual colour.
Look = tuple[int, int, float, float]


def look(data: bytes) -> Look:
    """What is seen in an image file. Raises BadImageError for one that cannot be decoded."""
    small = decode(data, (EDGE, EDGE), scaled=True).astype(np.float32)
    with Image.open(io.BytesIO(data), formats=formats_of(data)) as image:
        width, height = image.size
    apart = np.abs(small - np.median(small, axis=(0, 1))).max(axis=2)
    return width, height, round(float(small.mean(axis=2).std()), 3), round(float((apart <= ALIKE).mean()), 4)


def problem(seen: Look, usual: float) -> tuple[str, str] | None:
    """What is wrong with an image and the detail, in words; None where nothing is. ``usual`` is the median of the shorter sides.

    A data set may be of small pictures as a whole: tiny is what is small beside the others, too.
    """
    width, height, deviation, share = seen
    if deviation < BLANK and share == 1.0:
        return "blank", f"brightness varies by {deviation:.1f} of 255"
    if share >= ONE_COLOUR:
        return "nearly one colour", f"{in_percent(share)} of it"
    if min(width, height) < min(TINY, usual / 2):
        return "tiny", f"{width} × {height} pixels"
    return None


def looks(
    paths: Mapping[str, str], root: Path, memo: Path, progress: Progress = SILENT
) -> tuple[dict[str, Look], dict[str, str]]:
    """What is seen in each content, and the reason for each that cannot be looked at; both by SHA-256.

    ``paths`` are those of the contents, relative to ``root``. What is seen is kept in the file ``memo``; a second look reads none
    of the images.
    """
    stored = read_memo(memo)
    known: dict[str, Look] = {}
    if stored.get("version") == VERSION:
        known = {digest: (w, h, deviation, share) for digest, (w, h, deviation, share) in stored["looks"].items()}
    todo = [digest for digest in paths if digest not in known]
    problems: dict[str, str] = {}
    if todo:
        # Pillow decodes without the lock of the interpreter.
        with (
            ThreadPoolExecutor(os.cpu_count() or 1) as threads,
            progress.task("Looking at pixels", len(todo)) as advance,
        ):
            for digest, seen in zip(todo, threads.map(lambda each: _read(root / paths[each]), todo), strict=True):
                if isinstance(seen, str):
                    problems[digest] = seen
                else:
                    known[digest] = seen
                advance(1)
        # Other configurations may have other images: what is known of those stays.
        write_sealed(memo, {"version": VERSION, "looks": {digest: known[digest] for digest in sorted(known)}})
    return {digest: known[digest] for digest in paths if digest in known}, problems


def _read(path: Path) -> Look | str:
    try:
        return look(path.read_bytes())
    except BadImageError as bad:
        return str(bad)
    except FileNotFoundError:
        return "the file is no longer there"
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
