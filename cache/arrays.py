"""Files of arrays (.npz) that may have been damaged since they were written."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheError


@contextmanager
def whole_arrays(path: Path) -> Iterator[Any]:
    """The arrays of a file, by their names, after the checksum of each was compared. Raises CacheError for whatever is wrong with the file,
    found here or by who reads it: a damaged archive can say that it is compressed, encrypted, or of a version that there is not.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(damaged)
        with np.load(path, allow_pickle=False) as file:
            yield file
    except Exception as error:
        raise CacheError(f"{path}: expected whole arrays, found {type(error).__name__}: {error}") from error
