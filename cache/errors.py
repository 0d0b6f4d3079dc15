"""The errors that headstart raises on purpose.

Each message is one line: the thing, what was expected, what was found, what to do. The command line prints
it and exits with 1; a traceback is shown with ``--debug`` only.
"""

from pathlib import Path


class HeadstartError(Exception):
    """Base of every error that a user can do something about."""


class ConfigError(HeadstartError):
    """The configuration says something that cannot be meant."""


class DataError(HeadstartError):
    """The images or their labels cannot be used as they are."""


class CacheError(HeadstartError):
    """What is in the cache is missing, damaged or of another kind than expected."""


class DamageError(CacheError):
    """A file of the cache, ``path``, does not hold what was written."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


class SchemaError(CacheError):
    """What is in the cache was written by a headstart with another schema."""


class BaseError(HeadstartError):
    """The frozen base cannot be built, cut or given its weights."""


class HeadError(HeadstartError):
    """A head cannot be built, trained or loaded."""


class DivergedError(HeadError):
    """A head was trained, and came to nothing."""

    @classmethod
    def at(cls, learning_rate: float) -> "DivergedError":
        """The error of a head that was trained at this rate."""
        return cls(f"training diverged: the validation loss is never finite; lower learning_rate ({learning_rate})")
