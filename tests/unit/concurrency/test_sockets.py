from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import trio
import trio.testing
import zmq
from socket_pairs import ANY, LIMIT_S, a_pair, eventually, take

from bedrock.concurrency import sockets
from bedrock.concurrency.socket_error import SocketError
from bedrock.concurrency.sockets import DealerSocket, RouterSocket, open_dealer, open_router

pytestmark = pytest.mark.timeout(LIMIT_S)


def _has_handled(sender: RouterSocket | DealerSocket, count: int) -> bool:
    statistics = sender.statistics()
    return statistics.sent + statistics.dropped == count


@contextmanager
def a_plain_dealer(endpoint: str, identity: bytes) -> Iterator[zmq.Socket[bytes]]:
    """A peer that is not ours, and that does not come back by itself."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    peer: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    peer.linger = 0
    peer.reconnect_ivl = -1
    peer.rcvtimeo = peer.sndtimeo = LIMIT_S * 1000
    peer.identity = identity
    try:
        peer.connect(endpoint)
        yield peer
    finally:
        peer.close()
        context.term()


async def test_a_message_comes_with_its_senders_identity_and_the_answer_finds_the_way_back() -> None:
    async with a_pair() as (router, dealer):
        dealer.send([b"question", b"", b"more"])
        assert await router.receive_batch() == [(b"node", [b"question", b"", b"more"])]
        router.send(b"node", [b"answer"])
        assert await dealer.receive_batch() == [[b"answer"]]
        await eventually(lambda: router.statistics().sent == 1)
        assert (dealer.statistics().received, dealer.statistics().dropped) == (1, 0)


@pytest.mark.parametrize("endpoint", [ANY, "tcp://127.0.0.1:*", "tcp://[::1]:0"])
async def test_the_endpoint_names_the_port_that_the_system_chose(endpoint: str) -> None:
    if "[" in endpoint and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    async with open_router(endpoint) as router, open_dealer(router.endpoint, identity=b"node") as dealer:
        assert int(router.endpoint.rpartition(":")[2]) > 0
        await dealer.wait_connected()


async def test_a_taken_port_is_an_error_that_names_the_endpoint_and_the_remedy() -> None:
    async with open_router(ANY) as first:
        with pytest.raises(SocketError, match=r"already in use; .*choose another port") as caught:
            async with open_router(first.endpoint):
                pytest.fail("yielded without a port")
        assert caught.value.endpoint == first.endpoint
        assert first.endpoint in str(caught.value)
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1", "foo://bar", "tcp://192.0.2.1:0"])
async def test_an_endpoint_that_can_not_be_bound_is_an_error_that_names_it(endpoint: str) -> None:
    with pytest.raises(SocketError) as caught:
        async with open_router(endpoint):
            pytest.fail("yielded without a socket")
    assert endpoint in str(caught.value)


async def test_a_dealer_refuses_an_endpoint_that_makes_no_sense() -> None:
    with pytest.raises(SocketError, match="tcp://nowhere can't be used: Invalid argument; an endpoint looks like"):
        async with open_dealer("tcp://nowhere", identity=b"node"):
            pytest.fail("yielded without a socket")


async def test_an_error_in_the_context_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_router(ANY):
            raise KeyError("mine")


async def test_an_error_in_the_thread_ends_the_context_and_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: RouterSocket, socket: object) -> None:
        raise RuntimeError("broken")

    async def use() -> None:
        async with open_router(ANY) as router:
            monkeypatch.setattr(sockets.RouterSocket, "_flush", fail)
            router.send(b"node", [b""])
            await trio.sleep_forever()

    with pytest.raises(RuntimeError, match="broken"):
        await use()


async def test_a_burst_from_several_peers_arrives_whole_and_each_peers_part_in_order() -> None:
    count = 10_000
    async with open_router(ANY) as router, trio.open_nursery() as nursery:

        async def blast(name: bytes) -> None:
            async with open_dealer(router.endpoint, identity=name) as dealer:
                await dealer.wait_connected()
                for number in range(count):
                    dealer.send([number.to_bytes(4)])
                await trio.sleep_forever()

        for name in (b"a", b"b"):
            nursery.start_soon(blast, name)
        received: dict[bytes, list[int]] = {b"a": [], b"b": []}
        while sum(map(len, received.values())) < 2 * count:
            for identity, frames in await router.receive_batch():
                received[identity].append(int.from_bytes(frames[0]))
        assert received == {b"a": list(range(count)), b"b": list(range(count))}
        nursery.cancel_scope.cancel()


async def test_a_message_sent_while_the_thread_takes_a_wake_up_does_not_keep_later_ones_from_waking_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    takes, go_on = threading.Event(), threading.Event()
    take_wake_up = os.eventfd_read

    def take_slowly(descriptor: int) -> int:
        takes.set()
        go_on.wait(LIMIT_S)
        return take_wake_up(descriptor)

    async with open_router(ANY) as router:
        monkeypatch.setattr(os, "eventfd_read", take_slowly)
        router.send(b"nobody", [b"one"])
        await trio.to_thread.run_sync(takes.wait)
        router.send(b"nobody", [b"two"])
        go_on.set()
        await eventually(lambda: router.statistics().dropped == 2)
        router.send(b"nobody", [b"three"])
        await eventually(lambda: router.statistics().dropped == 3)


async def test_single_messages_leave_without_any_other_to_push_them() -> None:
    async with a_pair() as (router, dealer):
        for number in range(1_000):
            dealer.send([b"%d" % number])
            if number % 3:
                await trio.lowlevel.checkpoint()
            if number % 50 == 0:
                await eventually(partial(_has_handled, dealer, number + 1))
        taken = await take(router, 1_000)
    assert taken == [(b"node", [b"%d" % number]) for number in range(1_000)]


async def test_a_receiver_that_is_cancelled_again_and_again_loses_nothing() -> None:
    count = 2_000
    async with a_pair(backlog_bytes=20_000) as (router, dealer), trio.open_nursery() as nursery:

        async def send() -> None:
            for number in range(count):
                dealer.send([b"%d" % number])
                await trio.lowlevel.checkpoint()

        nursery.start_soon(send)
        received: list[int] = []
        while len(received) < count:
            with trio.move_on_after(0.0005):
                while True:
                    received += [int(frames[0]) for _, frames in await router.receive_batch()]
        assert received == list(range(count))


async def test_a_message_for_nobody_is_dropped_and_counted() -> None:
    async with a_pair() as (router, dealer):
        router.send(b"stranger", [b"hello"])
        router.send(b"", [b"hello"])
        await eventually(lambda: router.statistics().dropped == 2)
        router.send(b"node", [b"hello"])
        assert await dealer.receive_batch() == [[b"hello"]]


async def test_while_nobody_listens_a_dealer_drops_instead_of_queueing() -> None:
    async with open_router(ANY) as router:
        endpoint = router.endpoint
    async with open_dealer(endpoint, identity=b"node") as dealer:
        assert not dealer.is_connected
        dealer.send([b"old"])
        await eventually(lambda: dealer.statistics().dropped == 1)
        async with open_router(endpoint) as router:
            await dealer.wait_connected()
            dealer.send([b"new"])
            assert await router.receive_batch() == [(b"node", [b"new"])]


async def test_what_is_sent_right_after_the_link_came_up_arrives() -> None:
    async with open_router(ANY) as router:
        for number in range(30):
            async with open_dealer(router.endpoint, identity=b"node-%d" % number) as dealer:
                await dealer.wait_connected()
                dealer.send([b"hello"])
                assert await router.receive_batch() == [(b"node-%d" % number, [b"hello"])]


async def test_a_dealer_resumes_with_a_router_that_was_started_again_at_the_same_port() -> None:
    async with open_router(ANY) as router:
        endpoint = router.endpoint
    async with open_dealer(endpoint, identity=b"node") as dealer:
        for _ in range(3):
            async with open_router(endpoint) as router:
                await dealer.wait_connected()
                dealer.send([b"still here"])
                assert await router.receive_batch() == [(b"node", [b"still here"])]
                router.send(b"node", [b"welcome"])
                assert await dealer.receive_batch() == [[b"welcome"]]
            await dealer.wait_disconnected()
            assert not dealer.is_connected


async def test_a_peer_that_comes_back_under_its_name_takes_over_though_its_old_link_stands() -> None:
    async with open_router(ANY) as router:
        with a_plain_dealer(router.endpoint, b"node") as old:
            old.send(b"first")
            assert await router.receive_batch() == [(b"node", [b"first"])]
            async with open_dealer(router.endpoint, identity=b"node") as new:
                await new.wait_connected()
                new.send([b"second"])
                assert await router.receive_batch() == [(b"node", [b"second"])]
                router.send(b"node", [b"for the new one"])
                assert await new.receive_batch() == [[b"for the new one"]]


async def test_a_sender_without_measure_is_made_to_wait_while_trio_is_behind_and_nothing_taken_is_lost() -> None:
    size_bytes = 1_000
    async with a_pair(backlog_bytes=1 << 20) as (router, dealer):
        number = 0
        # Drops at the sender mean that the whole way is full, up to the router's thread, which has stopped reading.
        while dealer.statistics().dropped == 0:
            for _ in range(100):
                number += 1
                dealer.send([number.to_bytes(size_bytes)])
            await eventually(partial(_has_handled, dealer, number))
        assert router.statistics().received <= (1 << 20) / size_bytes
        # Now Trio catches up, and the thread reads on by itself.
        numbers = [int.from_bytes(frames[0]) for _, frames in await take(router, dealer.statistics().sent)]
        assert numbers == sorted(set(numbers))
        dealer.send([b"afterwards"])
        assert await router.receive_batch() == [(b"node", [b"afterwards"])]


async def test_while_reading_is_paused_answers_leave_and_the_thread_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = RouterSocket._read

    def count(self: RouterSocket, raw: zmq.Socket[bytes]) -> None:
        reads.append(1)
        read(self, raw)

    monkeypatch.setattr(RouterSocket, "_read", count)
    async with a_pair(backlog_bytes=1) as (router, dealer):
        dealer.send([b"one"])
        dealer.send([b"two"])
        await eventually(lambda: router.statistics().received == 1)
        router.send(b"node", [b"answer"])
        assert await dealer.receive_batch() == [[b"answer"]]
        assert router.statistics().received == len(reads) == 1
        assert await take(router, 2) == [(b"node", [b"one"]), (b"node", [b"two"])]


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 1000, b"\x00" * 64, b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03"]
)
async def test_what_is_not_zmq_disturbs_nobody(noise: bytes) -> None:
    async with a_pair() as (router, dealer):
        host, _, port = router.endpoint.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(noise)
            dealer.send([b"hello"])
            assert await router.receive_batch() == [(b"node", [b"hello"])]
        dealer.send([b"hello again"])
        assert await router.receive_batch() == [(b"node", [b"hello again"])]


async def test_odd_but_whole_messages_are_received_as_they_are() -> None:
    async with open_router(ANY) as router:
        with a_plain_dealer(router.endpoint, bytes(range(1, 256))) as peer:
            for message in ([b""], [b"", b""], [b"x"] * 300, [bytes(100_000)]):
                peer.send_multipart(message)
                assert await router.receive_batch() == [(bytes(range(1, 256)), message)]


async def test_a_frame_beyond_the_limit_costs_its_sender_the_link_and_nobody_else() -> None:
    async with a_pair() as (router, dealer):
        with a_plain_dealer(router.endpoint, b"greedy") as greedy:
            greedy.send(b"small")
            assert await router.receive_batch() == [(b"greedy", [b"small"])]
            monitor = greedy.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            greedy.send(bytes((16 << 20) + 1))
            assert await trio.to_thread.run_sync(monitor.poll, LIMIT_S * 1000)
            greedy.disable_monitor()
            monitor.close()
        dealer.send([b"hello"])
        assert await router.receive_batch() == [(b"node", [b"hello"])]


async def test_a_queue_that_its_thread_can_not_empty_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_MAX_OUTGOING", 10)
    async with a_pair() as (router, dealer):
        # Between these the thread, which needs Python's lock as well, gets at most a few in edgeways.
        for _ in range(5_000):
            router.send(b"node", [b"much"])
        await eventually(lambda: router.statistics().sent + router.statistics().dropped == 5_000)
        assert router.statistics().dropped > 0
        while dealer.statistics().received < router.statistics().sent:
            await dealer.receive_batch()


async def test_a_ping_returns_when_the_thread_has_come_round() -> None:
    async with a_pair() as (router, _):
        await router.ping()
    with pytest.raises(trio.ClosedResourceError):
        await router.ping()


async def test_a_message_without_frames_is_refused_where_it_is_sent() -> None:
    async with a_pair() as (_, dealer):
        with pytest.raises(ValueError, match="at least one frame"):
            dealer.send([])
