"""What a node's packet asks for, and what its events say: read out of them, bounded and checked. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec

from bedrock.duration import parse_duration
from bedrock.errors import InvalidInput
from bedrock.lifecycle import Outcome
from bedrock.model import NodeName, Reason, Status, parse_node_name, utc_now
from bedrock.untrusted import shortened
from bedrock.wire import Event, EventType, Header, Packet, PacketError, Progress, Started, decode_payload

_MAX_WAIT_S = 60.0
# Of the texts that nodes send: those that are kept or repeated for programs, and those for people.
_MAX_HEADER, _MAX_MESSAGE = 128, 4_096


class Poll:
    """What a packet asks for."""

    def __init__(self, sender: NodeName) -> None:
        self.sender = sender
        self.is_ours = False
        self.is_full = False
        self.boot = self.version = self.sequence = ""
        self.slots = 0
        self.wait_s = 0.0
        self.seen = 0
        self.number = 0  # among the packets of its node
        self.answers: list[Event] = []


def read_poll(packet: Packet, boot: str) -> Poll:
    """Read a packet's headers; ``boot`` is this run of the API. Raises :class:`InvalidInput`, naming the header."""
    sender = packet.header(Header.SENDER)
    if sender is None:
        raise InvalidInput("headers.sender", "is missing; it is the name of the node that sends")
    poll = Poll(parse_node_name(sender, field="headers.sender"))
    poll.is_ours = packet.header(Header.PROTOCOL) is not None
    if not poll.is_ours:
        return poll
    poll.is_full = packet.header(Header.FULL) == "true"
    poll.boot = _text(packet, Header.BOOT)
    poll.version = _text(packet, Header.VERSION)
    poll.sequence = _text(packet, Header.SEQUENCE)
    poll.slots = _number(packet, Header.SLOTS)
    poll.wait_s = min(parse_duration(packet.header(Header.WAIT) or "0", field="headers.wait") / 1e9, _MAX_WAIT_S)
    if packet.header(Header.API_BOOT) == boot and not poll.is_full:
        poll.seen = _number(packet, Header.SEEN)
    return poll


def progress_of(event: Event) -> str:
    """The sentence of a ``session_progress``. Raises :class:`PacketError`."""
    return shortened(decode_payload(event, Progress).message, _MAX_MESSAGE)


def started_at_of(event: Event, *, is_ours: bool) -> datetime:
    """When a session began to run, as a ``session_running`` says or, where it says nothing, now.

    A node that names no protocol sends no payload that can be relied on. Raises :class:`PacketError`.
    """
    return decode_payload(event, Started).started_at if is_ours and event.payload else utc_now()


def outcome_of(event: Event, *, is_ours: bool) -> Outcome:
    """How a session ended, as its ``session_end`` or ``session_failed`` says. Raises :class:`PacketError`."""
    if is_ours and event.payload:
        outcome = decode_payload(event, Outcome)
        if not outcome.status.is_terminal:
            raise PacketError(f"payload of {event.event_type}: the status {outcome.status} is not one of an end")
        return msgspec.structs.replace(outcome, message=shortened(outcome.message, _MAX_MESSAGE))
    failed = event.event_type == EventType.FAILED
    return Outcome(
        status=Status.FAILED if failed else Status.FINISHED,
        reason=Reason.RUNTIME_ERROR if failed else Reason.EXIT,
        message="the node reported a failure" if failed else "the node reported the end",
        finished_at=utc_now(),
    )


def unreadable_end(error: PacketError) -> Outcome:
    """The end of a session of which its node says something that can't be used."""
    return Outcome(
        status=Status.FAILED,
        reason=Reason.RUNTIME_ERROR,
        message=f"the session has ended, but how can't be read from its node's report: {error}",
        finished_at=utc_now(),
    )


def _text(packet: Packet, name: Header) -> str:
    text = packet.header(name) or ""
    if len(text) > _MAX_HEADER:
        raise InvalidInput(f"headers.{name}", f"has {len(text)} characters, the limit is {_MAX_HEADER}")
    return text


def _number(packet: Packet, name: Header) -> int:
    text = packet.header(name) or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise InvalidInput(f"headers.{name}", f"{text[:40]!r} is not a whole number of at least 0")
    return int(text)
