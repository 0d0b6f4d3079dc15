"""The commands that build what the configuration asks for, and look at it: parse, one call, print.

What a command does stands in the file of ``pipeline.commands`` with the command's name.
"""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.application import CONFIG, ConfigOption, OnOption, command, opened, printed, rehashed


@command("cache")
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
    from pipeline.commands.features import extract_missing, plan

    if dry_run:
        printed(plan(*opened(config)))
    else:
        extract_missing(*opened(config), rehash or rehashed(), allow_drift, on)


@command("bases")
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
    """List the bases that can be had, and what they cost. With their licence, and whether their weights are here."""
    from pipeline.cli.console import Terminal
    from pipeline.commands.bases import base_lines

    printed(base_lines(names or [], config, timed, Terminal()))


@command("bases")
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
    """List the layers at which a base can be cut. With the shape of their output, and bytes for one image."""
    from pipeline.commands.layers import layer_lines

    printed(layer_lines(name, input_size))


@command("heads")
def heads(
    names: Annotated[
        list[str] | None, typer.Argument(help="Heads to train where they are stale; left out, all heads.")
    ] = None,
    config: ConfigOption = CONFIG,
    on: OnOption = None,
) -> None:
    """Stage two: train the heads that are stale. The features must have been extracted before."""
    from pipeline.commands.heads import train_stale

    train_stale(*opened(config), names or (), on)


@command("sweeps")
def sweep(
    names: Annotated[
        list[str] | None, typer.Argument(help="Sweeps to run where they are stale; left out, all sweeps.")
    ] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Try many variants of a head, and train the best of them."""
    from pipeline.commands.sweep import run_stale

    run_stale(*opened(config), names or ())


@command("audit")
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
    """Look for near-copies, suspicious labels and outliers. The features must have been extracted before."""
    from pipeline.commands.audit import audit_lines, run_stale

    printed(audit_lines(run_stale(*opened(config), base), write, write_corrections))


@command("numbers")
def report(config: ConfigOption = CONFIG) -> None:
    """Write the report, and print the leaderboard. The heads must have been trained before."""
    from pipeline.commands.leaderboard import leaderboard_lines
    from pipeline.commands.report import write_stale

    printed(leaderboard_lines(write_stale(*opened(config))))


@command("watch")
def watch(
    config: ConfigOption = CONFIG,
    port: Annotated[
        int,
        typer.Option(help="The port of the report's page on this machine; 0 for any that is free.", min=0, max=65535),
    ] = 8765,
) -> None:
    """Stay, and bring everything up to date after each edit. The report reloads itself."""
    from pipeline.cli.console import Terminal
    from pipeline.commands.watch import watch

    watch(config, Terminal(), port)


@command("configuration")
def status(config: ConfigOption = CONFIG) -> None:
    """Say for each target whether it is stale, and why."""
    from pipeline.commands.status import status_lines

    printed(status_lines(*opened(config)))


@command("numbers")
def leaderboard(config: ConfigOption = CONFIG) -> None:
    """Print the trained heads, best on validation first. And where the report is."""
    from pipeline.commands.leaderboard import leaderboard_lines, up_to_date_line
    from pipeline.targets.graph import load_graph

    graph = load_graph(opened(config)[0])
    printed([up_to_date_line(graph), *leaderboard_lines(graph), f"report: {graph.report_path}"])


@command("cache")
def verify(
    config: ConfigOption = CONFIG,
    images: Annotated[
        bool, typer.Option("--images", help="Compute some features of each store again from the images, and compare.")
    ] = False,
) -> None:
    """Check everything in the cache, and say what is wrong."""
    from pipeline.commands.verify import verify_lines

    right = True
    for line, good in verify_lines(*opened(config), images):
        printed([line])
        right = right and good
    if not right:
        raise typer.Exit(1)


@command("cache")
def prune(
    config: ConfigOption = CONFIG,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove what is listed; without this option it is only listed.")
    ] = False,
) -> None:
    """List what no configuration in the folder refers to. With --yes, remove it."""
    from pipeline.commands.prune import pruned_lines

    printed(pruned_lines(*opened(config), remove=yes))


@command("configuration")
def demo(
    folder: Annotated[Path, typer.Argument(help="The folder that the demo is written to.")] = Path("artifacts/demo"),
) -> None:
    """Write images to try headstart on, and their configuration. They are scikit-learn's handwritten digits."""
    from pipeline.demo import write_demo

    print(write_demo(folder))


@command("configuration", hidden=True)
def graph(
    fragment: Path,
    config: ConfigOption = CONFIG,
    sweeps: Annotated[bool, typer.Option("--sweeps", help="Sweeps are run, too, before the report.")] = False,
    audit: Annotated[bool, typer.Option("--audit", help="The audit is run, too, before the report.")] = False,
) -> None:
    """Write the graph for make: FRAGMENT, and key files beside it."""
    from pipeline.commands.graph import write_fragment
    from pipeline.targets.graph import load_graph

    found, terminal = opened(config)
    write_fragment(load_graph(found, rehashed(), terminal), fragment, sweeps, audit)
