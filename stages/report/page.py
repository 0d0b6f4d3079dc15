"""What a written report says of itself: the parts it was made of, in the head of the page.

Every no-op reads this, so nothing but the standard library is imported.
"""

import json
from pathlib import Path
from typing import Any

# Raised by hand when the page changes its looks or its contents, so that old reports are written anew.
PAGE_VERSION: int = 12

_OPEN = '<script type="application/json" id="headstart-parts">'
_CLOSE = "</script>"
_BLOCK = 1 << 16


def embed_parts(parts: dict[str, Any]) -> str:
    """The element that carries ``parts``. It is ASCII and holds no ``<`` of its own, so no text can end it early."""
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return _OPEN + text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026") + _CLOSE


def read_report_parts(path: Path) -> dict[str, Any] | None:
    """The parts that the page at ``path`` was made of; None for no page, or for one that does not say."""
    try:
        with open(path, "rb") as file:
            text = file.read(_BLOCK)
            start = text.find(_OPEN.encode())
            if start < 0:
                return None
            while (end := text.find(_CLOSE.encode(), start)) < 0:
                more = file.read(_BLOCK)
                if not more:
                    return None
                text += more
        parts = json.loads(text[start + len(_OPEN) : end])
    except (OSError, ValueError, RecursionError):
        return None
    return parts if isinstance(parts, dict) else None
