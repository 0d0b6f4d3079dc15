"""The application of commands, and what its commands have in common: options, opening the configuration, printing."""

import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.command import command_of

if TYPE_CHECKING:
    from pipeline.cli.console import Terminal
    from pipeline.config.load import Config

CONFIG = Path("headstart.toml")
ConfigOption = Annotated[Path, typer.Option(help="The configuration file.")]
OnOption = Annotated[
    str | None, typer.Option(help="Work on the Dask cluster of this scheduler.", metavar="tcp://HOST:PORT")
]

PAGES = (
    *("configuration", "data", "bases", "views", "heads", "finetuning", "ensembles", "sweeps", "numbers", "audit"),
    *("predict", "explain", "search", "export", "serve", "watch", "notebooks"),
    *("cache", "machines", "speed", "problems", "developing"),
)

app = typer.Typer(
    name="headstart",
    help="Transfer learning for images: the frozen base runs once, everything after it takes seconds.",
    epilog=f"Documentation: README.md, and in docs/ a page for each question: {', '.join(f'{page}.md' for page in PAGES)}.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


command = functools.partial(command_of, app)


def opened(config: Path) -> "tuple[Config, Terminal]":
    """What every command begins with: the configuration, and where it says what it does. Raises ConfigError."""
    from pipeline.cli.console import Terminal
    from pipeline.config.load import load_config

    return load_config(config), Terminal()


def rehashed() -> bool:
    """``make … REHASH=1`` arrives in the environment."""
    return os.environ.get("REHASH", "0") not in ("", "0")


def printed(lines: Iterable[str]) -> None:
    """Print lines to standard output, one by one as they come, with what is not printable made visible."""
    from stages.progress import visible

    try:
        for line in lines:
            print(visible(line))
        sys.stdout.flush()
    except BrokenPipeError:
        # `headstart status | head` is no error. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"headstart {version_of('headstart')}")
        raise typer.Exit()
