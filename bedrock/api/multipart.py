"""multipart/form-data as a stream of files, in constant memory (RFC 7578)."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import NamedTuple

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from bedrock.api.problems import Problem

_MAX_PARTS = 1_000


class PartBegin(NamedTuple):
    """A part begins. ``filename`` is None for a plain field."""

    field: str
    filename: str | None


class PartData(NamedTuple):
    """More bytes of the part that has begun."""

    data: bytes


class PartEnd(NamedTuple):
    """The part that has begun is whole."""


PartEvent = PartBegin | PartData | PartEnd


def boundary_of(content_type: str | None) -> bytes:
    """Return the boundary that a request's Content-Type names. Raises :class:`Problem`."""
    kind, options = parse_options_header(content_type or "")
    if kind != b"multipart/form-data":
        shown = (content_type or "nothing")[:80]
        raise Problem(415, f"files are uploaded as multipart/form-data (curl -F file=@NAME), not as {shown}")
    boundary = options.get(b"boundary")
    if not boundary:
        raise Problem(400, "the Content-Type multipart/form-data names no boundary")
    return boundary


class _Collector:
    """Turns the parser's callbacks into events, a chunk's worth at a time."""

    def __init__(self) -> None:
        self.events: list[PartEvent] = []
        self.is_complete = False
        self._parts = 0
        self._name = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise Problem(400, f"the upload has more than {_MAX_PARTS} parts")
        self._headers = {}

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        field = options.get(b"name")
        if kind != b"form-data" or field is None:
            raise Problem(400, "a part of the upload has no Content-Disposition: form-data with a name")
        filename = options.get(b"filename")
        self.events.append(
            PartBegin(field.decode(errors="replace"), None if filename is None else filename.decode(errors="replace"))
        )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.events.append(PartData(data[start:end]))

    def on_part_end(self) -> None:
        self.events.append(PartEnd())

    def on_end(self) -> None:
        self.is_complete = True


async def iter_parts(body: AsyncIterable[bytes], content_type: str | None) -> AsyncIterator[PartEvent]:
    """Yield what the body holds, as it comes. Raises :class:`Problem` for a body that is no multipart/form-data."""
    boundary = boundary_of(content_type)
    collector = _Collector()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.on_part_begin,
                "on_header_field": collector.on_header_field,
                "on_header_value": collector.on_header_value,
                "on_header_end": collector.on_header_end,
                "on_headers_finished": collector.on_headers_finished,
                "on_part_data": collector.on_part_data,
                "on_part_end": collector.on_part_end,
                "on_end": collector.on_end,
            },
        )
        async for chunk in body:
            parser.write(chunk)
            events, collector.events = collector.events, []
            for event in events:
                yield event
    except FormParserError as error:
        raise Problem(400, f"the upload is not well-formed multipart/form-data: {error}") from None
    if not collector.is_complete:
        raise Problem(400, "the upload ends in the middle: its closing boundary is missing")
