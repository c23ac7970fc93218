"""A way to the engine that can be cut."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

_DEFAULT = "unix:///var/run/docker.sock"


class EngineProxy:
    """Passes connections on to the real engine. Made by :func:`open_engine_proxy`."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self._scopes: set[trio.CancelScope] = set()

    def cut(self) -> None:
        """End every connection that is there now."""
        for scope in self._scopes:
            scope.cancel()

    async def _serve(self, client: trio.SocketStream) -> None:
        engine = await trio.open_unix_socket(os.environ.get("DOCKER_HOST", _DEFAULT).removeprefix("unix://"))
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            async with client, engine, trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, client, engine)
                nursery.start_soon(self._pump, engine, client)
        self._scopes.discard(scope)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_engine_proxy(path: Path) -> AsyncIterator[EngineProxy]:
    """Pass connections to ``path`` on until the context is left."""
    proxy = EngineProxy(path)
    with trio.socket.socket(trio.socket.AF_UNIX) as listener:
        await listener.bind(str(path))
        listener.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, proxy._serve, [trio.SocketListener(listener)])
            yield proxy
            nursery.cancel_scope.cancel()
