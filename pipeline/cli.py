"""The command line: parse, one call, print. What a command does stands in the file with the command's name."""

import functools
import gc
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.command import command_of

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.console import Terminal

CONFIG = Path("headstart.toml")
ConfigOption = Annotated[Path, typer.Option(help="The configuration file.")]
OnOption = Annotated[
    str | None, typer.Option(help="Work on the Dask cluster of this scheduler.", metavar="tcp://HOST:PORT")
]

app = typer.Typer(
    name="headstart",
    help="Transfer learning for images: the frozen base runs once, everything after it takes seconds.",
    epilog="Documentation: README.md, and docs/ with one page for each question.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


command = functools.partial(command_of, app)


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
def bases(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Constructors of keras.applications, file:model.onnx, hub:PRESET; left out, all there are."
        ),
    ] = None,
    config: ConfigOption = CONFIG,
    timed: Annotated[
        bool, typer.Option("--time", help="Measure images a second, of those named or of the configuration.")
    ] = False,
) -> None:
    """List which bases can be had: size, cost, licence, and whether their weights are here."""
    from pipeline.bases import base_lines
    from pipeline.console import Terminal

    _print(base_lines(names or [], config, timed, Terminal()))


@command()
def layers(
    name: Annotated[
        str,
        typer.Argument(help="A constructor of keras.applications, file:model.keras, file:model.onnx or hub:PRESET."),
    ],
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
def audit(
    base: Annotated[
        str | None, typer.Option("--base", help="The base whose features are looked at; left out, the first.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option("--write", help="Write the groups of near-copies as a CSV file: filename, group.", metavar="FILE"),
    ] = None,
    write_corrections: Annotated[
        Path | None,
        typer.Option(
            "--write-corrections", help="Write the suspicious labels as a CSV file: path, label.", metavar="FILE"
        ),
    ] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Look for near-copies, suspicious labels and outliers, on features that were extracted before."""
    from pipeline.audit import audit_lines, run_stale

    _print(audit_lines(run_stale(*_open(config), base), write, write_corrections))


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
    csv: Annotated[
        Path | None, typer.Option(help="Write a CSV file: id and label, or a column for each class.")
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(help="Answer only where this accuracy was reached on validation, such as 0.99.", min=0.0, max=1.0),
    ] = None,
    views: Annotated[int, typer.Option(help="Average over so many augmented views of each image, too.", min=0)] = 0,
    config: ConfigOption = CONFIG,
) -> None:
    """Label images, with the probability of each class."""
    from pipeline.predict import predict_lines

    lines, complete = predict_lines(*_open(config), paths or [], head, min_accuracy, csv, views)
    _print(lines)
    if not complete:
        raise typer.Exit(1)


@command()
def verify(
    config: ConfigOption = CONFIG,
    images: Annotated[
        bool, typer.Option("--images", help="Compute some features of each store again from the images, and compare.")
    ] = False,
) -> None:
    """Check everything in the cache, and say what is wrong."""
    from pipeline.verify import verify_lines

    right = True
    for line, good in verify_lines(*_open(config), images):
        _print([line])
        right = right and good
    if not right:
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
    audit: Annotated[bool, typer.Option("--audit", help="The audit is run, too, before the report.")] = False,
) -> None:
    """Write the graph for make: FRAGMENT, and key files beside it."""
    from pipeline.graph import load_graph
    from pipeline.makefile import write_fragment

    opened, terminal = _open(config)
    write_fragment(load_graph(opened, _rehash(), terminal), fragment, sweeps, audit)


def main() -> None:
    """The console command ``headstart``."""
    # A no-op makes a few hundred thousand objects and no garbage; looking for some would take a tenth of its time.
    gc.set_threshold(200_000, 20, 20)
    # Looking through every installed package for plugins of Pydantic costs as much as reading the manifest of 10,000 images.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    app()
