"""A blocking iterator, read in a thread of its own, as a stream of batches for Trio."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Generic, NamedTuple, TypeVar

import trio

from bedrock.concurrency.nursery import open_hidden_nursery

_T = TypeVar("_T")


class Batch(NamedTuple, Generic[_T]):
    """What has come since the last batch. ``overflowed``: and more, which was dropped."""

    items: list[_T]
    overflowed: bool


class ThreadStream(Generic[_T]):
    """Iterate it for batches; it ends when the iterator does and raises what the iterator raised.

    One task at a time may iterate. Cancelled while it waits, it has taken nothing.

    The reading thread never waits for Trio: a source like the Docker Engine drops events for slow readers, without a
    word. So the buffer is bounded, what does not fit is dropped here, and the next batch says so.
    """

    def __init__(self, max_buffer: int) -> None:
        self._max_buffer = max_buffer
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._items: list[_T] = []
        self._overflowed = False
        self._is_over = False
        self._error: Exception | None = None
        self._wake_pending = False
        self._wake = trio.Event()

    def __aiter__(self) -> ThreadStream[_T]:
        return self

    async def __anext__(self) -> Batch[_T]:
        await trio.lowlevel.checkpoint()
        while True:
            with self._lock:
                items, self._items = self._items, []
                overflowed, self._overflowed = self._overflowed, False
                is_over = self._is_over
                if not items and not is_over:
                    self._wake = trio.Event()
            if items or overflowed:
                return Batch(items, overflowed)
            if is_over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            await self._wake.wait()

    def _read(self, iterator: Callable[[], Iterator[_T]]) -> None:
        """Runs in the thread."""
        error: Exception | None = None
        try:
            for item in iterator():
                with self._lock:
                    if len(self._items) < self._max_buffer:
                        self._items.append(item)
                    else:
                        self._overflowed = True
                self._notify()
        except Exception as raised:
            error = raised
        with self._lock:
            self._is_over, self._error = True, error
        self._notify()

    def _notify(self) -> None:
        # One wake-up for all that comes until Trio has looked: a hop between threads costs more than an item.
        with self._lock:
            if self._wake_pending:
                return
            self._wake_pending = True
        try:
            self._token.run_sync_soon(self._wake_up)
        except trio.RunFinishedError:
            return

    def _wake_up(self) -> None:
        with self._lock:
            self._wake_pending = False
        self._wake.set()


@asynccontextmanager
async def open_thread_stream(
    iterator: Callable[[], Iterator[_T]], close: Callable[[], None], *, name: str, max_buffer: int
) -> AsyncIterator[ThreadStream[_T]]:
    """Read ``iterator()`` in a thread of the name ``name`` until the context is left.

    ``close`` must make a blocked iterator end. It is called once, from Trio's thread, when the context is left for
    whatever reason, possibly before ``iterator()`` has returned or without its having been called. The context is left,
    also by cancellation, when the reading thread is gone: it is as quick as ``close`` is effective.
    """
    stream: ThreadStream[_T] = ThreadStream(max_buffer)
    # The thread may live for as long as the process, so it must not take one of Trio's shared ones away.
    own_limiter = trio.CapacityLimiter(1)

    async def read() -> None:
        await trio.to_thread.run_sync(stream._read, iterator, thread_name=name, limiter=own_limiter)

    async with open_hidden_nursery() as nursery:
        nursery.start_soon(read)
        try:
            yield stream
        finally:
            close()


async def run_closable(function: Callable[[], _T], close: Callable[[], None], *, name: str) -> _T:
    """Run ``function()`` in a thread of the name ``name``; return what it returns, raise what it raises.

    ``close`` is called once, from Trio's thread, when the function is done or when this is cancelled: a function that
    blocks must end then, and what it raises from there on is lost. This returns, also by cancellation, when the thread
    is gone.
    """
    own_limiter = trio.CapacityLimiter(1)
    is_closed = False

    async def close_at_end() -> None:
        nonlocal is_closed
        try:
            await trio.sleep_forever()
        finally:
            is_closed = True
            close()

    async with open_hidden_nursery() as nursery:
        nursery.start_soon(close_at_end)
        try:
            return await trio.to_thread.run_sync(function, thread_name=name, limiter=own_limiter)
        except Exception:
            if is_closed:
                await trio.lowlevel.checkpoint_if_cancelled()
            raise
        finally:
            nursery.cancel_scope.cancel()
