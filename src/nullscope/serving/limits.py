"""What the server takes, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Bounds of one request and of all at once."""

    bytes: int = 32 * MIB  # of a request's body, all files together
    files: int = 16  # of a request
    pixels: int = 64_000_000  # of an image; a model may take fewer
    requests: int = 32  # at once, their bodies in memory
    images: int = 128  # that wait for the models
    seconds: float = 60.0  # for a body to arrive; again for its images to be scored


class Declined(Exception):
    """A request that gets no scores. ``status`` is HTTP's; the text is for whoever asked."""

    def __init__(self, status: int, text: str, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.retry_after = status, text, retry_after
