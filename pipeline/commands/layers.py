"""``headstart layers``: where a base can be cut."""

import tempfile
from pathlib import Path

from cache.errors import ConfigError
from pipeline.config.load import base_of
from stages.bases.brought import completed
from stages.bases.weights import Weights


def layer_lines(name: str, size: str | None) -> list[str]:
    """The layers of a base with their shapes and sizes; the one that is kept where none is named is marked.

    Without a ``size``, at the one that a model file takes, else at 150×150. Raises ConfigError for a base or a size that
    there is not.
    """
    spec = base_of(name, None if size is None else _parsed(size))
    from stages.bases.layers import layers_of
    from stages.bases.model import own_size

    with tempfile.TemporaryDirectory() as folder:  # for the record of a file, which nobody needs
        kept = Path(folder) / "weights"
        if spec.hub and not Path(spec.weights).is_absolute():
            from stages.bases.hub import fetch

            fetch(spec, kept)
        spec = completed(spec, kept)
        if spec.own_file and not spec.onnx and size is None:
            spec = base_of(name, own_size(spec))
        found = layers_of(spec, Weights(spec, kept))
    default = found[-1].name if spec.brought else spec.cuts[0]
    columns = max(len(layer.name) for layer in found)
    lines = [f"{'layer':{columns}}  {'kind':22}  {'output':>18}  {'kB/image':>9}  {'parameters':>11}"]
    for layer in found:
        shape = " × ".join(str(n) for n in layer.shape)
        mark = "  ← the default" if layer.name == default else ""
        lines.append(
            f"{layer.name:{columns}}  {layer.kind:22}  {shape:>18}  {layer.bytes() / 1e3:9,.1f}  {layer.parameters:11,}{mark}"
        )
    return [*lines, "kB/image: as float16, before compression; behind a ReLU that saves a half to nine tenths."]


def _parsed(size: str) -> tuple[int, int]:
    height, _, width = size.partition("x")
    if not (height.isdecimal() and (width or height).isdecimal() and int(height) * int(width or height)):
        raise ConfigError(f"--input-size: expected a whole number or HEIGHTxWIDTH, found {size!r}")
    return int(height), int(width or height)
