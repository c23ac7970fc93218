"""ZMQ sockets for Trio, each in a thread of its own.

A ZMQ socket is not safe for threads, and Trio can't wait for one. So one thread creates, uses and closes it. What it
receives crosses to Trio in batches (a hop between threads costs a hundred times what a message does); what Trio sends
goes through a queue and wakes the thread with one eventfd, however many messages there are. When Trio falls behind, the
thread stops reading, and ZMQ's own high-water marks push back on the peers.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import ClassVar, NamedTuple, TypeVar

import msgspec
import trio
import zmq
from zmq.utils.monitor import recv_monitor_message

from bedrock.concurrency.nursery import open_hidden_nursery
from bedrock.concurrency.socket_error import SocketError
from bedrock.concurrency.socket_options import set_common_options, set_reconnection

# Messages that cross to Trio in one hop.
_BATCH = 1_000
# What Trio may have left to take before the thread stops reading, and what a message takes beside its bytes (the lists
# and objects that hold it).
_BACKLOG_BYTES = 32 << 20
_MESSAGE_OVERHEAD_BYTES = 512
# What Trio may have sent and the thread not yet taken: a bound for the memory, far beyond any burst.
_MAX_OUTGOING = 100_000
# How long the last messages may take to leave when the socket is closed.
_LINGER_MS = 500

_Socket = zmq.Socket[bytes]
_Message = list[bytes]
# Further sockets of the thread, each with what to do when it can be read.
_Aides = dict[_Socket, Callable[[], None]]
_SocketT = TypeVar("_SocketT", bound="_ThreadedSocket")


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Messages since the socket was opened, which can be read after its end, too.

    ``sent``: handed to ZMQ, which still loses them when the link breaks on the way. ``dropped``: to peers that were
    gone or did not read, or left over when the socket failed.
    """

    received: int
    sent: int
    dropped: int


class _Batch(NamedTuple):
    messages: list[_Message]
    size_bytes: int


