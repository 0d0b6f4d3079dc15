"""What every command has: ``--debug``, and errors that become one line."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cache.errors import HeadstartError
from pipeline.common.errors import unforeseen

DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def command_of(app: typer.Typer, page: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command of ``app``, which the ``page`` of that name in the documentation is about. Its errors become one line, without a
    traceback unless ``--debug`` is given.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(*args: Any, debug: bool = False, **kwargs: Any) -> None:
            if debug:
                os.environ["HEADSTART_DEBUG"] = "1"
            try:
                function(*args, **kwargs)
            except KeyboardInterrupt:
                _stop("interrupted", 130, debug)
            except typer.Exit:
                raise
            except HeadstartError as error:
                _stop(str(error), 1, debug)
            except Exception as error:
                _stop(unforeseen(error), 1, debug)

        # Typer reads the signature, and --debug belongs to every command.
        signature = inspect.signature(function)
        last = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=DebugOption)
        guarded.__annotations__ = function.__annotations__ | {"debug": DebugOption}
        guarded.__signature__ = signature.replace(parameters=[*signature.parameters.values(), last])  # type: ignore[attr-defined]
        return app.command(epilog=f"Documentation: docs/{page}.md", **options)(guarded)

    return register


def _stop(message: str, code: int, debug: bool) -> None:
    from stages.progress import visible

    if debug:
        import traceback

        traceback.print_exc()
    line = visible(f"headstart: {message}")
    if code == 1 and (said_by_make := os.environ.get("HEADSTART_ERROR")):
        # Make, which would add lines of its own below, says it at its end.
        Path(said_by_make).write_text(line + "\n", encoding="utf-8", errors="backslashreplace")
    else:
        print(line, file=sys.stderr)
    raise typer.Exit(code)
