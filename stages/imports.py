"""Large libraries, imported without what they would bring along for things that headstart does not do.

Keras imports scikit-learn, Matplotlib and pandas where they are installed, scikit-learn pandas, and skops every module of scikit-learn:
seconds, in commands whose own work is done in one. In a notebook these parts may be wanted by others, so that only the command line
leaves them out.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

_of_command_line: list[bool] = []


def leave_out() -> None:
    """From now on, leave such parts out: this process runs headstart's commands and nothing else."""
    _of_command_line.append(True)


def left_out() -> bool:
    """Whether such parts are left out."""
    return bool(_of_command_line)


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Import something as if optional packages were not installed. Those that were imported before stay; the others can be afterwards."""
    hidden = [name for name in packages if name not in sys.modules] if left_out() else []
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def load_sklearn() -> None:
    """Import scikit-learn, without pandas where that may be left out."""
    with without("pandas"):
        import_module("sklearn.base")


def load_skops() -> Any:
    """The module ``skops.io``. Where it may be, it is imported without the list of scikit-learn's types that it trusts, for which it would
    import all of scikit-learn: ``get_untrusted_types`` then names these as well.
    """
    load_sklearn()
    if not left_out() or "skops.io" in sys.modules:
        return import_module("skops.io")
    utils: Any = import_module("sklearn.utils")
    listed, utils.all_estimators = utils.all_estimators, lambda: []
    try:
        return import_module("skops.io")
    finally:
        utils.all_estimators = listed
