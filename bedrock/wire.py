"""The packets that DockerD and the API exchange, to bytes and back. Pure.

The envelope::

    {"headers": {"sender": NODE, ...},
     "events": [{"headers": {"event_type": T, "session_id": ID}, "payload": BASE64}]}

Headers are strings. Anything unknown is ignored by whoever reads it. Our own nodes add the headers named in
:class:`Header`. A node that names no protocol gets along with the sender alone: it is answered at once, each time with
all that it has to do, its commands are one string, and the API ends its sessions when their time is over.
"""

from __future__ import annotations

import enum
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from bedrock.errors import BedrockError
from bedrock.lifecycle import Outcome
from bedrock.model import Count, TraceSpec
from bedrock.untrusted import MalformedJson, decode_json, shortened
from bedrock.words import split_words

PROTOCOL_VERSION = "2"
MAX_PACKET_BYTES = 16 << 20
_MAX_VALUES = 200_000
_MAX_PAYLOAD_BYTES = 2 << 20  # a command of the longest length, written in escapes
_EXAMPLE = "2026-01-02T03:04:05Z"


class EventType(enum.StrEnum):
    # from DockerD
    RUNNING = "session_running"
    END = "session_end"
    FAILED = "session_failed"
    PROGRESS = "session_progress"  # ours: what a pending session waits for
    # from the API
    START = "session_start"
    STOPPED = "session_stopped"
    CLEANUP = "session_cleanup"  # the end is stored: the node may forget the session


class Header(enum.StrEnum):
    """The packet headers. All but ``SENDER`` and ``ERROR`` are ours."""

    SENDER = "sender"
    ERROR = "error"
    PROTOCOL = "protocol"
    SEQUENCE = "seq"  # of the node's poll; the answer repeats it
    BOOT = "boot"  # a fresh id each time a DockerD, or the API, starts
    FULL = "full"  # "true": this packet reports everything the sender has, not only changes
    SLOTS = "slots"  # how many sessions the node takes at once
    WAIT = "wait"  # a Go duration: how long the API may hold the answer
    SEEN = "seen"  # the last revision of the node's work that the node has applied
    API_BOOT = "api_boot"  # whose revisions those are
    REVISION = "revision"  # the answer's revision of the node's work
    VERSION = "version"  # of the software, for people


class PacketError(BedrockError):
    """Bytes that are not a packet. The text says which part is wrong."""


class Event(msgspec.Struct, frozen=True):
    event_type: str
    session_id: str
    payload: bytes = b""
    headers: dict[str, str] = {}


class Packet(msgspec.Struct, frozen=True):
    headers: dict[str, str] = {}
    events: list[Event] = []

    def header(self, name: Header) -> str | None:
        return self.headers.get(name.value)


class StartOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of ``session_start`` for our own nodes. ``ttl`` is in nanoseconds, ``max_output`` in bytes."""

    image: str
    command: list[str]
    ttl: Count
    init: bool = False
    trace: TraceSpec = TraceSpec()
    max_output: Count | None = None  # None is the node's default


class PlainOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of ``session_start`` for nodes that name no protocol. ``command`` has words with a space between them."""

    image: str
    command: str
    ttl: int


class _AnyOrder(StartOrder, frozen=True, kw_only=True):
    command: list[str] | str  # type: ignore[assignment]


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of our nodes' ``session_running``."""

    started_at: datetime


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of ``session_progress``: one sentence of what a pending session is waiting for."""

    message: str


Payload = StartOrder | PlainOrder | Started | Progress | Outcome
_P = TypeVar("_P", StartOrder, Started, Progress, Outcome)


class _RawEvent(msgspec.Struct):
    headers: dict[str, Any] | None = None
    payload: str | None = None


class _RawPacket(msgspec.Struct):
    headers: dict[str, Any] | None = None
    events: list[_RawEvent] | None = None


def decode_packet(data: bytes) -> Packet:
    """Return the packet in ``data``. Raises :class:`PacketError`, and nothing else, when it is not one."""
    # Each value but the first has one of these in front. At worst, a byte of JSON becomes forty of objects.
    values = sum(map(data.count, (b",", b"{", b"[")))
    if values > _MAX_VALUES:
        raise PacketError(f"the packet has about {values} values, the limit is {_MAX_VALUES}")
    try:
        raw = decode_json(data, _RawPacket, max_bytes=MAX_PACKET_BYTES)
    except MalformedJson as error:
        raise PacketError(f"the packet: {error}") from None
    events = [_event(item, index) for index, item in enumerate(raw.events or [])]
    return Packet(_headers(raw.headers, "headers"), events)


def encode_packet(packet: Packet) -> bytes:
    """Return the bytes of a packet. The reverse of :func:`decode_packet`."""
    return msgspec.json.encode(
        {
            "headers": packet.headers,
            "events": [
                {
                    "headers": {**event.headers, "event_type": event.event_type, "session_id": event.session_id},
                    "payload": b64encode(event.payload).decode("ascii"),
                }
                for event in packet.events
            ],
        }
    )


def encode_payload(payload: Payload) -> bytes:
    return msgspec.json.encode(payload)


def decode_payload(event: Event, kind: type[_P]) -> _P:
    """Return the payload of one of our own events. Raises :class:`PacketError`, and nothing else, unless it fits."""
    try:
        payload = decode_json(event.payload, kind, max_bytes=_MAX_PAYLOAD_BYTES)
    except MalformedJson as error:
        raise PacketError(f"payload of {shortened(event.event_type)}: {error}") from None
    for name, value in msgspec.structs.asdict(payload).items():
        # A time without a zone can't be compared, and one of another zone may have no equal in UTC.
        if isinstance(value, datetime) and value.tzinfo is not UTC:
            raise PacketError(f"payload of {shortened(event.event_type)}: {name} is not in UTC, such as {_EXAMPLE}")
    return payload


def decode_order(event: Event) -> StartOrder:
    """Return the order of a ``session_start``; a command in one string is split as a shell splits words.

    Raises :class:`PacketError`, and nothing else, unless it fits.
    """
    order = decode_payload(event, _AnyOrder)
    words: list[str] | str = order.command
    if isinstance(words, str):
        try:
            words = split_words(words)
        except ValueError as error:
            raise PacketError(f"payload of {event.event_type}: command can't be split: {error}") from None
    return StartOrder(**{**msgspec.structs.asdict(order), "command": words})


def _event(raw: _RawEvent, index: int) -> Event:
    headers = _headers(raw.headers, "headers of an event")
    try:
        content = b64decode(raw.payload or "", validate=True)
    except ValueError:  # binascii's own error is one, and so is that for text that is not ASCII
        raise PacketError(f"events[{index}].payload is not base64") from None
    return Event(headers.pop("event_type", ""), headers.pop("session_id", ""), content, headers)


def _headers(raw: dict[str, Any] | None, name: str) -> dict[str, str]:
    """Headers are strings; of a value that is something else its JSON is taken."""
    try:
        return {
            key: value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for key, value in (raw or {}).items()
        }
    except (OverflowError, RecursionError):
        raise PacketError(f"{name}: a value is not a string, and too large or too deep to be taken as one") from None
