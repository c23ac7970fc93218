"""Sockets to test, and waiting for what only their threads know."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from bedrock.concurrency.sockets import DealerSocket, RouterSocket, open_dealer, open_router

ANY = "tcp://127.0.0.1:0"
LIMIT_S = 30


async def eventually(holds: Callable[[], bool]) -> None:
    """Return when something that only a socket's thread knows has become true."""
    while not holds():
        await trio.sleep(0.002)


async def take(router: RouterSocket, count: int) -> list[tuple[bytes, list[bytes]]]:
    taken: list[tuple[bytes, list[bytes]]] = []
    while len(taken) < count:
        taken.extend(await router.receive_batch())
    return taken


@asynccontextmanager
async def a_pair(**options: int) -> AsyncIterator[tuple[RouterSocket, DealerSocket]]:
    async with open_router(ANY, **options) as router, open_dealer(router.endpoint, identity=b"node") as dealer:
        await dealer.wait_connected()
        yield router, dealer
