"""Matplotlib figure → SVG that is part of the page: its colours follow light and dark, its text is text.

The stylesheet decides the colours. Matplotlib writes fixed ones, so figures are drawn in stand-ins, which are
replaced by CSS variables afterwards.
"""

import io
import re
import warnings
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAND_IN = {
    "train": "#010203",
    "validation": "#020304",
    "text": "#030405",
    "muted": "#040506",
    "rule": "#050607",
    "test": "#060708",
}
# No date and no version: the same figure is the same text.
_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_FIRST_TAG = re.compile(r"<svg\b[^>]*?viewBox=\"([^\"]*)\"[^>]*>", re.S)
_STYLE = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.S)
_ID = re.compile(r'\sid="([^"]*)"')


def inline_svg(figure: "Figure", name: str, label: str, crop: Literal["tight"] | None = None) -> Markup:
    """The figure as an ``<svg>`` element. ``name`` is unique on the page, ``label`` is what a screen reader says.

    ``crop`` cuts it to what is drawn.
    """
    import matplotlib

    out = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": f"headstart-{name}", "path.simplify": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Glyphs that matplotlib's font lacks are drawn by the browser.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(out, format="svg", metadata=_METADATA, transparent=True, bbox_inches=crop)
    return Markup(_own_names(_page_style(_bare(out.getvalue(), label)), name))


def _bare(text: str, label: str) -> str:
    """Without the XML prologue, the fixed size and the style, which would hold for the whole page."""
    first = _FIRST_TAG.search(text)
    if first is None:
        raise ValueError("matplotlib wrote no <svg> with a viewBox")
    opening = f'<svg viewBox="{first[1]}" role="img" aria-label="{escape(label)}">'
    return opening + _STYLE.sub("", text[first.end() :]).strip()


def _page_style(text: str) -> str:
    for colour, stand_in in STAND_IN.items():
        text = text.replace(stand_in, f"var(--{colour})")
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    return re.sub(r'\s*transform="rotate\(-0 [^"]*"', "", text).replace("xlink:href", "href")


def _own_names(text: str, name: str) -> str:
    """Ids that something refers to become the figure's own; the others go."""
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    text = _ID.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    return re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", text)
