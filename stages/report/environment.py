"""What templates are written with: the filters for numbers and names, of the report and of other pages."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stages.progress import counted, in_bytes, visible
from stages.report import text

_FILTERS = ("percent", "decimal", "duration", "short", "setting", "p_value", "points")


def environment(*packages: str) -> Environment:
    """The templates of other packages, which may include those of the report, or of the report alone."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(each) for each in (*packages, "stages.report")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_finalize,
    )
    environment.filters |= {"count": counted, "size": in_bytes} | {name: getattr(text, name) for name in _FILTERS}
    environment.globals |= {"interval": text.interval, "NONE": text.NONE}
    return environment


def _finalize(value: Any) -> Any:
    """Names of files and classes may hold anything: all that is not markup is made visible before it is escaped."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)
