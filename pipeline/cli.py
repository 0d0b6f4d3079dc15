"""The command line: parse, one call, print."""

import functools
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cache.errors import HeadstartError

CONFIG = Path("headstart.toml")
ConfigOption = Annotated[Path, typer.Option("--config", help="The configuration.")]
OnOption = Annotated[
    str | None, typer.Option("--on", help="Work on the Dask cluster of this scheduler.", metavar="tcp://HOST:PORT")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

app = typer.Typer(
    name="headstart",
    help="Transfer learning for images: the frozen base runs once, everything after it takes seconds.",
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
            except HeadstartError as error:
                _stop(str(error), 1, debug)
            except Exception as error:
                if isinstance(error, OSError) and error.errno:
                    _stop(_os_error(error), 1, debug)
                reason = " ".join(str(error).split())
                _stop(f"unexpected {type(error).__name__}: {reason}; --debug shows where, please report it", 1, debug)

        # Typer reads the signature, and --debug belongs to every command.
        guarded.__annotations__ = function.__annotations__ | {"debug": DebugOption}
        guarded.__signature__ = _with_debug(function)  # type: ignore[attr-defined]
        return app.command(**options)(guarded)

    return register


def _with_debug(function: Callable[..., None]) -> Any:
    import inspect

    signature = inspect.signature(function)
    debug = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=DebugOption)
    return signature.replace(parameters=[*signature.parameters.values(), debug])


def _stop(message: str, code: int, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    from pipeline.console import visible

    print(visible(f"headstart: {message}"), file=sys.stderr)
    raise typer.Exit(code)


def _rehash() -> bool:
    """``make … REHASH=1`` arrives in the environment."""
    return os.environ.get("REHASH", "0") not in ("", "0")


def _os_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; nothing that was there is lost"


def _print(lines: list[str]) -> None:
    from pipeline.console import visible

    try:
        for line in lines:
            print(visible(line))
        sys.stdout.flush()
    except BrokenPipeError:
        # `headstart status | head` is no error. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Show the version and end.")] = False) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"headstart {version_of('headstart')}")
        raise typer.Exit()


@command()
def features(
    config: ConfigOption = CONFIG,
    rehash: Annotated[bool, typer.Option("--rehash", help="Read every image, whatever its size and time say.")] = False,
    allow_drift: Annotated[
        bool, typer.Option("--allow-drift", help="Add to a cache whose features come out differently here.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would do, how long it would take and how much space.")
    ] = False,
    on: OnOption = None,
) -> None:
    """Stage one: extract what the cache lacks."""
    from pipeline import run
    from pipeline.config import load_config
    from pipeline.console import Terminal

    if dry_run:
        _print(run.plan(load_config(config), Terminal()))
    else:
        run.features(load_config(config), Terminal(), rehash or _rehash(), allow_drift, on)


@command()
def layers(
    name: Annotated[str, typer.Argument(help="A constructor of keras.applications, or file:model.keras.")],
    input_size: Annotated[
        str | None,
        typer.Option(
            "--input-size", help="Pixels a side, or HEIGHTxWIDTH; 150, or what the model of a file takes.", metavar="N"
        ),
    ] = None,
) -> None:
    """List where a base can be cut: layers, the shape of their output, and bytes for one image."""
    from pipeline.summary import layer_lines

    _print(layer_lines(name, input_size))


@command()
def heads(
    names: Annotated[list[str] | None, typer.Argument(help="Heads to train; without any, all that are stale.")] = None,
    config: ConfigOption = CONFIG,
    on: OnOption = None,
) -> None:
    """Stage two: train the heads that are stale."""
    from pipeline import run
    from pipeline.config import load_config
    from pipeline.console import Terminal

    run.heads(load_config(config), Terminal(), names or (), on)


@command()
def sweep(
    names: Annotated[list[str] | None, typer.Argument(help="Sweeps to run; without any, all that are stale.")] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Try many variants of a head, and train the best of them."""
    from pipeline import sweeps
    from pipeline.config import load_config
    from pipeline.console import Terminal

    sweeps.sweep(load_config(config), Terminal(), names or ())


@command()
def report(config: ConfigOption = CONFIG) -> None:
    """Write the report, and print the leaderboard."""
    from pipeline import run
    from pipeline.config import load_config
    from pipeline.console import Terminal
    from pipeline.summary import leaderboard_lines

    _print(leaderboard_lines(run.report(load_config(config), Terminal())))


@command()
def status(config: ConfigOption = CONFIG) -> None:
    """Say for each target whether it is stale, and why."""
    from pipeline.config import load_config
    from pipeline.console import Terminal
    from pipeline.graph import load_graph
    from pipeline.summary import status_lines

    _print(status_lines(load_graph(load_config(config), progress=Terminal())))


@command()
def leaderboard(config: ConfigOption = CONFIG) -> None:
    """Print the trained heads, best on validation first, and where the report is."""
    from pipeline.config import load_config
    from pipeline.graph import load_graph
    from pipeline.summary import leaderboard_lines, stale_targets

    graph = load_graph(load_config(config))
    stale = stale_targets(graph)
    _print([f"stale: {', '.join(stale)}" if stale else "Everything is up to date.", *leaderboard_lines(graph)])
    print(f"report: {graph.report_path}")


@command()
def predict(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Image files or folders; without any, the unlabelled images.")
    ] = None,
    head: Annotated[str | None, typer.Option("--head", help="The head; without it, the best on validation.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write id,label to this file.")] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Label images, with the probability of each class."""
    from pipeline import run
    from pipeline.config import load_config
    from pipeline.console import Terminal
    from pipeline.summary import prediction_lines
    from stages.predict.predict import write_submission

    terminal = Terminal()
    predictions = run.predict(load_config(config), paths or [], head, terminal)
    if csv:
        written = write_submission(csv, predictions)
        _print(prediction_lines([each for each in predictions if each.reason]))
        terminal.say(f"{csv}: {written} of {len(predictions)} predictions written")
    else:
        _print(prediction_lines(predictions))
    if any(each.reason for each in predictions):
        raise typer.Exit(1)


@command()
def verify(config: ConfigOption = CONFIG) -> None:
    """Check everything in the cache, and say what is wrong."""
    from pipeline import care
    from pipeline.config import load_config
    from pipeline.console import Terminal

    if wrong := care.verify(load_config(config), Terminal()):
        _print(wrong)
        raise typer.Exit(1)


@command()
def prune(
    config: ConfigOption = CONFIG,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, it is only shown.")] = False,
) -> None:
    """Show what no configuration in the folder refers to, and with --yes remove it."""
    from pipeline import care
    from pipeline.config import load_config
    from pipeline.console import Terminal
    from pipeline.summary import garbage_lines

    found = care.garbage(load_config(config), Terminal())
    if yes:
        for each in found:
            each.remove()
    _print(garbage_lines(found, removed=yes))


@command()
def demo(folder: Annotated[Path, typer.Argument(help="Where the demo goes.")] = Path("artifacts/demo")) -> None:
    """Write scikit-learn's handwritten digits as a folder of images, with a configuration for them."""
    from pipeline.demo import write_demo

    print(write_demo(folder))


@command(hidden=True)
def graph(fragment: Path, config: ConfigOption = CONFIG) -> None:
    """Write the graph for make: FRAGMENT, and key files beside it."""
    from pipeline.config import load_config
    from pipeline.console import Terminal
    from pipeline.graph import load_graph
    from pipeline.makefile import write_fragment

    write_fragment(load_graph(load_config(config), _rehash(), Terminal()), fragment)


def main() -> None:
    """The console command ``headstart``."""
    # A no-op makes a few hundred thousand objects and no garbage; looking for some would take a tenth of its time.
    gc.set_threshold(200_000, 20, 20)
    # Looking through every installed package for plugins of Pydantic costs as much as reading the manifest of 10,000 images.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    app()


if __name__ == "__main__":
    main()
