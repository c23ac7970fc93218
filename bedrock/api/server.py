"""The HTTP server: hypercorn's HTTP/1.1 on Trio, hardened so that no client can do more than waste its own connection.

Hypercorn 0.18 as it comes lets one client end the whole process (a websocket upgrade with a byte behind it), hold a
connection for ever (most ways of closing one are cancelled half-way under Quart-Trio) and hang the shutdown (by not
reading). Each override below names the one it is for; ``tests/unit/api/test_server.py`` has a client for each. Only
what we serve is left on: HTTP/1.0 and 1.1 in clear text, no upgrades. TLS belongs to a proxy in front.
"""

from __future__ import annotations

import logging
import socket as stdlib_socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import h11
import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from hypercorn.utils import parse_socket_addr

from bedrock.concurrency.groups import members
from bedrock.concurrency.service_nursery import open_service_nursery
from bedrock.errors import BedrockError

log = structlog.get_logger(__name__)

_BACKLOG = 1024
_MAX_HEADERS = 100
_MAX_HEADER_BYTES = 32 << 10
_IDLE_S = 30.0
_WRITE_S = 60.0  # for one chunk, so this is the slowest reader that is served
_LINGER_S = 1.0
_CLOSE_S = 5.0  # closing a connection, or restarting its idle timer, which wait for nothing but other tasks of ours
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Type: application/problem+json\r\nContent-Length: 93\r\n\r\n"
    b'{"title":"Service Unavailable","status":503,"detail":"too many connections; try again later"}'
)


class ServerError(BedrockError):
    """The server can't listen where it was told to."""


class _Protocol(H11Protocol):
    """HTTP/1.1 without the ways out of it, and stricter with what it takes."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """No HTTP/2: neither the h2c upgrade nor prior knowledge can be switched off in hypercorn's settings."""

    async def _create_stream(self, request: h11.Request) -> None:
        status = _refusal(request)
        if status is not None:
            await self._send_error_response(status)
            await self.send(Closed())
            return
        # Without the header there is no websocket, so none of the ways in which one can bring the server down.
        headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
        plain = h11.Request(
            method=request.method, target=request.target, headers=headers, http_version=request.http_version
        )
        await super()._create_stream(plain)


def _refusal(request: h11.Request) -> int | None:
    """The status with which a request is refused before the application sees it."""
    names = [name for name, _ in request.headers]
    if len(names) > _MAX_HEADERS or sum(len(name) + len(value) for name, value in request.headers) > _MAX_HEADER_BYTES:
        return 431
    if request.http_version not in {b"1.0", b"1.1"}:
        return 505
    # Both lengths at once is how requests are smuggled past a proxy that goes by the other one (RFC 9112, 6.1).
    if b"content-length" in names and b"transfer-encoding" in names:
        return 400
    # CONNECT, absolute and empty targets are for proxies; the application would stumble over them.
    if not request.target.startswith(b"/"):
        return 400
    return None


