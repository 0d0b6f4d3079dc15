"""Pictures of maps: the map over its image, and contact sheets with captions."""

import io
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from stages.bases.spec import BaseSpec
from stages.data.images import decode

MARK = "headstart"  # under which a sheet keeps what it is of
EDGE = 256  # pixels of a picture, at most
GAP, LINE, TEXT = 12, 18, 14  # pixels between pictures, of a line of words, and of their letters
PAPER, INK, MUTED = (253, 253, 252), (29, 28, 26), (98, 94, 87)
# From nothing to all: the colours of matplotlib's "inferno" (N. Smith, S. van der Walt), whose lightness rises evenly.
RAMP = np.array([(0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164)], np.float32)


@dataclass(frozen=True)
class Cell:
    """Pictures (height, width, 3) uint8 side by side, with lines of words below."""

    pictures: Sequence[NDArray[np.uint8]]
    words: Sequence[str]


def shown(data: bytes, spec: BaseSpec, edge: int = EDGE) -> NDArray[np.uint8]:
    """An image file as it is drawn (height, width, 3): in its own proportions where the base sees all of it, else as it sees it.

    Raises BadImageError as ``decode`` does.
    """
    whole = spec.resizing.mode in ("squash", "stretch") and spec.resizing.crop == 1
    picture = Image.fromarray(decode(data, least=edge) if whole else decode(data, spec.input_size, how=spec.resizing))
    share = edge / max(picture.size)
    size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC), np.uint8)


def overlay(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A map (height, width), from 0 to 1, laid over its image (height, width, 3): where it is 0, the image is grey and pale."""
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    pale = np.repeat(grey[..., None] * 0.55 + 255 * 0.45, 3, axis=2)
    weight = (0.85 * heat)[..., None]
    # The light end of the colours would vanish on white, and their black one says nothing.
    place = 0.85 - 0.6 * heat
    out = (1 - weight) * pale + weight * _coloured(place) * (0.6 + 0.4 * grey[..., None] / 255)
    return np.asarray(out.round().clip(0, 255), np.uint8)


def alone(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Values (height, width) as a picture of their own, from their least to their greatest."""
    low, high = float(values.min()), float(values.max())
    return np.asarray(
        _coloured((values - low) / (high - low) if high > low else np.zeros_like(values)).round(), np.uint8
    )


def _coloured(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values from 0 to 1 in the colours of the ramp: (…, 3) float32."""
    at = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(values, at, RAMP[:, i]) for i in range(3)], axis=-1).astype(np.float32)


def sheet(cells: Sequence[Cell], title: str = "", columns: int | None = None, mark: str = "") -> bytes:
    """A contact sheet as a PNG file: cells in rows, under a title. ``mark`` is kept in it, and not seen."""
    wide = max(sum(each.shape[1] + GAP for each in cell.pictures) - GAP for cell in cells)
    lines = max(len(cell.words) for cell in cells)
    tall = max(each.shape[0] for cell in cells for each in cell.pictures)
    columns = columns or min(len(cells), max(1, round(math.sqrt(len(cells) * tall / wide * 1.4))))
    rows = math.ceil(len(cells) / columns)
    head = LINE + GAP if title else 0
    step = (wide + 2 * GAP, tall + lines * LINE + 2 * GAP)
    page = Image.new("RGB", (step[0] * columns, head + step[1] * rows + GAP), PAPER)
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((GAP, GAP), _fitting(draw, title, page.width - 2 * GAP), INK, _font())
    for i, cell in enumerate(cells):
        left, top = GAP + i % columns * step[0], head + GAP + i // columns * step[1]
        x = left
        for picture in cell.pictures:
            page.paste(Image.fromarray(picture), (x, top + (tall - picture.shape[0]) // 2))
            x += picture.shape[1] + GAP
        for number, words in enumerate(cell.words):
            draw.text(
                (left, top + tall + 4 + number * LINE),
                _fitting(draw, words, wide),
                INK if number == 0 else MUTED,
                _font(),
            )
    out, told = io.BytesIO(), PngInfo()
    told.add_text(MARK, mark)
    page.save(out, "PNG", optimize=True, pnginfo=told)
    return out.getvalue()


def free_place(folder: Path, name: str, mark: str) -> Path:
    """Where a sheet with this mark goes: ``name``.png, and where a sheet with another mark has that place, a name with the mark in it."""
    path = folder / f"{name}.png"
    with suppress(OSError, ValueError), Image.open(path) as there:
        if there.info.get(MARK, mark) != mark:
            return folder / f"{name}-{mark}.png"
    return path


def _fitting(draw: ImageDraw.ImageDraw, words: str, width: int) -> str:
    """As much of some words as has room."""
    words = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)
    if draw.textlength(words, _font()) <= width:
        return words
    while words and draw.textlength(words + "…", _font()) > width:
        words = words[:-1]
    return words + "…"


@cache
def _font() -> Any:
    """DejaVu Sans, which matplotlib brings, as it has the letters of many languages."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), TEXT)