class _ThreadedSocket(ABC):
    """One socket, its thread, and the two queues between that thread and Trio.

    There is no lock: what one side counts the other only reads, and in the two places where each must not miss what the
    other does, the wake-up and the backlog, the order of writing and looking sees to it.
    """

    _kind: ClassVar[int]

    def __init__(self, endpoint: str, *, backlog_bytes: int) -> None:
        self.endpoint = endpoint
        """Where the socket is; once it is open, with the port that the system chose where it was left the choice."""
        self._backlog_bytes = backlog_bytes
        self._token = trio.lowlevel.current_trio_token()
        self._wake_fd = -1
        self._wake_pending = True  # until there is somebody to be woken
        self._is_closed = False
        self._stopping = False
        self._outgoing: deque[_Message] = deque()
        self._pings: deque[trio.Event] = deque()
        # Unbounded here, since the thread sees to it that not too much is in it.
        self._inbox_in, self._inbox = trio.open_memory_channel[_Batch](math.inf)
        self._is_paused = False
        self._delivered_bytes = 0
        self._taken_bytes = 0
        self._received = self._refused = 0  # by Trio
        self._sent = self._dropped = 0  # by the thread

    def statistics(self) -> Statistics:
        return Statistics(received=self._received, sent=self._sent, dropped=self._dropped + self._refused)

    async def ping(self) -> None:
        """Return when the socket's thread has come round: at once, unless it is stuck.

        Raises :class:`trio.ClosedResourceError` once the socket is being closed.
        """
        self._check_open()
        answered = trio.Event()
        self._pings.append(answered)
        self._wake()
        await answered.wait()

    # -- Trio's side

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Have the socket, from ``started`` until :meth:`_stop`. Raises :class:`SocketError` when it can't be had."""
        # One thread for as long as the socket lives: not one of those that everybody shares.
        own_limiter = trio.CapacityLimiter(1)
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake_pending = False
        try:
            # The thread is never abandoned, since it holds the socket: it is told to stop, and then waited for.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(
                    self._own, task_status.started, thread_name=f"zmq {self.endpoint}", limiter=own_limiter
                )
        finally:
            self._wake_pending = True  # nobody may write to a descriptor that is somebody else's by now
            os.close(self._wake_fd)
            self._is_closed = True
            self._refused += len(self._outgoing)  # the thread has failed and left them
            self._outgoing.clear()

    def _stop(self) -> None:
        """Take nothing more from senders, and let the thread end once it has sent what was taken before."""
        self._is_closed = True
        self._stopping = True
        self._wake()

    def _close(self) -> None:
        """Wake all who wait. Called when the thread is gone."""
        self._inbox.close()

    async def _receive(self) -> list[_Message]:
        batch = await self._inbox.receive()
        self._taken_bytes += batch.size_bytes
        if self._is_paused:
            self._wake()
        return batch.messages

    def _enqueue(self, message: _Message) -> None:
        self._check_open()
        if len(self._outgoing) >= _MAX_OUTGOING:
            self._refused += 1
            return
        self._outgoing.append(message)
        self._wake()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError(f"the socket at {self.endpoint} has been closed")

    def _wake(self) -> None:
        if not self._wake_pending:
            self._wake_pending = True
            os.eventfd_write(self._wake_fd, 1)

    def _deliver(self, batch: _Batch) -> None:
        self._received += len(batch.messages)
        self._inbox_in.send_nowait(batch)

    # -- the thread

    def _own(self, opened: Callable[[], None]) -> None:
        with ExitStack() as stack:
            try:
                context: zmq.Context[_Socket] = zmq.Context()
                stack.callback(context.term)
                socket: _Socket = context.socket(self._kind)
                stack.callback(socket.close, _LINGER_MS)
                set_common_options(socket, self.endpoint)
                aides = self._attach(socket, stack)
            except zmq.ZMQError as error:
                raise SocketError(self.endpoint, error) from None
            self.endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
            self._tell(opened)
            self._loop(socket, aides)

    @abstractmethod
    def _attach(self, socket: _Socket, stack: ExitStack) -> _Aides:
        """Set the options of this kind of socket, and bind or connect it; return what it needs beside it."""

    def _loop(self, socket: _Socket, aides: _Aides) -> None:
        poller = zmq.Poller()
        poller.register(self._wake_fd, zmq.POLLIN)
        for aide in aides:
            poller.register(aide, zmq.POLLIN)
        while not self._stopping:
            poller.register(socket, zmq.POLLIN if self._may_read() else 0)
            ready = dict(poller.poll())
            if self._wake_fd in ready:
                # In this order: a wake-up that is asked for in between is left out, but what it was for is seen below.
                os.eventfd_read(self._wake_fd)
                self._wake_pending = False
            for aide, heed in aides.items():
                if aide in ready:
                    heed()
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
        while self._pings:
            self._tell(self._pings.popleft().set)
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

    _kind = zmq.ROUTER

    async def receive_batch(self) -> list[tuple[bytes, list[bytes]]]:
        """Wait for messages; return those that have come as (identity, frames), each peer's in order.

        Cancelled, it has taken none. Raises :class:`trio.ClosedResourceError` once the socket is closed, also where it
        is waiting then.
        """
        return [(message[0], message[1:]) for message in await self._receive()]

    def send(self, identity: bytes, frames: list[bytes]) -> None:
        """Send to one peer. To one that is gone, or that does not read, the message is dropped and counted.

        Raises :class:`trio.ClosedResourceError` once the socket is being closed.
        """
        self._enqueue([identity, *frames])

    def _attach(self, socket: _Socket, stack: ExitStack) -> _Aides:
        # Without the first a message for a peer that is gone, or slow, disappears without a word; without the second a
        # node that comes back under its name would never be heard.
        socket.router_mandatory = True
        socket.router_handover = True
        socket.bind(self.endpoint)
        return {}


