"""What a request may cost, and how one is refused."""

from dataclasses import dataclass

from cache.errors import HeadstartError


@dataclass(frozen=True)
class Limits:
    """The most that a request may have: ``bytes`` of an upload, ``pixels`` of an image by its header, and ``seconds``; and how many
    requests may be under way.
    """

    bytes: int = 20_000_000
    pixels: int = 50_000_000
    requests: int = 64
    seconds: float = 30.0


class RefusedError(HeadstartError):
    """A request that is answered with an HTTP ``status`` and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
