"""How sockets come to their end: closed, cancelled, failed, and with nothing left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
import zmq
from socket_pairs import ANY, LIMIT_S, a_pair, eventually, take

from bedrock.concurrency import sockets
from bedrock.concurrency.socket_error import SocketError
from bedrock.concurrency.sockets import RouterSocket, open_dealer, open_router

pytestmark = pytest.mark.timeout(LIMIT_S)


def hold_back(
    monkeypatch: pytest.MonkeyPatch, *, only_at_the_end: bool = False
) -> tuple[threading.Event, threading.Event]:
    """Have the thread of a router wait when it has sent what there was: it sets the first event, and waits for the
    second.
    """
    has_flushed, go_on = threading.Event(), threading.Event()
    flush = RouterSocket._flush

    def flush_and_dawdle(self: RouterSocket, raw: zmq.Socket[bytes]) -> None:
        flush(self, raw)
        if self._stopping or not only_at_the_end:
            has_flushed.set()
            go_on.wait(LIMIT_S)

    monkeypatch.setattr(RouterSocket, "_flush", flush_and_dawdle)
    return has_flushed, go_on


async def test_what_was_sent_before_the_context_is_left_still_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_LINGER_MS", LIMIT_S * 1_000)
    much = bytes(10_000_000)  # more than the kernel takes at once
    async with open_router(ANY) as router:
        async with open_dealer(router.endpoint, identity=b"node") as dealer:
            await dealer.wait_connected()
            dealer.send([much])
            dealer.send([b"last"])
        assert await take(router, 2) == [(b"node", [much]), (b"node", [b"last"])]


async def test_what_was_sent_just_before_the_end_is_not_forgotten_by_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_flushed, go_on = hold_back(monkeypatch)

    async def let_go() -> None:
        await trio.testing.wait_all_tasks_blocked()  # the context is being left, and waits for the thread
        go_on.set()

    async with trio.open_nursery() as nursery:
        async with open_router(ANY) as router:
            router.send(b"nobody", [b"one"])
            await trio.to_thread.run_sync(has_flushed.wait)
            router.send(b"nobody", [b"two"])
            nursery.start_soon(let_go)
        assert router.statistics().dropped == 2


async def test_after_its_end_a_socket_touches_no_descriptor_and_says_that_it_is_closed() -> None:
    async with open_router(ANY) as router:
        router.send(b"nobody", [b"early"])
        await eventually(lambda: router.statistics().dropped == 1)
    # The kernel hands the freed numbers out again.
    reused = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(50)]
    try:
        with pytest.raises(trio.ClosedResourceError):
            router.send(b"node", [b"late"])
        for descriptor in reused:
            with pytest.raises(BlockingIOError):
                os.eventfd_read(descriptor)
    finally:
        for descriptor in reused:
            os.close(descriptor)
    with pytest.raises(trio.ClosedResourceError):
        await router.receive_batch()
    assert router.statistics().dropped == 1


async def test_a_closed_dealer_has_no_peer_and_takes_nothing() -> None:
    async with a_pair() as (_, dealer):
        assert dealer.is_connected
    assert not dealer.is_connected
    with trio.fail_after(5):
        await dealer.wait_disconnected()
        with pytest.raises(trio.ClosedResourceError):
            await dealer.wait_connected()
        with pytest.raises(trio.ClosedResourceError):
            await dealer.receive_batch()
    with pytest.raises(trio.ClosedResourceError):
        dealer.send([b"late"])


async def test_whoever_waits_when_a_socket_is_closed_learns_of_it() -> None:
    outcomes: list[str] = []

    async def expect_closed(wait: Callable[[], Awaitable[object]]) -> None:
        try:
            await wait()
        except trio.ClosedResourceError:
            outcomes.append("closed")
        else:
            outcomes.append("returned")

    async with open_router(ANY) as router:
        endpoint = router.endpoint
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, open_dealer(endpoint, identity=b"alone") as dealer:
            nursery.start_soon(expect_closed, dealer.wait_connected)
            nursery.start_soon(expect_closed, dealer.receive_batch)
            await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery, a_pair() as (_, connected):
            nursery.start_soon(expect_closed, connected.wait_disconnected)
            await trio.testing.wait_all_tasks_blocked()
    assert outcomes == ["closed", "closed", "returned"]


async def test_what_is_sent_while_the_thread_comes_to_its_end_is_refused_and_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_flushed, go_on = hold_back(monkeypatch, only_at_the_end=True)
    async with trio.open_nursery() as nursery, open_router(ANY) as router:

        async def send_late() -> None:
            await trio.to_thread.run_sync(has_flushed.wait)
            try:
                with pytest.raises(trio.ClosedResourceError):
                    router.send(b"nobody", [b"late"])
            finally:
                go_on.set()

        nursery.start_soon(send_late)


async def test_what_a_failed_thread_has_left_is_counted_and_its_error_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: RouterSocket, raw: object) -> None:
        raise RuntimeError("broken")

    async def use() -> RouterSocket:
        async with open_router(ANY) as router:
            opened.append(router)
            monkeypatch.setattr(RouterSocket, "_flush", fail)
            router.send(b"nobody", [b"one"])
            router.send(b"nobody", [b"two"])
            await router.receive_batch()
        return router

    opened: list[RouterSocket] = []
    with pytest.raises(RuntimeError, match="broken"):
        await use()
    assert opened[0].statistics().dropped == 2


async def test_fifty_opens_leave_no_thread_and_no_descriptor(in_use: Callable[[], tuple[int, int]]) -> None:
    async with a_pair():
        pass
    before = in_use()
    for _ in range(50):
        async with a_pair() as (router, dealer):
            dealer.send([b"hello"])
            await router.receive_batch()
            router.send(b"node", [b"unread"])
    assert in_use() <= before


async def test_a_refused_open_leaves_no_thread_and_no_descriptor(in_use: Callable[[], tuple[int, int]]) -> None:
    async with a_pair():
        pass
    before = in_use()
    for _ in range(20):
        with pytest.raises(SocketError):
            async with open_router("tcp://192.0.2.1:0"):
                pass
    assert in_use() <= before


async def test_cancelled_at_any_time_a_socket_leaves_nothing_behind(in_use: Callable[[], tuple[int, int]]) -> None:
    async with a_pair():
        pass
    before = in_use()
    completed = 0
    for step in range(60):
        with trio.move_on_after(step * 0.0002):
            async with a_pair() as (router, dealer):
                completed += 1
                while True:
                    dealer.send([b"hello"])
                    await router.receive_batch()
    assert completed < 60
    assert in_use() <= before


async def test_a_cancelled_owner_does_not_wait_for_a_thread_that_has_nothing_to_do() -> None:
    async with open_router(ANY) as router, trio.open_nursery() as nursery:
        nursery.start_soon(router.receive_batch)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
