"""``[cache]``: where artifacts go, and how features are stored."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from stages.fields import PositiveInt, Spec


def _bytes(value: Any) -> Any:
    """``"1.5 GB"`` in bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)B\s*", value) if isinstance(value, str) else None
    if not found:
        raise ValueError(f'expected a size such as "500 MB" or "2 GB", found {value!r}')
    return int(float(found[1]) * 1000 ** " kMGT".index(found[2] or " "))


class CacheSpec(Spec):
    """``[cache]``: where artifacts go and how features are stored. ``dir`` is an absolute path here.

    ``memory`` (bytes) is what features may take while heads are trained; those that would take more are streamed. Left out,
    it is half of the machine's.
    """

    dir: Path
    dtype: Literal["float16", "float32"] = "float16"
    compression: Literal["zstd", "lzf", "none"] = "zstd"
    shard_images: PositiveInt = 512
    memory: Annotated[PositiveInt, BeforeValidator(_bytes)] | None = None
