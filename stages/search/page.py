"""A page of thumbnails: what was found, under headings. It needs no other file, as the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.files import write_text
from stages.report.environment import environment
from stages.report.pictures import EDGE, data_uri

# Thumbnails on one page: about 1.5 MB for each hundred.
MOST = 2000


@dataclass(frozen=True)
class Shown:
    """An image on the page: where it lies, a word and a number that stand below it, and a line more."""

    path: Path
    word: str
    number: str
    line: str
    name: str


@dataclass(frozen=True)
class Part:
    """Images under a heading."""

    heading: str
    images: Sequence[Shown]


def write_page(path: Path, title: str, lead: str, parts: Sequence[Part]) -> list[str]:
    """Write the page to ``path``, atomically; what is to be said about it. Images that cannot be read have the reason in their place."""
    left, kept = MOST, []
    for part in parts:
        if left > 0:
            kept.append(
                (
                    part.heading,
                    [
                        (each, *data_uri(str(each.path.absolute()), Path("/"), EDGE, True))
                        for each in part.images[:left]
                    ],
                )
            )
        left -= len(part.images)
    page = environment("stages.search").get_template("pictures.html.j2").render(title=title, lead=lead, parts=kept)
    write_text(path, page + "\n")
    return [f"{path}: written" + (f", the first {MOST:,} images; {-left:,} more are not on it" if left < 0 else "")]
