"""The commands that put trained heads to use: parse, one call, print."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.application import CONFIG, ConfigOption, command, opened, printed

MinAccuracyOption = Annotated[
    float | None,
    typer.Option(help="Answer only where this accuracy was reached on validation, such as 0.99.", min=0.0, max=1.0),
]


def _printed_whole(lines: Sequence[str], complete: bool) -> None:
    """Print lines about image files. The exit status is 1 where one of the files could not be read."""
    printed(lines)
    if not complete:
        raise typer.Exit(1)


@command("predict")
def predict(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Image files or folders; left out, the unlabelled images of the data folder."),
    ] = None,
    head: Annotated[str | None, typer.Option(help="The head that predicts; left out, the best on validation.")] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write a CSV file: id and label, or a column for each class.")
    ] = None,
    min_accuracy: MinAccuracyOption = None,
    views: Annotated[int, typer.Option(help="Average over so many augmented views of each image, too.", min=0)] = 0,
    config: ConfigOption = CONFIG,
) -> None:
    """Label images, with the probability of each class."""
    from pipeline.commands.predict import predict_lines

    _printed_whole(*predict_lines(*opened(config), paths or [], head, min_accuracy, csv, views))


@command("explain")
def explain(
    paths: Annotated[list[Path] | None, typer.Argument(help="Image files or folders.")] = None,
    head: Annotated[str | None, typer.Option(help="The head that is asked; left out, the best on validation.")] = None,
    label: Annotated[
        str | None, typer.Option("--class", help="The class; left out, the one that is predicted.")
    ] = None,
    occlusion: Annotated[
        bool, typer.Option("--occlusion", help="Hide parts of the image, too, and see what the head says then.")
    ] = False,
    features: Annotated[str | None, typer.Option(help="Draw an image's feature maps at this layer instead.")] = None,
    filters: Annotated[str | None, typer.Option(help="Draw what the filters of this layer answer to instead.")] = None,
    base: Annotated[str | None, typer.Option(help="The base of that layer; left out, the first.")] = None,
    out: Annotated[Path | None, typer.Option(help="The picture (PNG); left out, in artifacts/explain.")] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Draw what in an image speaks for a class. Or draw what a layer of the base sees."""
    from pipeline.commands.explain import check_together, explained_lines, layer_lines

    of_head = {"--head": head, "--class": label, "--occlusion": occlusion}
    check_together({"--features": features, "--filters": filters}, of_head, base)
    if features or filters:
        _printed_whole(*layer_lines(*opened(config), paths or [], features, filters, base, out))
    else:
        _printed_whole(*explained_lines(*opened(config), paths or [], head, label, occlusion, out))


@command("search")
def similar(
    paths: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    count: Annotated[int, typer.Option("--count", "-k", help="So many images for each.", min=1)] = 10,
    base: Annotated[str | None, typer.Option(help="The base whose features are compared; left out, the first.")] = None,
    layer: Annotated[str | None, typer.Option(help="The layer of it; left out, the last that is extracted.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV file with a line for each image that is found.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write a page of thumbnails (HTML).")] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Find the images of the data that are most like others."""
    from pipeline.commands.similar import similar_lines

    _printed_whole(*similar_lines(*opened(config), paths, base, layer, count, csv, page))


@command("search")
def label_next(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Image files or folders; left out, the unlabelled images of the data folder."),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-k", help="So many images.", min=1)] = 50,
    head: Annotated[str | None, typer.Option(help="The head that is unsure; left out, the best on validation.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV file with a line for each image.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write a page of thumbnails (HTML).")] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Say which unlabelled images to label next."""
    from pipeline.commands.label_next import label_next_lines

    _printed_whole(*label_next_lines(*opened(config), paths or [], head, count, csv, page))


@command("export")
def export(
    head: Annotated[str, typer.Argument(help="The head to export.")],
    to: Annotated[str, typer.Option(help="The format: keras, saved_model, litert, onnx or openvino.")],
    precision: Annotated[
        str, typer.Option(help="float32; or float16 or int8, of litert, onnx and openvino.")
    ] = "float32",
    min_accuracy: MinAccuracyOption = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Write a trained head as one model for other programs. It takes images of any size, and needs no headstart."""
    from pipeline.commands.export import export_lines

    printed(export_lines(*opened(config), head, to, precision, min_accuracy))


@command("serve")
def serve(
    head: Annotated[
        str | None, typer.Option(help="The head that is asked at first; left out, the best on validation.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 lets everybody in the network reach it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.", min=0, max=65535)] = 8770,
    min_accuracy: MinAccuracyOption = None,
    max_megabytes: Annotated[float, typer.Option(help="Of an upload.", min=0.001)] = 20.0,
    max_megapixels: Annotated[float, typer.Option(help="Of an image, by its header.", min=0.001, max=178.0)] = 50.0,
    max_requests: Annotated[int, typer.Option(help="Requests under way; more are refused.", min=1)] = 64,
    max_seconds: Annotated[float, typer.Option(help="For a request, with its upload.", min=0.1)] = 30.0,
    config: ConfigOption = CONFIG,
) -> None:
    """Try trained heads on a page in the browser. Or ask them by JSON over HTTP."""
    from pipeline.cli.console import Terminal
    from pipeline.commands.serve import serve
    from stages.serve.limits import Limits

    limits = Limits(int(max_megabytes * 1e6), int(max_megapixels * 1e6), max_requests, max_seconds)
    serve(config, Terminal(), limits, head, host, port, min_accuracy)
