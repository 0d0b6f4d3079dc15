"""Which contents could not be decoded, and why: by SHA-256, so that a changed file is tried again."""

import json
from collections.abc import Callable
from pathlib import Path

from cache.files import read_memo, seal, write_if_changed


class SkippedImages:
    """Reasons by SHA-256 of the image file. They hold for one decode policy; under another all are tried again.

    A reason that is ``curable`` by now, such as a package that was missing, is forgotten, so that the image is tried again.
    """

    def __init__(self, path: Path, policy: str, curable: Callable[[str], bool] = lambda reason: False) -> None:
        self.path = path
        self.policy = policy
        self._curable = curable
        self.reasons: dict[str, str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take in what another process has written since."""
        stored = read_memo(self.path)
        if stored.get("policy") == self.policy:
            known: dict[str, str] = stored["reasons"]
            cured = {reason for reason in set(known.values()) if self._curable(reason)}
            self.reasons |= {digest: reason for digest, reason in known.items() if reason not in cured}

    def save(self) -> None:
        """Write the reasons where they differ from what is stored."""
        if self.reasons or self.path.exists():
            text = json.dumps({"policy": self.policy, "reasons": self.reasons}, indent=1, sort_keys=True)
            write_if_changed(self.path, seal(text) + "\n")
