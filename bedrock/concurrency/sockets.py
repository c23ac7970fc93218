"""ZMQ sockets for Trio, each in a thread of its own.

A ZMQ socket is not safe for threads, and Trio can't wait for one. So one thread creates, uses and closes it. What it
receives crosses to Trio in batches (a hop between threads costs a hundred times what a message does); what Trio sends
goes through a queue and wakes the thread with one eventfd, however many messages there are. When Trio falls behind, the
thread stops reading, and ZMQ's own high-water marks push back on the peers.
"""

from __future__ import annotations

import errno
import math
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

import msgspec
import trio
import zmq
from zmq.utils.monitor import recv_monitor_message

from bedrock.concurrency.nursery import open_hidden_nursery
from bedrock.errors import BedrockError

# Messages that cross to Trio in one hop.
_BATCH = 1_000
# What Trio may have left to take before the thread stops reading, and what a message takes beside its bytes (the lists
# and objects that hold it).
_BACKLOG_BYTES = 32 << 20
_MESSAGE_OVERHEAD_BYTES = 512
# Of each peer. The one for sending is the larger, since what does not fit is dropped and a burst should not be.
_SEND_HIGH_WATER_MARK = 10_000
_RECEIVE_HIGH_WATER_MARK = 1_000
_MAX_FRAME_BYTES = 16 << 20
# How long the last messages may take to leave when the socket is closed.
_LINGER_MS = 500
_HEARTBEAT_MS = 5_000
# Without it a connection attempt to a host that is switched off lasts minutes, and so does noticing that it is back.
_CONNECT_TIMEOUT_MS = 5_000
_RECONNECT_MS, _RECONNECT_MAX_MS = 50, 1_000

_REMEDIES = {
    errno.EADDRINUSE: "another process listens there: end it, or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.ENODEV: "an address or the name of a network interface of this machine is needed, not a host name",
    errno.EINVAL: "an endpoint looks like tcp://127.0.0.1:8081",
    errno.EPROTONOSUPPORT: "an endpoint looks like tcp://127.0.0.1:8081",
    errno.EACCES: "ports below 1024 are for root",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}

_Socket = zmq.Socket[bytes]
_Message = list[bytes]


