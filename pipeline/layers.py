"""``headstart layers``: where a base can be cut."""

from pathlib import Path

from cache.errors import ConfigError
from pipeline.config import base_of
from stages.bases.weights import Weights


def layer_lines(name: str, size: str | None) -> list[str]:
    """The layers of a base with their shapes and sizes; the one that is kept where none is named is marked.

    Without a ``size``, at the one that a model file takes, else at 150×150. Raises ConfigError for a base or a size that
    there is not.
    """
    height, _, width = ("150" if size is None else size).partition("x")
    if not (height.isdecimal() and (width or height).isdecimal() and int(height) * int(width or height)):
        raise ConfigError(f"--input-size: expected a whole number or HEIGHTxWIDTH, found {size!r}")
    spec = base_of(name, (int(height), int(width or height)))
    from stages.bases.model import layers_of, own_size

    if spec.own_file and size is None:
        spec = base_of(name, own_size(spec))

    found = layers_of(spec, Weights(spec, Path("weights")))
    default = found[-1].name if spec.own_file else spec.cuts[0]
    columns = max(len(layer.name) for layer in found)
    lines = [f"{'layer':{columns}}  {'kind':22}  {'output':>18}  {'kB/image':>9}"]
    for layer in found:
        shape = " × ".join(str(n) for n in layer.shape)
        mark = "  ← the default" if layer.name == default else ""
        lines.append(f"{layer.name:{columns}}  {layer.kind:22}  {shape:>18}  {layer.bytes() / 1e3:9,.1f}{mark}")
    return [*lines, "kB/image: as float16, before compression; behind a ReLU that saves a half to nine tenths."]
