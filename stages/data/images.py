"""One image file → RGB array: the decode and resize policy, which is part of every base key.

EXIF orientation is applied, transparency is laid over white, the first frame of an animation counts, 16-bit values
are scaled to 8 bits and not clipped, everything becomes RGB, and is resized to the input size: by Pillow's antialiased bilinear
filter without keeping the aspect ratio, unless the base says otherwise. ``predict`` uses the same code.
"""

import io
import math
import warnings
from contextlib import nullcontext
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from stages.data.formats import NO_AVIF, NO_HEIC, UNKNOWN, brands_of, is_avif, is_heic
from stages.data.policy import SQUASH, Resize
from stages.data.resizing import resized

MAX_PIXELS = 178_956_970  # Pillow's own limit, at which it speaks of a decompression bomb
HUGE_PIXELS = 40_000_000  # decoded one at a time, however many threads there are: each takes up to 7 bytes a pixel
STRIP = 1024  # rows
MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

_ONE_HUGE_IMAGE = Lock()

# Once, for the process, and not around each image: `warnings.catch_warnings` changes what all threads share, and several of them decode.
warnings.filterwarnings("ignore", module=r"(PIL|pi_heif)\b")


class BadImageError(Exception):
    """An image that the policy cannot decode; the message is the reason, for a person."""


def decode(
    data: bytes,
    size: tuple[int, int] | None = None,
    scaled: bool = False,
    least: int | None = None,
    how: Resize = SQUASH,
    most: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """The image in ``data`` as RGB of shape (height, width, 3), resized to ``size`` = (height, width) if given, as ``how`` says.
    One whose header says that it has more than ``most`` pixels is not decoded.

    With ``scaled``, libjpeg decodes a JPEG at an eighth, a quarter or half of its size where that is still at least
    ``size``, which is quicker and gives slightly different pixels; ``least`` does so without a ``size``, down to so many pixels a
    side. Raises BadImageError with a reason for a person.
    """
    if not data:
        raise BadImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=formats_of(data)) as image:
            if image.width * image.height > most:
                raise BadImageError(f"{image.width}×{image.height} pixels, more than the limit of {most:,}")
            if scaled and size is not None:
                # With EXIF orientations that swap the sides, either may come to be the height.
                least = math.ceil(max(size) / how.crop)
            if least is not None:
                image.draft(None, (least, least))
            with _ONE_HUGE_IMAGE if image.width * image.height > HUGE_PIXELS else nullcontext():
                rgb = to_rgb(image)
                return np.asarray(rgb if size is None else resized(rgb, size, how), dtype=np.uint8)
    except (BadImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise BadImageError(f"more pixels than the limit of {most:,}") from None
    except UnidentifiedImageError:
        if data.startswith(MAGIC) or is_heic(data) or is_avif(data):
            raise BadImageError("damaged: its header cannot be read") from None
        what = f"its brand is {brands[0]!r}" if (brands := brands_of(data)) else f"it begins with {data[:8]!r}"
        raise BadImageError(f"{UNKNOWN} ({what})") from None
    except Exception as error:  # Pillow's decoders raise whatever they meet in a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImageError(f"damaged: {reason[:200]}") from error


def formats_of(data: bytes) -> tuple[str, ...]:
    """Pillow's names of the formats that a file may have. Raises BadImageError where what reads it is not installed."""
    if is_heic(data):
        if not _heic_can_be_read():
            raise BadImageError(NO_HEIC)
        return ("HEIF",)
    if is_avif(data):
        if not features.check("avif"):
            raise BadImageError(NO_AVIF)
        return ("AVIF",)
    return FORMATS


def _heic_can_be_read() -> bool:
    try:
        import pi_heif
    except ImportError:
        return False
    if "HEIF" not in Image.OPEN:
        pi_heif.register_heif_opener(decode_threads=1)  # several files are decoded at a time
    return True


def to_rgb(image: Image.Image) -> Image.Image:
    """A Pillow image of any mode as 8-bit RGB by the policy; ``image`` itself is turned upright.

    Raises BadImageError for a mode without a defined white.
    """
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    upright = image
    if upright.mode.startswith("I;16") or (upright.mode == "I" and image.format == "PNG"):
        deep = np.asarray(upright)
        grey = np.round(deep / 257.0).astype(np.uint8)
        grey[deep == image.info.get("transparency", -1)] = 255
        upright = Image.fromarray(grey)
    key = upright.info.get("transparency")
    if upright.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        # Of a file with 16 bits a channel; Pillow has cut the pixels to 8 bits and left this as it was.
        upright.info["transparency"] = tuple(value >> 8 for value in key)
    if upright.mode in ("I", "F"):
        raise BadImageError("32-bit pixels, which have no defined white; convert the file to 8 or 16 bits")
    if "A" in upright.getbands() or "a" in upright.getbands() or "transparency" in upright.info:
        return _over_white(upright)
    return upright.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """A transparent image laid over white, strip by strip: whole, a huge one would be in memory four times."""
    out = Image.new("RGB", image.size)
    for top in range(0, image.height, STRIP):
        strip = image.crop((0, top, image.width, min(top + STRIP, image.height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        out.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return out


def thumbnail(data: bytes, edge: int, quick: bool = False) -> bytes:
    """A JPEG of at most ``edge`` pixels a side, aspect ratio kept. Raises BadImageError as ``decode`` does.

    With ``quick``, libjpeg decodes a JPEG at a part of its size, as for ``scaled`` features; large photos take a fifth of the time.
    """
    image = Image.fromarray(decode(data, least=2 * edge if quick else None))
    image.thumbnail((edge, edge))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
