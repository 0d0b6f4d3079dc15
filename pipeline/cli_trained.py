"""The commands that put trained heads to use: parse, one call, print."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.app import CONFIG, ConfigOption, command, opened, printed


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

    lines, complete = predict_lines(*opened(config), paths or [], head, min_accuracy, csv, views)
    printed(lines)
    if not complete:
        raise typer.Exit(1)


@command()
def export(
    head: Annotated[str, typer.Argument(help="The head to export.")],
    to: Annotated[str, typer.Option(help="The format: keras, saved_model, litert, onnx or openvino.")],
    precision: Annotated[
        str, typer.Option(help="float32; or float16 or int8, of litert, onnx and openvino.")
    ] = "float32",
    min_accuracy: Annotated[
        float | None,
        typer.Option(help="Answer only where this accuracy was reached on validation, such as 0.99.", min=0.0, max=1.0),
    ] = None,
    config: ConfigOption = CONFIG,
) -> None:
    """Write a trained head as one model, from images of any size to probabilities, which needs no headstart."""
    from pipeline.export import export_lines

    printed(export_lines(*opened(config), head, to, precision, min_accuracy))
