"""The command line: parse, one call, print. What a command does stands in the file with the command's name."""

import functools
import gc
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cache.errors import HeadstartError

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.console import Terminal

CONFIG = Path("headstart.toml")
ConfigOption = Annotated[Path, typer.Option(help="The configuration file.")]
OnOption = Annotated[
    str | None, typer.Option(help="Work on the Dask cluster of this scheduler.", metavar="tcp://HOST:PORT")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

app = typer.Typer(
    name="headstart",
    help="Transfer learning for images: the frozen base runs once, everything after it takes seconds.",
    epilog="Documentation: README.md, and docs/ with one page for each question.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def command(**options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command. Its errors become one line, without a traceback unless ``--debug`` is given."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(*args: Any, debug: bool = False, **kwargs: Any) -> None:
            if debug:
                os.environ["HEADSTART_DEBUG"] = "1"
            try:
                function(*args, **kwargs)
            except KeyboardInterrupt:
                _stop("interrupted", 130, debug)
            except typer.Exit:
                raise
            except Exception as error:
                _stop(str(error) if isinstance(error, HeadstartError) else _unforeseen(error), 1, debug)

        # Typer reads the signature, and --debug belongs to every command.
        signature = inspect.signature(function)
        last = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=DebugOption)
        guarded.__annotations__ = function.__annotations__ | {"debug": DebugOption}
        guarded.__signature__ = signature.replace(parameters=[*signature.parameters.values(), last])  # type: ignore[attr-defined]
        return app.command(**options)(guarded)

    return register


def _unforeseen(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; nothing that was there is lost"
    reason = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}: {reason}; --debug shows where, please report it"


def _stop(message: str, code: int, debug: bool) -> None:
    from pipeline.console import visible

    if debug:
        import traceback

        traceback.print_exc()
    line = visible(f"headstart: {message}")
    if code == 1 and (said_by_make := os.environ.get("HEADSTART_ERROR")):
        # Make, which would add lines of its own below, says it at its end.
        Path(said_by_make).write_text(line + "\n", encoding="utf-8", errors="backslashreplace")
    else:
        print(line, file=sys.stderr)
    raise typer.Exit(code)


def _open(config: Path) -> "tuple[Config, Terminal]":
    from pipeline.config import load_config
    from pipeline.console import Terminal

    return load_config(config), Terminal()


def _rehash() -> bool:
    """``make … REHASH=1`` arrives in the environment."""
    return os.environ.get("REHASH", "0") not in ("", "0")


def _print(lines: Iterable[str]) -> None:
    from pipeline.console import visible

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


@command()
def features(
    config: ConfigOption = CONFIG,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read every image again, even where size and time did not change.")
    ] = False,
    allow_drift: Annotated[
        bool,
        typer.Option("--allow-drift", help="Add to stored features even where this machine computes them differently."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate: images to extract, time, and space on the disk.")
    ] = False,
    on: OnOption = None,
) -> None:
    """Stage one: extract what the cache lacks."""
    from pipeline.features import extract_missing, plan

    if dry_run:
        _print(plan(*_open(config)))
    else:
        extract_missing(*_open(config), rehash or _rehash(), allow_drift, on)


@command()
def layers(
    name: Annotated[str, typer.Argument(help="A constructor of keras.applications, or file:model.keras.")],
    input_size: Annotated[
        str | None,
        typer.Option(
            help="Pixels on each side, or HEIGHTxWIDTH; left out, 150, or what the model file takes.", metavar="N"
        ),
    ] = None,
) -> None:
    """List where a base can be cut: layers, the shape of their output, and bytes for one image."""
    from pipeline.layers import layer_lines

    _print(layer_lines(name, input_size))


@command()
def heads(
    names: Annotated[
        list[str] | None, typer.Argument(help="Heads to train where they are stale; left out, all heads.")
    ] = None,
    config: ConfigOption = CONFIG,
    on: OnOption = None,
) -> None:
    """Stage two: train the heads that are stale, on features that were extracted before."""
    from pipeline.heads import train_stale

    train_stale(*_open(config), names or (), on)


@command()
def sweep(
    names: Annotated[
        list[str] | None, typer.Argument(help="Sweeps to run where they are stale; left out, all sweeps.")
    ] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Try many variants of a head, and train the best of them."""
    from pipeline.sweep import run_stale

    run_stale(*_open(config), names or ())


@command()
def report(config: ConfigOption = CONFIG) -> None:
    """Write the report of heads that were trained before, and print the leaderboard."""
    from pipeline.leaderboard import leaderboard_lines
    from pipeline.report import write_stale

    _print(leaderboard_lines(write_stale(*_open(config))))


@command()
def status(config: ConfigOption = CONFIG) -> None:
    """Say for each target whether it is stale, and why."""
    from pipeline.status import status_lines

    _print(status_lines(*_open(config)))


@command()
def leaderboard(config: ConfigOption = CONFIG) -> None:
    """Print the trained heads, best on validation first, and where the report is."""
    from pipeline.graph import load_graph
    from pipeline.leaderboard import leaderboard_lines, up_to_date_line

    graph = load_graph(_open(config)[0])
    _print([up_to_date_line(graph), *leaderboard_lines(graph), f"report: {graph.report_path}"])


@command()
def predict(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Image files or folders; left out, the unlabelled images of the data folder."),
    ] = None,
    head: Annotated[str | None, typer.Option(help="The head that predicts; left out, the best on validation.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV file with the columns id and label.")] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(help="Answer only where this accuracy was reached on validation, such as 0.99.", min=0.0, max=1.0),
    ] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Label images, with the probability of each class."""
    from pipeline.predict import predict_files, prediction_lines, written_lines

    predictions = predict_files(*_open(config), paths or [], head, min_accuracy)
    _print(written_lines(csv, predictions) if csv else prediction_lines(predictions))
    if any(each.reason for each in predictions):
        raise typer.Exit(1)


@command()
def verify(config: ConfigOption = CONFIG) -> None:
    """Check everything in the cache, and say what is wrong."""
    from pipeline.verify import problems

    if wrong := problems(*_open(config)):
        _print(wrong)
        raise typer.Exit(1)


@command()
def prune(
    config: ConfigOption = CONFIG,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove what is listed; without this option it is only listed.")
    ] = False,
) -> None:
    """List what no configuration in the folder refers to, and with --yes remove it."""
    from pipeline.prune import pruned_lines

    _print(pruned_lines(*_open(config), remove=yes))


@command()
def demo(
    folder: Annotated[Path, typer.Argument(help="The folder that the demo is written to.")] = Path("artifacts/demo"),
) -> None:
    """Write scikit-learn's handwritten digits as a folder of images, with a configuration for them."""
    from pipeline.demo import write_demo

    print(write_demo(folder))


@command(hidden=True)
def graph(
    fragment: Path,
    config: ConfigOption = CONFIG,
    sweeps: Annotated[bool, typer.Option("--sweeps", help="Sweeps are run, too, before the report.")] = False,
) -> None:
    """Write the graph for make: FRAGMENT, and key files beside it."""
    from pipeline.graph import load_graph
    from pipeline.makefile import write_fragment

    opened, terminal = _open(config)
    write_fragment(load_graph(opened, _rehash(), terminal), fragment, sweeps)


def main() -> None:
    """The console command ``headstart``."""
    # A no-op makes a few hundred thousand objects and no garbage; looking for some would take a tenth of its time.
    gc.set_threshold(200_000, 20, 20)
    # Looking through every installed package for plugins of Pydantic costs as much as reading the manifest of 10,000 images.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    app()
