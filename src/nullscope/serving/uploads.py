"""The files of a multipart body, in memory and within limits: nothing is written to a disk, and nothing too large is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from nullscope.serving.limits import Declined, Limits

FIELD = "files"  # of the form


class Upload(NamedTuple):
    """One file of a request."""

    name: str  # as the client gave it; it goes into the answer and nowhere else
    data: bytes


async def read_uploads(content_type: str, chunks: AsyncIterator[bytes], limits: Limits) -> list[Upload]:
    """Return the files of a body. Raises `Declined` where it is no form with files, too large, too slow or cut off."""
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise Declined(415, f"expected multipart/form-data with files in the field `{FIELD}`, found {kind or 'no content type'}")
    reader = _Reader(MultipartDecoder(options["boundary"].encode("latin-1", "replace"), max_parts=2 * limits.files), limits)
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in chunks:
                reader.feed(chunk)
            reader.feed(None)
    except TimeoutError:
        raise Declined(408, f"the body did not arrive within {limits.seconds:g} s") from None
    except RequestEntityTooLarge:
        raise Declined(413, f"more than {limits.files} files in one request") from None
    except ValueError as error:
        raise Declined(400, f"the body is no multipart form, or was cut off: {error}") from None
    if not reader.uploads:
        raise Declined(400, f"expected files in the field `{FIELD}`, found none")
    return reader.uploads


class _Reader:
    """Takes a body piece by piece."""

    def __init__(self, decoder: MultipartDecoder, limits: Limits) -> None:
        self.uploads: list[Upload] = []
        self._decoder, self._limits = decoder, limits
        self._received = 0
        self._name: str | None = None  # of the file that is being read; None in a part that is none of ours
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes | None) -> None:
        """Take the next piece, None at the end. Raises `Declined`, or `ValueError` where the body is no form."""
        self._received += len(chunk or b"")
        if self._received > self._limits.bytes:
            raise Declined(413, f"the body has more than {self._limits.bytes:,} bytes")
        self._decoder.receive_data(chunk)
        while not isinstance(event := self._decoder.next_event(), NeedData):
            if isinstance(event, File | Field):
                self._begin(event)
            elif isinstance(event, Data) and self._name is not None:
                self._parts.append(event.data)
                if not event.more_data:
                    self.uploads.append(Upload(self._name, b"".join(self._parts)))
            elif isinstance(event, Epilogue):
                return

    def _begin(self, part: File | Field) -> None:
        self._parts = []
        self._name = part.filename or "" if isinstance(part, File) and part.name == FIELD else None
        if self._name is not None and len(self.uploads) == self._limits.files:
            raise Declined(413, f"more than {self._limits.files} files in one request")
