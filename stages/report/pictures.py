"""Thumbnails, as data URIs, so that the page needs no other file."""

import io
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from stages.data.images import BadImageError, thumbnail
from stages.report.outcomes import Mistake

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EDGE = 112
JPEG = "data:image/jpeg;base64,"
# A mistake → what is drawn beside it, (height, width, 3), or None.
Draw = Callable[[Mistake], "NDArray[np.uint8] | None"]
SHOWN = 24


@dataclass(frozen=True)
class Picture:
    """A mistake, with its thumbnail or the reason why there is none (both None: images are not on this machine).

    ``map`` is the thumbnail with what spoke for the predicted class laid over it; None where that is not asked for, or cannot be told.
    """

    mistake: Mistake
    source: str | None
    reason: str | None
    map: str | None = None


def pictures(mistakes: Sequence[Mistake], root: Path | None, draw: Draw | None = None) -> list[Picture]:
    """The first of the mistakes, with thumbnails read from under ``root``; and with what ``draw`` gives for each."""
    return [_picture(mistake, root, draw) for mistake in mistakes[:SHOWN]]


def _picture(mistake: Mistake, root: Path | None, draw: Draw | None) -> Picture:
    source, reason = data_uri(mistake.path, root, EDGE)
    drawn = draw(mistake) if draw and source else None
    if drawn is None:
        return Picture(mistake, source, reason)
    out = io.BytesIO()
    Image.fromarray(drawn).save(out, "JPEG", quality=85)
    return Picture(mistake, source, reason, JPEG + b64encode(out.getvalue()).decode("ascii"))


def data_uri(path: str, root: Path | None, edge: int, quick: bool = False) -> tuple[str | None, str | None]:
    """A thumbnail of at most ``edge`` pixels a side as a data URI, or the reason why there is none; None and None without a
    ``root``. ``quick`` is as in ``thumbnail``.
    """
    if root is None:
        return None, None
    try:
        jpeg = thumbnail((root / path).read_bytes(), edge, quick)
    except BadImageError as bad:
        return None, str(bad)
    except FileNotFoundError:
        return None, "the file is no longer there"
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return None, f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return JPEG + b64encode(jpeg).decode("ascii"), None
