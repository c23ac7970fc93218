"""Whatever a peer sends is taken or refused, in time that grows with its size and no faster."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from entries import ENTRIES
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bedrock.api import requests
from bedrock.duration import parse_duration
from bedrock.errors import InvalidInput
from bedrock.lifecycle import Outcome
from bedrock.untrusted import MalformedJson, decode_json, shortened
from bedrock.wire import Event, PacketError, StartOrder, decode_packet, decode_payload

_LAX = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

_ODD_TEXTS = ["", "0", "1s", "a" * 300, "\0", "\u0661", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05+23:59",
              "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-02T03:04:05", "finished", "running",
              "failed", "exit", "complete", "a 'b", "events", "/a", "9" * 5_000 + "h", "busybox"]  # fmt: skip
_ODD_NUMBERS = [0, -1, 1, 255, 2**31, 2**63, 2**64, 10**30, 10**400, -(10**30), 1.5, 1e308]
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.sampled_from(_ODD_NUMBERS), st.sampled_from(_ODD_TEXTS), st.text(max_size=8)
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_ODD_TEXTS), inner, max_size=3),
    max_leaves=6,
)


def _documents(**likely: Any) -> st.SearchStrategy[Any]:
    """Objects with these members, each as it should be, missing, or anything."""
    return st.fixed_dictionaries({}, optional={name: st.just(value) | _VALUES for name, value in likely.items()})


_OUTCOMES = _documents(
    status="finished", reason="exit", message="m", finished_at="2026-01-02T03:04:05Z", exit_code=0,
    started_at="2026-01-02T03:04:05Z", trace={"state": "lossy", "seen": 2, "lost": {"ring_full": 1}},
)  # fmt: skip
_ORDERS = _documents(image="busybox", command=["true"], ttl=10**9, init=False, trace={"mode": "events"})
_BODIES = _documents(
    image="busybox", ttl="1s", command="true", init=True, labels={"a": "b"}, status="stopped",
    trace={"mode": "events", "paths": ["/a"], "classes": ["data"], "max_size": "1MiB"},
)  # fmt: skip
_MANIFESTS = _documents(session_id="x", files=[{"filename": "f", "size": 1, "sha256": "0"}], trace={"state": "lossy"})
_PAYLOADS = (_OUTCOMES | _ORDERS | _documents(message="m")).map(lambda value: b64encode(json.dumps(value).encode()))
_PACKETS = _documents(
    headers={"sender": "n", "protocol": "2", "seq": "1", "wait": "1s", "slots": "2"}, events=[]
) | st.builds(
    lambda headers, events: {"headers": headers, "events": events},
    _documents(sender="n", protocol="2", boot="b", full="true", slots="1", wait="1s", seen="0", seq="1"),
    st.lists(
        st.builds(
            lambda headers, payload: {"headers": headers, "payload": payload},
            _documents(event_type="session_end", session_id="01a20a5a-f1dc-771c-a61f-2efdc4734108"),
            _PAYLOADS.map(bytes.decode) | _VALUES,
        ),
        max_size=2,
    ),
)
_UPLOADS = st.lists(
    st.sampled_from(
        [b"multipart/form-data; boundary=b", b"\n", b"--b", b"\r\n", b"--b--\r\n", b"Content-Disposition: form-data",
         b'; name="f"', b'; filename="a"', b"; filename*=utf-8''%ff", b": ", b"\xff", b"x" * 5_000, b";", b'"', b"="]
    ),
    max_size=14,
).map(b"".join)  # fmt: skip


_DAMAGES = [b"", b"\xff", b'"', b"{", b"[", b"\\ud800", b"1e999"]


@st.composite
def _damaged(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> bytes:
    """A document as JSON, of which a few bytes may have become others."""
    data = bytearray(json.dumps(draw(documents), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.sampled_from(_DAMAGES))
    return bytes(data)


@_LAX
@given(_damaged(_PACKETS) | st.binary())
@example(b'{"headers":{"sender":"n","protocol":"2","wait":"' + b"9" * 1_000_000 + b'h"}}')
@example(b'{"headers":{"n":1000000000000000000000000000000}}')
@example(b'{"x":' + b"[" * 100_000)
@example(b'{"headers":{"x":' + b"[" * 990 + b"]" * 990 + b"}}")
def test_a_packet_is_read_or_refused(data: bytes) -> None:
    ENTRIES["packet"](data)


@_LAX
@given(_damaged(_OUTCOMES | _ORDERS | _documents(message="m", started_at="2026-01-02T03:04:05Z")) | st.binary())
@example(b'{"message":"\xff"}')
@example(b'{"message":' + b"[" * 100_000)
@example(b'{"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
def test_a_payload_is_read_or_refused(data: bytes) -> None:
    ENTRIES["payload"](data)


@_LAX
@given(_damaged(_BODIES) | st.binary())
@example(b'{"image":"a","ttl":"' + b"9" * 500_000 + b'h"}')
@example(b'{"image":"a","ttl":"1s","trace":{"max_size":1' + b"0" * 400 + b"}}")
def test_a_body_is_read_or_refused(data: bytes) -> None:
    ENTRIES["body"](data)


@_LAX
@given(_damaged(_MANIFESTS) | st.binary())
@example(b'{"session_id":"\xff"}')
@example(b"[" * 100_000)
def test_a_manifest_is_read_or_refused(data: bytes) -> None:
    ENTRIES["manifest"](data)


@_LAX
@given(st.binary() | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"0" * 10 + b"9" * 10_000)
@example(b"9" * 100_000 + b"h")
def test_a_word_of_a_url_or_a_header_is_read_or_refused(data: bytes) -> None:
    ENTRIES["text"](data)


@_LAX
@given(_UPLOADS | st.binary())
@example(b"multipart/form-data; boundary=" + b"b" * 1_000 + b"\n")
def test_an_upload_is_read_or_refused(data: bytes) -> None:
    ENTRIES["upload"](data)


_OUTCOME = {"status": "finished", "reason": "exit", "message": "m", "finished_at": "2026-01-02T03:04:05Z"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("exit_code", 10**30),
        ("exit_code", 2**31),
        ("finished_at", "2026-01-02T03:04:05+23:59"),
        ("finished_at", "2026-01-02T03:04:05"),
        ("started_at", "0001-01-01T00:00:00+23:59"),
        ("trace", {"state": "complete", "seen": -1}),
        ("trace", {"state": "complete", "events": 10**30}),
        ("trace", {"state": "lossy", "lost": {"x": 2**64}}),
        ("trace", {"state": "lossy", "lost": {str(number): 1 for number in range(101)}}),
        ("trace", {"state": "lossy", "unsupported": ["x" * 101]}),
    ],
)
def test_an_end_that_can_not_be_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    event = Event("session_end", "", json.dumps({**_OUTCOME, field: value}).encode())
    with pytest.raises(PacketError, match=field):
        decode_payload(event, Outcome)
    assert decode_payload(Event("session_end", "", json.dumps(_OUTCOME).encode()), Outcome).message == "m"


@pytest.mark.parametrize("ttl", [-1, 2**63, 10**30])
def test_a_ttl_that_no_clock_holds_is_refused(ttl: int) -> None:
    order = json.dumps({"image": "a", "command": [], "ttl": ttl}).encode()
    with pytest.raises(PacketError, match="ttl"):
        decode_payload(Event("session_start", "", order), StartOrder)


def test_a_packet_of_many_small_values_is_refused_before_they_are_made() -> None:
    with pytest.raises(PacketError, match="values"):
        decode_packet(b'{"events":[' + b"{}," * 5_000_000 + b"{}]}")


def test_a_refusal_does_not_repeat_what_it_refuses() -> None:
    for data in (b'{"' + b"x" * 500_000 + b'":1}', b'{"image":"a","ttl":"1s","init":"' + b"x" * 500_000 + b'"}'):
        with pytest.raises(InvalidInput) as refusal:
            requests.parse_body(data, requests.CreateRequest)
        assert len(str(refusal.value)) < 1_000
    with pytest.raises(MalformedJson, match="nested"):
        decode_json(b"[" * 100_000, list, max_bytes=1 << 20)
    assert shortened("x" * 1_000) == "x" * 197 + "..."


def _cost(function: Callable[[str], object], text: str) -> float:
    """Seconds of this process, the best of three."""
    found = []
    for _ in range(3):
        began = time.process_time()
        with contextlib.suppress(InvalidInput):
            function(text)
        found.append(time.process_time() - began)
    return min(found)


@pytest.mark.parametrize(
    "make",
    [
        lambda size: "a" * size,
        lambda size: "a " * (size // 2),
        lambda size: "'" + "a" * size,
        lambda size: '"' + '\\"' * (size // 2),
        lambda size: "\\a" * (size // 2),
        lambda size: "''" * (size // 2),
    ],
)
def test_splitting_a_command_costs_what_its_length_does(make: Callable[[int], str]) -> None:
    small, large = 8_000, 128_000
    # Sixteen times as much; the square would be 256.
    assert _cost(requests.split_command, make(large)) < 60 * max(_cost(requests.split_command, make(small)), 1e-4)


@given(st.text(alphabet="ab \t\n\r'\"\\\u00e9#", max_size=14))
def test_a_command_is_split_as_the_standard_library_does_it(text: str) -> None:
    try:
        expected = shlex.split(text)
    except ValueError:
        with pytest.raises(InvalidInput, match="command"):
            requests.split_command(text)
    else:
        assert requests.split_command(text) == expected


@pytest.mark.parametrize("text", ["9" * 40_000 + "h", "1h" * 51, "." + "0" * 1_000_000 + "1s", "9" * 1_000_000])
def test_a_duration_is_refused_by_its_length_before_it_is_read(text: str) -> None:
    with pytest.raises(InvalidInput, match="longer than 100 characters") as refusal:
        parse_duration(text)
    assert len(str(refusal.value)) < 300
