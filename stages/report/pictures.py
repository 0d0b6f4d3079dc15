"""Thumbnails of mistakes, as data URIs, so that the page needs no other file."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.data.images import BadImageError, thumbnail
from stages.report.outcomes import Mistake

EDGE = 112
SHOWN = 24


@dataclass(frozen=True)
class Picture:
    """A mistake, with its thumbnail or the reason why there is none (both None: images are not on this machine)."""

    mistake: Mistake
    source: str | None
    reason: str | None


def pictures(mistakes: Sequence[Mistake], root: Path | None) -> list[Picture]:
    """The first of the mistakes, with thumbnails read from under ``root``."""
    return [_picture(mistake, root) for mistake in mistakes[:SHOWN]]


def _picture(mistake: Mistake, root: Path | None) -> Picture:
    if root is None:
        return Picture(mistake, None, None)
    try:
        jpeg = thumbnail((root / mistake.path).read_bytes(), EDGE)
    except BadImageError as bad:
        return Picture(mistake, None, str(bad))
    except FileNotFoundError:
        return Picture(mistake, None, "the file is no longer there")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return Picture(mistake, None, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    return Picture(mistake, "data:image/jpeg;base64," + b64encode(jpeg).decode("ascii"), None)
