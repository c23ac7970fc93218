from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing

from bedrock.concurrency.threads import ThreadStream, open_thread_stream, run_closable

pytestmark = pytest.mark.timeout(30)


class Source:
    """A blocking iterator that another thread can feed and end."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()
        self.reader: threading.Thread | None = None
        self.closed = 0

    def put(self, *items: int | Exception | None) -> None:
        for item in items:
            self._items.put(item)

    def close(self) -> None:
        self.closed += 1
        self._items.put(None)

    def __call__(self) -> Iterator[int]:
        self.reader = threading.current_thread()
        while (item := self._items.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def open(self, *, max_buffer: int = 1_000) -> AbstractAsyncContextManager[ThreadStream[int]]:
        return open_thread_stream(self, self.close, name="a source", max_buffer=max_buffer)


async def collect(stream: ThreadStream[int], count: int) -> list[int]:
    items: list[int] = []
    while len(items) < count:
        items += (await anext(stream)).items
    return items


async def test_items_come_in_order_whole_and_as_they_appear() -> None:
    source = Source()
    async with source.open() as stream:
        source.put(1)
        assert await collect(stream, 1) == [1]
        source.put(*range(500))
        assert await collect(stream, 500) == list(range(500))


async def test_the_end_of_the_iterator_is_the_end_of_the_stream_after_its_last_item() -> None:
    source = Source()
    source.put(1, 2, None)
    async with source.open() as stream:
        assert [item async for batch in stream for item in batch.items] == [1, 2]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_an_error_of_the_iterator_is_raised_as_it_is_after_the_last_item() -> None:
    source = Source()
    source.put(1, ValueError("the source broke"))
    seen: list[int] = []

    async def consume() -> None:
        async with source.open() as stream:
            async for batch in stream:
                seen.extend(batch.items)

    with pytest.raises(ValueError, match="the source broke"):
        await consume()
    assert seen == [1]
    assert source.closed == 1


async def test_a_slow_consumer_never_delays_the_reader_and_is_told_once_that_it_missed_something() -> None:
    has_read = threading.Event()
    source = Source()

    def read() -> Iterator[int]:
        yield from range(1_000)
        has_read.set()
        yield from source()

    async with open_thread_stream(read, source.close, name="a source", max_buffer=10) as stream:
        # Trio looks at nothing before the reader has come to the end of it.
        await trio.to_thread.run_sync(has_read.wait)
        assert await anext(stream) == (list(range(10)), True)
        source.put(7)
        assert await anext(stream) == ([7], False)


async def test_what_comes_while_the_consumer_is_busy_is_one_batch() -> None:
    has_read = threading.Event()

    def read() -> Iterator[int]:
        yield from range(100)
        has_read.set()

    async with open_thread_stream(read, lambda: None, name="a source", max_buffer=1_000) as stream:
        await trio.to_thread.run_sync(has_read.wait)
        assert await anext(stream) == (list(range(100)), False)


async def test_leaving_the_context_ends_a_blocked_reader_and_its_work_is_over() -> None:
    is_over = threading.Event()
    source = Source()

    def read() -> Iterator[int]:
        try:
            yield from source()
        finally:
            is_over.set()

    async with open_thread_stream(read, source.close, name="a source", max_buffer=10) as stream:
        source.put(1)
        await anext(stream)
    assert is_over.is_set()
    assert source.closed == 1


async def test_a_reader_that_is_still_connecting_is_waited_for() -> None:
    connects, may_connect, is_over = threading.Event(), threading.Event(), threading.Event()

    def read() -> Iterator[int]:
        connects.set()
        may_connect.wait(20)
        time.sleep(0.02)  # long enough to be late, were it not waited for
        is_over.set()
        return iter([1])

    with trio.CancelScope() as scope:
        async with open_thread_stream(read, may_connect.set, name="a source", max_buffer=10):
            await trio.to_thread.run_sync(connects.wait)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert is_over.is_set()


async def test_cancelled_at_any_time_no_thread_is_left(in_use: Callable[[], tuple[int, int]]) -> None:
    async with Source().open():
        pass
    before = in_use()
    for step in range(50):
        source = Source()
        with trio.move_on_after(step * 0.0001):
            async with source.open() as stream:
                source.put(1)
                async for _ in stream:
                    source.put(1)
    assert in_use() <= before


async def test_a_consumer_that_is_cancelled_again_and_again_loses_nothing() -> None:
    source = Source()
    received: list[int] = []
    async with source.open(max_buffer=5_000) as stream, trio.open_nursery() as nursery:

        async def feed() -> None:
            for number in range(2_000):
                source.put(number)
                await trio.lowlevel.checkpoint()

        nursery.start_soon(feed)
        while len(received) < 2_000:
            with trio.move_on_after(0.0005):
                async for batch in stream:
                    received += batch.items
    assert received == list(range(2_000))


async def test_a_stream_that_has_something_leaves_the_others_their_turn_all_the_same() -> None:
    has_read = threading.Event()

    def read() -> Iterator[int]:
        yield 1
        has_read.set()

    async with open_thread_stream(read, lambda: None, name="a source", max_buffer=10) as stream:
        await trio.to_thread.run_sync(has_read.wait)
        with trio.testing.assert_checkpoints():
            assert await anext(stream) == ([1], False)


async def test_an_error_of_the_consumer_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Source().open():
            raise KeyError("mine")


async def test_readers_take_nothing_from_the_threads_that_everybody_shares() -> None:
    source = Source()
    async with source.open() as stream:
        source.put(1)
        await anext(stream)
        assert source.reader is not None
        assert source.reader.name == "a source"
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0


async def test_a_closable_call_returns_what_its_function_returns_and_closes() -> None:
    closed: list[bool] = []
    assert await run_closable(lambda: 7, lambda: closed.append(True), name="test") == 7
    assert closed == [True]


async def test_a_closable_call_raises_what_its_function_raises() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await run_closable(fail, lambda: None, name="test")


async def test_a_closable_call_that_is_cancelled_is_closed_and_its_thread_gone() -> None:
    begun, closing, ended = threading.Event(), threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        closing.wait()
        ended.set()
        raise ValueError("the connection was closed")

    with trio.fail_after(10), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel_when_begun() -> None:
                await trio.to_thread.run_sync(begun.wait)
                scope.cancel()

            nursery.start_soon(cancel_when_begun)
            await run_closable(wait, closing.set, name="test")
    assert scope.cancelled_caught
    assert ended.is_set()
