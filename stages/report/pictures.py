"""Thumbnails, as data URIs, so that the page needs no other file."""

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
    return Picture(mistake, *data_uri(mistake.path, root, EDGE))


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
    return "data:image/jpeg;base64," + b64encode(jpeg).decode("ascii"), None
