"""The command line, with all its commands."""

import gc
import os

from pipeline import cli_build, cli_trained  # noqa: F401  # they register their commands, in the order of `headstart --help`
from pipeline.app import app
from stages import imports

__all__ = ["app", "main"]


def main() -> None:
    """The console command ``headstart``."""
    # A no-op makes a few hundred thousand objects and no garbage; looking for some would take a tenth of its time.
    gc.set_threshold(200_000, 20, 20)
    # Looking through every installed package for plugins of Pydantic costs as much as reading the manifest of 10,000 images.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    imports.leave_out()
    app()
