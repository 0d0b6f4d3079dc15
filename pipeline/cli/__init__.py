"""The command line, with all its commands."""

import atexit
import gc
import os
import sys

from pipeline.cli import building, trained  # noqa: F401  # they register their commands, in the order of `headstart --help`
from pipeline.cli.application import app
from stages import imports

__all__ = ["app", "main"]


def main() -> None:
    """The console command ``headstart``."""
    # A no-op makes a few hundred thousand objects and no garbage; looking for some would take a tenth of its time.
    gc.set_threshold(200_000, 20, 20)
    # Looking through every installed package for plugins of Pydantic costs as much as reading the manifest of 10,000 images.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    imports.leave_out()
    ended: list[object] = []
    atexit.register(_leave, ended)  # the first that is registered is the last that is called
    try:
        app()
    except SystemExit as end:
        ended.append(end.code)
        raise


def _leave(ended: list[object]) -> None:
    """End the process here, after all that others do at its end, where it ``ended`` with an exit code: taking TensorFlow down object by
    object takes a second or two more.
    """
    code = ended[0] if ended else ""
    if not isinstance(code, int | None):  # an error that is Python's to show
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody reads any more: Python has its own words and exit code for that
        return
    os._exit(code or 0)
