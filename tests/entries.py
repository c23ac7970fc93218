"""Every place where bytes or text of a peer are read, as a function that raises nothing for any input.

Each takes what came, and lets through what is said to be a refusal there. Hypothesis (``tests/unit/test_untrusted.py``)
and atheris (``scripts/fuzz``) look for inputs with which one raises something else.
"""

from __future__ import annotations

import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from datetime import UTC

import trio

from bedrock.api import requests
from bedrock.api.artifacts import check_filename
from bedrock.api.multipart import iter_parts
from bedrock.api.poll import outcome_of, progress_of, read_poll, started_at_of
from bedrock.api.problems import Problem
from bedrock.api.ranges import RangeNotSatisfiable, parse_range
from bedrock.duration import MAX_NS, parse_duration
from bedrock.errors import InvalidInput
from bedrock.model import parse_node_name, parse_session_id
from bedrock.size import parse_size
from bedrock.trace.export import parse_format
from bedrock.untrusted import MalformedJson, decode_json
from bedrock.volume import Manifest
from bedrock.wire import (
    Event,
    EventType,
    PacketError,
    decode_order,
    decode_packet,
    encode_packet,
)


def packet(data: bytes) -> None:
    with contextlib.suppress(PacketError, InvalidInput):
        found = decode_packet(data)
        assert decode_packet(encode_packet(found)) == found
        read_poll(found, boot="b")
        for event in found.events:
            payload(event.payload)


def payload(data: bytes) -> None:
    for kind in (EventType.RUNNING, EventType.END, EventType.FAILED, EventType.PROGRESS, EventType.START):
        event = Event(kind, "", data)
        with contextlib.suppress(PacketError):
            if kind is EventType.RUNNING:
                assert started_at_of(event, is_ours=True).tzinfo is UTC
            elif kind is EventType.PROGRESS:
                progress_of(event)
            elif kind is EventType.START:
                assert 0 <= decode_order(event).ttl <= MAX_NS
            else:
                outcome = outcome_of(event, is_ours=True)
                assert outcome.finished_at.tzinfo is UTC
                assert outcome.exit_code is None or abs(outcome.exit_code) <= 2**31


def body(data: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        requests.new_session(requests.parse_body(data, requests.CreateRequest))
    with contextlib.suppress(InvalidInput):
        requests.parse_body(data, requests.StatusRequest)


def manifest(data: bytes) -> None:
    with contextlib.suppress(MalformedJson):
        decode_json(data, Manifest, max_bytes=1 << 20)


def text(data: bytes) -> None:
    """Everything that is a word of a URL, a header or a field."""
    words = data.decode("utf-8", "replace")
    readers: list[Callable[[], object]] = [
        lambda: parse_duration(words),
        lambda: parse_size(words, field="size"),
        lambda: parse_session_id(words),
        lambda: parse_node_name(words),
        lambda: check_filename(words),
        lambda: parse_format(words),
        lambda: parse_range(f"bytes={words}", 10),
        lambda: requests.split_command(words),
        lambda: requests.parse_label(words),
        lambda: requests.parse_status(words),
        lambda: requests.parse_limit(words, maximum=1_000),
        lambda: requests.parse_flag(words, field="flag", default=False),
        lambda: requests.parse_prefer_wait(f"wait={words}", maximum_s=60),
        lambda: requests.new_session(requests.CreateRequest(image=words, ttl="1s")),
    ]
    for read in readers:
        with contextlib.suppress(InvalidInput, RangeNotSatisfiable):
            read()


def upload(data: bytes) -> None:
    """A body whose head, up to the first line, is its Content-Type."""
    kind, _, content = data.partition(b"\n")

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 7):
            yield content[at : at + 7]

    async def read() -> None:
        with contextlib.suppress(Problem):
            async for _ in iter_parts(chunks(), kind.decode("latin-1")):
                pass

    trio.run(read)


ENTRIES: dict[str, Callable[[bytes], None]] = {
    "packet": packet,
    "payload": payload,
    "body": body,
    "manifest": manifest,
    "text": text,
    "upload": upload,
}

_OUTCOME = (
    b'{"status":"finished","reason":"exit","message":"m","finished_at":"2026-01-02T03:04:05Z","exit_code":0,'
    b'"started_at":"2026-01-02T03:04:05Z","trace":{"state":"lossy","seen":2,"events":1,"lost":{"ring_full":1}}}'
)
_ORDER = (
    b'{"image":"a","command":["b"],"ttl":1000,"init":true,"trace":{"mode":"events","paths":["/a"],"classes":["data"]}}'
)
# Where a search begins: what is taken.
SEEDS: dict[str, list[bytes]] = {
    "packet": [
        b'{"headers":{"sender":"a","protocol":"2","boot":"b","seq":"1","slots":"2","wait":"1m","full":"true"},'
        b'"events":[{"headers":{"event_type":"session_end","session_id":"01a20a5a-f1dc-771c-a61f-2efdc4734108"},'
        b'"payload":"' + b64encode(_OUTCOME) + b'"}]}',
    ],
    "payload": [_OUTCOME, _ORDER, b'{"message":"m"}', b'{"started_at":"2026-01-02T03:04:05Z"}'],
    "body": [
        b'{"image":"a/b:1","ttl":"1h30m","command":"a \'b\' \\"c\\\\d\\"","init":true,"labels":{"a":"b"},'
        b'"trace":{"mode":"events","paths":["/a"],"classes":["data"],"max_size":"1MiB"}}',
        b'{"status":"stopped"}',
    ],
    "manifest": [b'{"session_id":"a","files":[{"filename":"f","size":1,"sha256":"0"}],"trace":{"state":"partial"}}'],
    "text": [b"1h30m", b"12MiB", b"01a20a5a-f1dc-771c-a61f-2efdc4734108", b"a.log", b"0-5", b"a 'b' \"c\\d\"", b"a=b",
             b"localhost:5000/a/b_c:1@sha256:" + b"0" * 64],
    "upload": [
        b"multipart/form-data; boundary=b\n--b\r\n"
        b'Content-Disposition: form-data; name="f"; filename="a"\r\n\r\ncontent\r\n--b--\r\n'
    ],
}  # fmt: skip
