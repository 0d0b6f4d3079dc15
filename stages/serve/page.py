"""The page as HTML. Its style and its script stand in it, and it loads nothing from elsewhere."""

from stages.progress import visible
from stages.report.environment import environment
from stages.serve.limits import Limits


def rendered(title: str, limits: Limits, min_accuracy: float | None, nonce: str) -> str:
    """The page; ``nonce`` is what its style and script may be run by."""
    template = environment("stages.serve").get_template("serve.html.j2")
    return template.render(title=visible(title), limits=limits, min_accuracy=min_accuracy, nonce=nonce) + "\n"
