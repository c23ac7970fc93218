"""ZMQ sockets for Trio, each in a thread of its own.

A ZMQ socket is not safe for threads, and Trio can't wait for one. So one thread creates, uses and closes it. What it
receives crosses to Trio in batches (a hop between threads costs a hundred times what a message does); what Trio sends
goes through a queue and wakes the thread with one eventfd, however many messages there are. When Trio falls behind, the
thread stops reading, and ZMQ's own high-water marks push back on the peers.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import trio
import zmq
from zmq.utils.monitor import recv_monitor_message

from bedrock.errors import BedrockError

_BATCH = 1000
_MAX_MESSAGE_BYTES = 16 << 20
_HIGH_WATER_MARK = 10_000
_LINGER_MS = 500
_HEARTBEAT_MS = 5_000
_RECONNECT_MS, _RECONNECT_MAX_MS = 50, 1_000

_Socket = zmq.Socket[bytes]


class SocketError(BedrockError):
    """A socket could not be opened; the text names its endpoint."""


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Messages since the socket was opened. ``dropped``: to peers that were gone or did not read."""

    received: int
    sent: int
    dropped: int


class _ThreadedSocket:
    """One socket, its thread, and the two queues between that thread and Trio."""

    def __init__(self, make: Callable[[zmq.Context[_Socket]], _Socket]) -> None:
        self._make = make
        self._token = trio.lowlevel.current_trio_token()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake_lock = threading.Lock()
        self._wake_pending = False
        self._stopping = False
        self._outgoing: deque[list[bytes]] = deque()
        self._incoming: deque[list[bytes]] = deque()
        self._unconsumed = 0  # counted by the thread when it delivers, by Trio when it takes
        self._arrived = trio.Event()
        self._opened = trio.Event()
        self._endpoint = ""
        self._received = self._sent = self._dropped = 0

    @property
    def endpoint(self) -> str:
        """The real endpoint, also where the system was left to choose the port."""
        return self._endpoint

    def statistics(self) -> Statistics:
        return Statistics(received=self._received, sent=self._sent, dropped=self._dropped)

    # -- Trio's side

    async def _receive(self) -> list[list[bytes]]:
        await trio.lowlevel.checkpoint()
        while not self._incoming:
            self._arrived = trio.Event()
            await self._arrived.wait()
        batch = [self._incoming.popleft() for _ in range(min(_BATCH, len(self._incoming)))]
        was_full = self._unconsumed >= _HIGH_WATER_MARK
        self._unconsumed -= len(batch)
        if was_full:
            self._wake()  # the thread may read again
        return batch

    def _enqueue(self, message: list[bytes]) -> None:
        self._outgoing.append(message)
        self._wake()

    def _wake(self) -> None:
        with self._wake_lock:
            if self._wake_pending:
                return
            self._wake_pending = True
        os.eventfd_write(self._wake_fd, 1)

    def _deliver(self, batch: list[list[bytes]]) -> None:
        self._incoming.extend(batch)
        self._received += len(batch)
        self._arrived.set()

    def _set_opened(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._opened.set()

    def _set_connected(self, is_connected: bool) -> None:
        """A dealer's link came up or went down; a router does not ask."""

    # -- the thread

    def _own(self) -> None:
        context: zmq.Context[_Socket] = zmq.Context()
        try:
            socket = self._make(context)
            try:
                monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
                try:
                    self._tell(self._set_opened, socket.getsockopt_string(zmq.LAST_ENDPOINT))
                    self._loop(socket, monitor)
                finally:
                    socket.disable_monitor()
                    monitor.close(0)
            finally:
                socket.close(_LINGER_MS)
        finally:
            context.term()

    def _loop(self, socket: _Socket, monitor: _Socket) -> None:
        poller = zmq.Poller()
        poller.register(self._wake_fd, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        poller.register(socket, zmq.POLLIN)
        reads = True
        while True:
            if (self._unconsumed < _HIGH_WATER_MARK) is not reads:
                reads = not reads
                poller.modify(socket, zmq.POLLIN if reads else 0)
            ready = dict(poller.poll())
            if self._wake_fd in ready:
                with self._wake_lock:
                    self._wake_pending = False
                os.eventfd_read(self._wake_fd)
            if monitor in ready:
                event = recv_monitor_message(monitor)["event"]
                self._tell(self._set_connected, event == zmq.EVENT_HANDSHAKE_SUCCEEDED)
            self._flush(socket)
            if self._stopping:
                return
            if reads and socket in ready:
                batch = self._drain(socket)
                self._unconsumed += len(batch)
                self._tell(self._deliver, batch)

    def _drain(self, socket: _Socket) -> list[list[bytes]]:
        batch: list[list[bytes]] = []
        while len(batch) < _BATCH:
            try:
                batch.append(socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
        return batch

    def _flush(self, socket: _Socket) -> None:
        while self._outgoing:
            message = self._outgoing.popleft()
            try:
                socket.send_multipart(message, zmq.NOBLOCK)
                self._sent += 1
            except zmq.ZMQError as error:
                # The peer is gone, or does not read: with this protocol it will ask again.
                if error.errno not in {zmq.EAGAIN, zmq.EHOSTUNREACH}:
                    raise
                self._dropped += 1

    def _tell(self, function: Callable[..., None], *args: object) -> None:
        self._token.run_sync_soon(function, *args)


class RouterSocket(_ThreadedSocket):
    """The server's side: many peers, each known by its identity. Made by :func:`open_router`."""

    async def receive_batch(self) -> list[tuple[bytes, list[bytes]]]:
        """Wait for at least one message; return all that are there as (identity, frames), each peer's in order."""
        return [(message[0], message[1:]) for message in await self._receive()]

    def send(self, identity: bytes, frames: list[bytes]) -> None:
        """Send to one peer. To one that is gone, or that does not read, the message is dropped and counted."""
        self._enqueue([identity, *frames])


class DealerSocket(_ThreadedSocket):
    """The client's side: one peer, which may come and go. Made by :func:`open_dealer`."""

    def __init__(self, make: Callable[[zmq.Context[_Socket]], _Socket]) -> None:
        super().__init__(make)
        self._connected = trio.Event()
        self._disconnected = trio.Event()
        self._disconnected.set()

    async def receive_batch(self) -> list[list[bytes]]:
        """Wait for at least one message; return all that are there, in order."""
        return await self._receive()

    def send(self, frames: list[bytes]) -> None:
        """Send to the peer. While there is none the message is dropped and counted: it would be old when it came."""
        self._enqueue(frames)

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        """Return when the peer is there; at once when it is."""
        await self._connected.wait()

    async def wait_disconnected(self) -> None:
        """Return when the peer is not there; at once when it isn't."""
        await self._disconnected.wait()

    def _set_connected(self, is_connected: bool) -> None:
        if is_connected:
            self._disconnected = trio.Event()
            self._connected.set()
        else:
            self._connected = trio.Event()
            self._disconnected.set()


def _set_common_options(socket: _Socket) -> None:
    """What both kinds share. Encryption and authentication (CURVE) belong here when they come."""
    socket.linger = _LINGER_MS
    socket.sndhwm = _HIGH_WATER_MARK
    socket.rcvhwm = _HIGH_WATER_MARK
    socket.maxmsgsize = _MAX_MESSAGE_BYTES
    # Of the network only: libzmq's own thread answers, whatever state the process is in.
    socket.heartbeat_ivl = _HEARTBEAT_MS
    socket.heartbeat_timeout = 2 * _HEARTBEAT_MS
    socket.heartbeat_ttl = 3 * _HEARTBEAT_MS


@asynccontextmanager
async def _running(socket: _ThreadedSocket, name: str) -> AsyncIterator[None]:
    # One thread for as long as the socket lives: not one of those that everybody shares.
    own_limiter = trio.CapacityLimiter(1)

    async def own() -> None:
        try:
            # The thread is never abandoned, since it holds the socket; it is told to stop and then waited for.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(socket._own, thread_name=name, limiter=own_limiter)
        finally:
            os.close(socket._wake_fd)

    def stop() -> None:
        socket._stopping = True
        socket._wake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(own)
        try:
            await socket._opened.wait()
            yield
        finally:
            stop()


@asynccontextmanager
async def open_router(endpoint: str) -> AsyncIterator[RouterSocket]:
    """Bind a ROUTER to ``endpoint`` (``tcp://127.0.0.1:8081``; port ``*`` or 0: any), until the context is left.

    Raises :class:`SocketError` when the endpoint can't be had.
    """

    def make(context: zmq.Context[_Socket]) -> _Socket:
        socket: _Socket = context.socket(zmq.ROUTER)
        _set_common_options(socket)
        # Without the first a message for a peer that is gone, or slow, disappears without a word; without the second a
        # node that comes back under its name would never be heard.
        socket.router_mandatory = True
        socket.router_handover = True
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            socket.close(0)
            raise SocketError(f"{endpoint} can't be listened on: {error.strerror}") from None
        return socket

    socket = RouterSocket(make)
    async with _unwrapped(), _running(socket, f"zmq {endpoint}"):
        yield socket


@asynccontextmanager
async def open_dealer(endpoint: str, *, identity: bytes) -> AsyncIterator[DealerSocket]:
    """Connect a DEALER to ``endpoint`` under ``identity``, and again whenever the link breaks, until the context is left.

    Raises :class:`SocketError` when the endpoint makes no sense; that nobody listens there yet is no error.
    """

    def make(context: zmq.Context[_Socket]) -> _Socket:
        socket: _Socket = context.socket(zmq.DEALER)
        _set_common_options(socket)
        socket.identity = identity
        socket.immediate = True
        socket.reconnect_ivl = _RECONNECT_MS
        socket.reconnect_ivl_max = _RECONNECT_MAX_MS
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            socket.close(0)
            raise SocketError(f"{endpoint} can't be connected to: {error.strerror}") from None
        return socket

    socket = DealerSocket(make)
    async with _unwrapped(), _running(socket, f"zmq {endpoint}"):
        yield socket


@asynccontextmanager
async def _unwrapped() -> AsyncIterator[None]:
    """Let a socket that could not be opened be caught as what it is, not as a group of one."""
    try:
        yield
    except BaseExceptionGroup as group:
        failed, rest = group.split(SocketError)
        if failed is not None and rest is None and len(failed.exceptions) == 1:
            error = failed.exceptions[0]
            if isinstance(error, SocketError):
                raise error from None
        raise
