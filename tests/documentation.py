"""The documentation as a test reads it: fenced blocks, tables, text."""

import re
import shutil
from pathlib import Path

from conftest import ROOT, Project, write_image

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}


# A sweep of the name that the pages use, of a head that needs no TensorFlow.
SWEEP = '[sweeps.width]\nhead = "logreg"\ngrid = { params = { C = [0.1, 1.0] }, pool = ["avg", "max"] }\n'


def blocks(language: str, page: str | None = None) -> list[str]:
    """Fenced blocks of one page, or of all."""
    texts = PAGES.values() if page is None else [PAGES[page]]
    return [
        block for text in texts for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


def plain(markdown: str) -> str:
    """Markdown without what the checks are not about: fenced blocks."""
    return re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)


def tables(page: str, heading: str) -> list[list[list[str]]]:
    """The tables under a heading, up to the next one: rows of cells, the first row being the header."""
    _, _, after = PAGES[page].partition(f"\n## {heading}\n")
    assert after, f"{page}: no heading {heading!r}"
    section = re.split(r"^## ", after, flags=re.MULTILINE)[0]
    found = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    rows = [[[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()] for table in found]
    return [[table[0], *table[2:]] for table in rows]


def first_cells(page: str, heading: str, number: int = 0) -> list[str]:
    """What stands in the first column of a table, without the marks of code."""
    return [row[0].strip("| `") for row in tables(page, heading)[number][1:]]


def documented_project(built: Project, folder: Path) -> Project:
    """A copy of a project that is up to date, in which all commands of the pages can be run."""
    shutil.copytree(built.folder, folder, symlinks=True)
    project = Project(folder)
    write_image(project.folder / "new.jpg", 5)
    write_image(project.folder / "unlabelled" / "1.jpg", 6)
    project.config.write_text(project.config.read_text() + SWEEP)
    return project
