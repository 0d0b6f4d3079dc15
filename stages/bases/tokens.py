"""What is kept of the tokens of a vision transformer: (n, tokens, d) → features.

A transformer cuts an image into patches, and gives one vector for each, in the order of reading. Before them stand a class token,
where it has one, and registers, which hold what belongs to no place (A. Dosovitskiy et al., "An image is worth 16x16 words", 2021;
T. Darcet et al., "Vision transformers need registers", 2024).
"""

import numpy as np
from numpy.typing import NDArray

from cache.errors import BaseError
from stages.bases.spec import BaseSpec

# No prefix, a class token, one with a distillation token (DeiT), and one with four registers (DINOv2, DINOv3).
PREFIXES = (0, 1, 2, 5)


def select(tokens: NDArray[np.float32], spec: BaseSpec, layer: str) -> NDArray[np.float32]:
    """Features of ``spec.output``: (n, d) for ``cls`` and ``mean``, (n, 2·d) for ``cls+mean``, (n, rows, columns, d) for ``patches``.

    What has no tokens stays as it is, where nothing is asked. Raises BaseError where there is no such token, or where the patches
    fill no grid.
    """
    if spec.output is None:
        return tokens
    if tokens.ndim != 3:
        raise BaseError(
            f"output {spec.output!r}: expected tokens (tokens, channels) at layer {layer!r}, found {tokens.shape[1:]}; "
            "leave output out, or name a layer of tokens, of which `headstart layers` has the list"
        )
    prefix, rows, columns = _grid(tokens.shape[1], spec, layer)
    if "cls" in spec.output and not prefix:
        raise BaseError(f"output {spec.output!r}: layer {layer!r} has no class token; take mean or patches")
    patches = tokens[:, prefix:]
    if spec.output == "patches":
        return patches.reshape(len(tokens), rows, columns, -1)
    first: NDArray[np.float32] = tokens[:, 0]
    mean: NDArray[np.float32] = patches.mean(axis=1)
    if spec.output == "cls+mean":
        return np.concatenate([first, mean], axis=1)
    return first if spec.output == "cls" else mean


def _grid(count: int, spec: BaseSpec, layer: str) -> tuple[int, int, int]:
    """How many tokens stand before the patches, and how the patches lie: rows and columns."""
    height, width = spec.input_size
    prefixes = PREFIXES if spec.prefix_tokens is None else (spec.prefix_tokens,)
    fits = {
        (prefix, height // patch, width // patch)
        for prefix in prefixes
        for patch in range(1, min(height, width) + 1)
        if (height // patch) * (width // patch) == count - prefix
    }
    exact = {fit for fit in fits if height % fit[1] == 0 and width % fit[2] == 0} or fits
    if len({fit[0] for fit in exact}) != 1:
        found = f"any of {sorted({fit[0] for fit in exact})}" if exact else "none that leaves a grid"
        raise BaseError(
            f"layer {layer!r}: expected to see how many of {count} tokens stand before the patches of {height}×{width} pixels, found "
            f"{found}; set prefix_tokens"
        )
    return min(exact)