class DealerSocket(_ThreadedSocket):
    """The client's side: one peer, which may come and go. Made by :func:`open_dealer`."""

    _kind = zmq.DEALER

    def __init__(self, endpoint: str, *, identity: bytes, backlog_bytes: int) -> None:
        super().__init__(endpoint, backlog_bytes=backlog_bytes)
        self._identity = identity
        self._connected = trio.Event()
        self._disconnected = trio.Event()
        self._disconnected.set()

    async def receive_batch(self) -> list[list[bytes]]:
        """Wait for messages; return those that have come, in order.

        Cancelled, it has taken none. Raises :class:`trio.ClosedResourceError` once the socket is closed, also where it
        is waiting then.
        """
        return await self._receive()

    def send(self, frames: list[bytes]) -> None:
        """Send to the peer. While there is none the message is dropped and counted: it would be old when it came.

        Raises :class:`trio.ClosedResourceError` once the socket is being closed.
        """
        if not frames:
            raise ValueError("a message has at least one frame")
        self._enqueue(frames)

    @property
    def is_connected(self) -> bool:
        """Whether the peer is there. Never once the socket is closed."""
        return self._connected.is_set() and not self._is_closed

    async def wait_connected(self) -> None:
        """Return when the peer is there; at once when it is.

        Raises :class:`trio.ClosedResourceError` once the socket is closed, also when it is waiting then.
        """
        await self._connected.wait()
        self._check_open()

    async def wait_disconnected(self) -> None:
        """Return when the peer is not there; at once when it isn't. A closed socket has no peer."""
        await self._disconnected.wait()

    def _close(self) -> None:
        super()._close()
        self._connected.set()
        self._disconnected.set()

    def _attach(self, socket: _Socket, stack: ExitStack) -> _Aides:
        # The monitor comes first: the link may be up a moment after connect().
        monitor: _Socket = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        stack.callback(monitor.close, 0)
        stack.callback(socket.disable_monitor)
        socket.identity = self._identity
        socket.immediate = True
        set_reconnection(socket)
        socket.connect(self.endpoint)

        def heed() -> None:
            event = recv_monitor_message(monitor)["event"]
            self._tell(self._set_connected, event == zmq.EVENT_HANDSHAKE_SUCCEEDED)

        return {monitor: heed}

    def _set_connected(self, is_connected: bool) -> None:
        if self._is_closed:
            return
        if is_connected:
            self._disconnected = trio.Event()
            self._connected.set()
        else:
            self._connected = trio.Event()
            self._disconnected.set()


@asynccontextmanager
async def _running(socket: _SocketT) -> AsyncIterator[_SocketT]:
    try:
        async with open_hidden_nursery() as nursery:
            # Shielded, since a socket that is being opened can't be told to stop; it takes a moment only.
            with trio.CancelScope(shield=True):
                await nursery.start(socket._run)
            try:
                yield socket
            finally:
                # It outlives its body, whatever ends that: what the body sends last is still taken.
                socket._stop()
    finally:
        # Only now, so that a thread that fails ends the body by cancellation, with its own error as the only one.
        socket._close()


@asynccontextmanager
async def open_router(endpoint: str, *, backlog_bytes: int = _BACKLOG_BYTES) -> AsyncIterator[RouterSocket]:
    """Bind a ROUTER to ``endpoint`` (``tcp://127.0.0.1:8081``; port ``*`` or 0: any), until the context is left.

    ``backlog_bytes`` bounds what has been received and not been taken yet; beyond it peers are made to wait. When the
    context is left, also by cancellation, what was sent before gets half a second to leave; then thread and
    descriptors are gone. Raises :class:`SocketError` when the endpoint can't be had.
    """
    async with _running(RouterSocket(endpoint, backlog_bytes=backlog_bytes)) as socket:
        yield socket


@asynccontextmanager
async def open_dealer(
    endpoint: str, *, identity: bytes, backlog_bytes: int = _BACKLOG_BYTES
) -> AsyncIterator[DealerSocket]:
    """Connect a DEALER to ``endpoint`` under ``identity`` (1 to 255 bytes), until the context is left.

    Whenever the link breaks it is made again. ``backlog_bytes`` and the end are as with :func:`open_router`. Raises
    :class:`SocketError` when the endpoint makes no sense; that nobody listens there yet is no error.
    """
    async with _running(DealerSocket(endpoint, identity=identity, backlog_bytes=backlog_bytes)) as socket:
        yield socket