class _Connection(TCPServer):
    """One connection, which ends whatever its client does, and ends alone."""

    def __init__(self, server: HttpServer, stream: trio.SocketStream) -> None:
        # Hypercorn's annotation knows TLS only; its code serves plain streams as well.
        super().__init__(server.app, server.config, server.context, ConnectionState({}), cast("Any", stream))
        self._reader_scope = trio.CancelScope()
        self._is_closing = False
        self._is_over = False

    async def run(self) -> None:
        try:
            client = parse_socket_addr(self.stream.socket.family, self.stream.socket.getpeername())
            address = parse_socket_addr(self.stream.socket.family, self.stream.socket.getsockname())
            async with TaskGroup() as task_group:
                self._task_group = task_group
                state = ConnectionState({})
                # In the place of hypercorn's wrapper, which would switch to HTTP/2.
                self.protocol = cast("Any", _Protocol)(
                    self.app, self.config, self.context, task_group, state, False, client, address, self.protocol_send
                )
                await self.protocol.initiate()
                await self.idle_task.restart(task_group, self._idle_timeout)
                await self._read_data()
                # Hypercorn lets the timer of an idle connection run on, and the connection stays open until it ends.
                self._is_over = True
                await self.idle_task.stop()
        except OSError:
            return  # the client has gone
        except Exception as error:
            # One connection's failure must not go through the server's nursery and take the process with it.
            if not _is_broken_link(error):
                log.warning("connection failed", error=repr(error))
        finally:
            await trio.aclose_forcefully(self.stream)

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            if event.data:
                await self._write(event.data)
            return
        if isinstance(event, Updated) and self._is_over:
            return
        # Quart-Trio cancels the task that is just closing the connection or restarting the idle timer, as soon as the
        # response is complete; shielded, both come to their end.
        with trio.move_on_after(_CLOSE_S, shield=True):
            await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        async with self.send_lock:
            try:
                # Hypercorn shields this without a limit: a client that does not read would hold the shutdown.
                with trio.fail_after(_WRITE_S, shield=True):
                    await self.stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                await trio.aclose_forcefully(self.stream)
                await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        with self._reader_scope:
            while True:
                try:
                    data = await self.stream.receive_some(MAX_RECV)
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    break
                if data and await self._has_left():
                    break
                if not self._is_closing:
                    await self.protocol.handle(RawData(bytes(data)))
                if not data:
                    break
        await self.protocol.handle(Closed())

    async def _has_left(self) -> bool:
        """Whether the client has closed its side behind what was read last: whoever does so waits for no answer."""
        raw = self.stream.socket
        return raw.is_readable() and not await raw.recv(1, stdlib_socket.MSG_PEEK)

    async def _close(self) -> None:
        """Say that no more will come, and leave the client a moment to read it.

        Closing at once on a client that is still sending makes its kernel throw away our last words, such as why its
        upload is refused.
        """
        if self._is_closing:
            return
        self._is_closing = True
        try:
            await self.stream.send_eof()
        except (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(self.stream)
        self._reader_scope.deadline = trio.current_time() + _LINGER_S


def _is_broken_link(error: BaseException) -> bool:
    kinds = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
    return all(isinstance(member, kinds) for member in members(error))


class HttpServer:
    """A listening server. Made by :func:`open_http_server`. ``url`` is where it can be reached."""

    def __init__(self, app: ASGIFramework, url: str, max_connections: int) -> None:
        self.app = ASGIWrapper(app)
        self.url = url
        self.context = WorkerContext(None)
        self.config = Config()
        self.config.include_server_header = False
        self.config.keep_alive_timeout = _IDLE_S
        self.config.h11_max_incomplete_size = _MAX_HEADER_BYTES
        self.config.accesslog = None
        # Its complaints (an application that raised, say) go where everything else goes.
        self.config.errorlog = logging.getLogger("hypercorn.error")
        self._max_connections = max_connections
        self._open: set[trio.SocketStream] = set()
        self._became_idle = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end; never raises for what the client does."""
        self._open.add(stream)
        try:
            if len(self._open) > self._max_connections:
                log.warning("connection turned away", limit=self._max_connections)
                with trio.move_on_after(_LINGER_S):
                    await stream.send_all(_BUSY)
                return
            await _Connection(self, stream).run()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            self._open.discard(stream)
            if not self._open:
                self._became_idle.set()
            await trio.aclose_forcefully(stream)

    async def wait_idle(self) -> None:
        """Return when no connection is open."""
        while self._open:
            self._became_idle = trio.Event()
            await self._became_idle.wait()

    def abort(self) -> None:
        """Close every connection: a write is shielded from cancellation, but not from that."""
        for stream in self._open:
            stream.socket.close()


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
    except (OSError, stdlib_socket.gaierror) as error:
        raise ServerError(f"{host}:{port} can't be listened on: {error.strerror or error}") from None


@asynccontextmanager
async def open_http_server(
    app: ASGIFramework,
    *,
    host: str,
    port: int,
    max_connections: int,
    graceful_timeout_s: float,
    stopping: trio.Event | None = None,
) -> AsyncIterator[HttpServer]:
    """Serve ``app`` on ``host:port`` (0: any port) until the context is left.

    Leaving it takes no new connections, sets ``stopping`` (for handlers that wait), gives requests under way
    ``graceful_timeout_s`` seconds, and then ends what is left. While the body is being cancelled requests are served as
    before; when it is done they are ended at once. Raises :class:`ServerError` when it can't listen.
    """
    listeners = await _listen(host, port)
    own_host, own_port = listeners[0].socket.getsockname()[:2]
    shown = f"[{own_host}]" if ":" in own_host else own_host
    server = HttpServer(app, f"http://{shown}:{own_port}", max_connections)
    accept_scope = trio.CancelScope()
    served = trio.Event()

    async def serve() -> None:
        try:
            async with trio.open_nursery() as connections:
                try:
                    with accept_scope:
                        await trio.serve_listeners(server.serve, listeners, handler_nursery=connections)
                    with trio.move_on_after(graceful_timeout_s):
                        await server.wait_idle()
                finally:
                    server.abort()
                    connections.cancel_scope.cancel()
        finally:
            served.set()

    async with open_service_nursery() as services:
        services.start_soon(serve)
        try:
            yield server
        finally:
            accept_scope.cancel()
            if stopping is not None:
                stopping.set()
            await server.context.terminated.set()  # which does not wait for anything
        await served.wait()
