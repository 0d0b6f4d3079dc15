"""Links of the documentation lead somewhere, files that it names are there, it is short, and the command line leads to it."""

import re

import pytest
import typer
from conftest import ROOT
from documentation import PAGES, first_cells, plain
from typer.testing import CliRunner

from pipeline.cli import app

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def asked(*arguments: str) -> str:
    """What ``--help`` says on a terminal of 80 columns."""
    return CliRunner().invoke(app, [*arguments, "--help"], terminal_width=80).output


def anchors(page: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", plain(PAGES[page]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere_and_every_page_can_be_reached() -> None:
    leads: dict[str, set[str]] = {}
    for page, text in PAGES.items():
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", plain(text)):
            name, _, anchor = target.partition("#")
            path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
            assert path.exists(), f"{page}: {target}"
            other = path.relative_to(ROOT.resolve()).as_posix() if name else page
            assert not anchor or anchor in anchors(other), f"{page}: {target}"
            leads.setdefault(page, set()).add(other)
    reached, todo = set[str](), ["README.md"]
    while todo:
        page = todo.pop()
        if page in PAGES and page not in reached:
            reached.add(page)
            todo += leads.get(page, ())
    assert reached == PAGES.keys()


def test_files_that_are_named_are_there() -> None:
    text = "\n".join(PAGES.values())
    for name in re.findall(r"`((?:cache|stages|pipeline|tests|bench)/[\w/.]*|headstart\.py)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(?:(?:.venv/bin/)?python -m )?bench\.(\w+)`", text):
        assert (ROOT / "bench" / f"{name}.py").exists(), name
    rooms = {
        f"{top}/{path.parent.name}/" for top in ("pipeline", "stages") for path in (ROOT / top).glob("*/__init__.py")
    }
    assert rooms <= set(first_cells("docs/developing.md", "The rooms"))


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150


def test_no_figure_is_missing() -> None:
    assert [page for page, text in PAGES.items() if "TODO" in text] == []


def test_help_leads_to_every_page_and_cuts_no_description() -> None:
    listed = asked()
    assert "..." not in listed.partition("Commands:")[2] and "…" not in listed
    named = {f"docs/{name}" for name in re.findall(r"\w+\.md", listed.partition("Documentation:")[2])}
    assert named - {"docs/README.md"} == PAGES.keys() - {"README.md"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_names_its_page(command: str) -> None:
    (page,) = re.findall(r"docs/\w+\.md", asked(command))
    assert command == "graph" or re.search(rf"`{command}`|headstart {command}\b", PAGES[page]), page


def test_each_command_has_its_file() -> None:
    """But for the demo, which is a room of its own, as its configuration lies beside it."""
    there = {path.stem for path in (ROOT / "pipeline" / "commands").glob("[a-z]*.py")}
    assert there == {name.replace("-", "_") for name in COMMANDS} - {"demo"}
