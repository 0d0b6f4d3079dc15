"""Which contents could not be decoded, and why: by SHA-256, so that a changed file is tried again."""

import json
from pathlib import Path

from cache.files import read_memo, seal, write_if_changed


class SkippedImages:
    """Reasons by SHA-256 of the image file. They hold for one decode policy; under another all are tried again."""

    def __init__(self, path: Path, policy: str) -> None:
        self.path = path
        self.policy = policy
        self.reasons: dict[str, str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take in what another process has written since."""
        stored = read_memo(self.path)
        if stored.get("policy") == self.policy:
            self.reasons |= stored["reasons"]

    def save(self) -> None:
        """Write the reasons where they differ from what is stored."""
        if self.reasons or self.path.exists():
            text = json.dumps({"policy": self.policy, "reasons": self.reasons}, indent=1, sort_keys=True)
            write_if_changed(self.path, seal(text) + "\n")
