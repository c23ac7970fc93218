"""A node as the API sees one: a real DEALER socket that speaks the protocol byte by byte."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from bedrock.concurrency.sockets import DealerSocket, open_dealer


class Node:
    """Polls only when it is told to. ``poll`` is without headers of ours, ``own_poll`` with them."""

    def __init__(self, socket: DealerSocket, name: str) -> None:
        self.socket = socket
        self.name = name
        self._sequence = 0

    async def raw(self, data: bytes) -> bytes:
        with trio.fail_after(10):
            await self.socket.wait_connected()
            self.socket.send([data])
            return (await self.socket.receive_batch())[0][-1]

    async def poll(self, *events: tuple[str, str, bytes], **headers: str) -> Any:
        packet = {
            "headers": {"sender": self.name, **headers},
            "events": [
                {"headers": {"event_type": kind, "session_id": session}, "payload": b64encode(payload).decode()}
                for kind, session, payload in events
            ],
        }
        return json.loads(await self.raw(json.dumps(packet).encode()))

    async def own_poll(self, *events: tuple[str, str, bytes], **headers: str) -> Any:
        self._sequence += 1
        return await self.poll(*events, protocol="2", seq=str(self._sequence), slots="2", boot="b", **headers)


@asynccontextmanager
async def open_node(endpoint: str, name: str) -> AsyncIterator[Node]:
    """Connect a node of this name to the API's socket at ``endpoint``."""
    async with open_dealer(endpoint, identity=name.encode()) as socket:
        yield Node(socket, name)