class SocketError(BedrockError):
    """A socket could not be opened. ``endpoint`` is the one that was asked for, ``errno`` ZMQ's reason."""

    def __init__(self, endpoint: str, cause: zmq.ZMQError) -> None:
        number = cause.errno or 0
        remedy = f"; {_REMEDIES[number]}" if number in _REMEDIES else ""
        super().__init__(f"{endpoint} can't be used: {zmq.strerror(number)}{remedy}")
        self.endpoint = endpoint
        self.errno = number


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Messages since the socket was opened. ``dropped``: to peers that were gone or did not read."""

    received: int
    sent: int
    dropped: int


class _Batch(NamedTuple):
    messages: list[_Message]
    size_bytes: int


class _ThreadedSocket:
    """One socket, its thread, and the two queues between that thread and Trio.

    No lock is needed, because each attribute has one writer and the order of writing and looking is chosen with care
    in the two places where both sides look at the same thing: the wake-up, and the backlog.
    """

    def __init__(self, kind: int, endpoint: str, prepare: Callable[[_Socket], None], *, backlog_bytes: int) -> None:
        self.endpoint = endpoint
        """Where the socket is; once it is open, with the port that the system chose where it was left the choice."""
        self._kind = kind
        self._prepare = prepare
        self._backlog_bytes = backlog_bytes
        self._token = trio.lowlevel.current_trio_token()
        self._wake_fd = -1
        self._wake_pending = True  # until there is somebody to be woken
        self._stopping = False
        self._outgoing: deque[_Message] = deque()
        # Unbounded here, since the thread sees to it that not too much is in it.
        self._inbox_in, self._inbox = trio.open_memory_channel[_Batch](math.inf)
        self._is_paused = False
        self._delivered_bytes = 0
        self._taken_bytes = 0
        self._received = self._sent = self._dropped = 0

    def statistics(self) -> Statistics:
        return Statistics(received=self._received, sent=self._sent, dropped=self._dropped)

    # -- Trio's side

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Have the socket, from ``started`` until cancelled. Raises :class:`SocketError` when it can't be had."""
        # One thread for as long as the socket lives: not one of those that everybody shares.
        own_limiter = trio.CapacityLimiter(1)
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake_pending = False
        try:
            async with open_hidden_nursery() as nursery:
                nursery.start_soon(self._stop_when_cancelled)
                # The thread is never abandoned, since it holds the socket: it is told to stop, and then waited for.
                await trio.to_thread.run_sync(
                    self._own, task_status.started, thread_name=f"zmq {self.endpoint}", limiter=own_limiter
                )
                nursery.cancel_scope.cancel()
        finally:
            self._wake_pending = True  # nobody may write to a descriptor that is somebody else's by now
            os.close(self._wake_fd)
            self._inbox_in.close()

    async def _stop_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._stopping = True
            self._wake()

    async def _receive(self) -> list[_Message]:
        batch = await self._inbox.receive()
        self._taken_bytes += batch.size_bytes
        if self._is_paused:
            self._wake()
        return batch.messages

    def _enqueue(self, message: _Message) -> None:
        self._outgoing.append(message)
        self._wake()

    def _wake(self) -> None:
        if not self._wake_pending:
            self._wake_pending = True
            os.eventfd_write(self._wake_fd, 1)

    def _deliver(self, batch: _Batch) -> None:
        self._received += len(batch.messages)
        self._inbox_in.send_nowait(batch)

    # -- the thread

    def _own(self, opened: Callable[[], None]) -> None:
        try:
            context: zmq.Context[_Socket] = zmq.Context()
        except zmq.ZMQError as error:
            raise SocketError(self.endpoint, error) from None
        try:
            socket = self._open(context)
            try:
                self.endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
                self._tell(opened)
                self._loop(socket)
            finally:
                socket.close(_LINGER_MS)
        finally:
            context.term()

    def _open(self, context: zmq.Context[_Socket]) -> _Socket:
        try:
            socket: _Socket = context.socket(self._kind)
            try:
                _set_common_options(socket, self.endpoint)
                self._prepare(socket)
            except BaseException:
                socket.close(0)
                raise
        except zmq.ZMQError as error:
            raise SocketError(self.endpoint, error) from None
        return socket

    def _loop(self, socket: _Socket) -> None:
        poller = zmq.Poller()
        poller.register(self._wake_fd, zmq.POLLIN)
        while not self._stopping:
            poller.register(socket, zmq.POLLIN if self._may_read() else 0)
            ready = dict(poller.poll())
            if self._wake_fd in ready:
                # In this order: a wake-up that is asked for in between is left out, but what it was for is seen below.
                os.eventfd_read(self._wake_fd)
                self._wake_pending = False
            self._flush(socket)
            if socket in ready:
                self._read(socket)
        self._flush(socket)

    def _may_read(self) -> bool:
        # Said before looking, so that Trio, which takes first and looks then, can't miss that it has to wake us.
        self._is_paused = True
        self._is_paused = self._room_bytes() <= 0
        return not self._is_paused

    def _room_bytes(self) -> int:
        return self._backlog_bytes - (self._delivered_bytes - self._taken_bytes)

    def _read(self, socket: _Socket) -> None:
        messages: list[_Message] = []
        size_bytes, room_bytes = 0, self._room_bytes()
        while len(messages) < _BATCH and size_bytes < room_bytes:
            try:
                message = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            messages.append(message)
            size_bytes += sum(map(len, message)) + _MESSAGE_OVERHEAD_BYTES
        if messages:
            self._delivered_bytes += size_bytes
            self._tell(self._deliver, _Batch(messages, size_bytes))

    def _flush(self, socket: _Socket) -> None:
        if self._outgoing:
            # Sending itself looks only now and then whether a peer has come or has made room; this makes it look now.
            socket.getsockopt(zmq.EVENTS)
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
        """Wait for messages; return those that have come as (identity, frames), each peer's in order.

        Cancelled, it has taken none. Raises :class:`trio.EndOfChannel` when the socket is gone.
        """
        return [(message[0], message[1:]) for message in await self._receive()]

    def send(self, identity: bytes, frames: list[bytes]) -> None:
        """Send to one peer. To one that is gone, or that does not read, the message is dropped and counted."""
        self._enqueue([identity, *frames])


class DealerSocket(_ThreadedSocket):
    """The client's side: one peer, which may come and go. Made by :func:`open_dealer`."""

    def __init__(self, kind: int, endpoint: str, prepare: Callable[[_Socket], None], *, backlog_bytes: int) -> None:
        super().__init__(kind, endpoint, prepare, backlog_bytes=backlog_bytes)
        self._connected = trio.Event()
        self._disconnected = trio.Event()
        self._disconnected.set()

    async def receive_batch(self) -> list[list[bytes]]:
        """Wait for messages; return those that have come, in order.

        Cancelled, it has taken none. Raises :class:`trio.EndOfChannel` when the socket is gone.
        """
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
