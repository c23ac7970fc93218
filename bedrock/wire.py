"""The packets that DockerD and the API exchange, to bytes and back. Pure.

The envelope is that of the Go fleet, so that nodes of either kind can be mixed::

    {"headers": {"sender": NODE, ...},
     "events": [{"headers": {"event_type": T, "session_id": ID}, "payload": BASE64}]}

Headers are strings. Anything unknown is ignored by whoever reads it. Our own nodes add the headers named in
:class:`Header`; a packet without them is a Go node's, and is answered in its way.
"""

from __future__ import annotations

import binascii
import enum
from base64 import b64decode, b64encode
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from bedrock.errors import BedrockError
from bedrock.lifecycle import Outcome
from bedrock.model import TraceSpec

PROTOCOL_VERSION = "2"
MAX_PACKET_BYTES = 16 << 20


class EventType(enum.StrEnum):
    # from DockerD
    RUNNING = "session_running"
    END = "session_end"
    FAILED = "session_failed"
    PROGRESS = "session_progress"  # ours: what a pending session waits for; a Go API ignores it
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
    """Bytes that are no packet. The text says which part is wrong."""


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
    """Payload of ``session_start``. ``ttl`` is in nanoseconds, as Go encodes it; ``init``, ``trace``, ``max_output``
    are ours.
    """

    image: str
    command: list[str]
    ttl: int
    init: bool = False
    trace: TraceSpec = TraceSpec()
    max_output: int | None = None  # bytes; None is the node's default


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of our nodes' ``session_running``."""

    started_at: datetime


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of ``session_progress``: one sentence of what a pending session is waiting for."""

    message: str


Payload = StartOrder | Started | Progress | Outcome
_P = TypeVar("_P", StartOrder, Started, Progress, Outcome)


def decode_packet(data: bytes) -> Packet:
    """Return the packet in ``data``; raise :class:`PacketError` when it is none."""
    if len(data) > MAX_PACKET_BYTES:
        raise PacketError(f"the packet has {len(data)} bytes, the limit is {MAX_PACKET_BYTES}")
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PacketError(f"the packet is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise PacketError("the packet is not a JSON object")
    events = raw.get("events") or []
    if not isinstance(events, list):
        raise PacketError("events is not an array")
    return Packet(_headers(raw, "headers"), [_event(item, index) for index, item in enumerate(events)])


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
    """Return the payload of one of our own events; raise :class:`PacketError` when it does not fit."""
    try:
        return msgspec.json.decode(event.payload, type=kind)
    except msgspec.DecodeError as error:
        raise PacketError(f"payload of {event.event_type}: {error}") from None


def _event(item: Any, index: int) -> Event:
    if not isinstance(item, dict):
        raise PacketError(f"events[{index}] is not an object")
    headers = _headers(item, f"events[{index}].headers")
    payload = item.get("payload") or ""
    if not isinstance(payload, str):
        raise PacketError(f"events[{index}].payload is not a base64 string")
    try:
        content = b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise PacketError(f"events[{index}].payload is not base64") from None
    return Event(headers.pop("event_type", ""), headers.pop("session_id", ""), content, headers)


def _headers(item: dict[str, Any], name: str) -> dict[str, str]:
    headers = item.get("headers") or {}
    if not isinstance(headers, dict):
        raise PacketError(f"{name} is not an object")
    return {
        key: value if isinstance(value, str) else msgspec.json.encode(value).decode() for key, value in headers.items()
    }
