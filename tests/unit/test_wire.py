"""The packets' payloads, as bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bedrock.wire import Event, EventType, PacketError, StartOrder, decode_order, encode_payload


def order_of(**fields: Any) -> StartOrder:
    payload = json.dumps({"image": "nginx:stable", "ttl": 10**10, **fields}).encode()
    return decode_order(Event(EventType.START, "s", payload))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["nginx", "-g", "daemon off;"], ["nginx", "-g", "daemon off;"]),
        ("nginx -g 'daemon off;'", ["nginx", "-g", "daemon off;"]),
        ("cat  /etc/passwd", ["cat", "/etc/passwd"]),
        ("", []),
        ([], []),
    ],
)
def test_an_order_s_command_may_be_words_or_one_string(command: str | list[str], words: list[str]) -> None:
    assert order_of(command=command) == StartOrder(image="nginx:stable", command=words, ttl=10**10)


def test_what_an_order_has_beside_the_command_stays() -> None:
    order = StartOrder(image="busybox", command=["true"], ttl=5, init=True, max_output=7)
    assert decode_order(Event(EventType.START, "s", encode_payload(order))) == order


@pytest.mark.parametrize(("command", "reason"), [("a 'b", "can't be split"), (7, "command"), ([7], "command")])
def test_a_command_that_is_neither_is_refused(command: Any, reason: str) -> None:
    with pytest.raises(PacketError, match=reason):
        order_of(command=command)
