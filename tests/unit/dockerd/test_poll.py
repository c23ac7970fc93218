"""DockerD's conversation, over a real socket, with an API that is played."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import trio

from bedrock.concurrency.sockets import RouterSocket, open_dealer, open_router
from bedrock.dockerd.poll import Poller
from bedrock.model import NodeName, SessionId
from bedrock.wire import Event, EventType

_SESSION = "01a20a5a-f1dc-771c-a61f-2efdc4734108"


class FakeAgent:
    """One session that runs, and what the API has said of it."""

    def __init__(self) -> None:
        self.applied: list[Event] = []
        self._news = trio.Event()

    def has_news(self) -> None:
        self._news.set()

    async def wait_news(self) -> None:
        await self._news.wait()

    def take_news(self) -> set[SessionId]:
        self._news = trio.Event()
        return set()

    def put_back(self, news: set[SessionId]) -> None:
        pass

    def report(self, only: set[SessionId] | None) -> list[Event]:
        return [Event(EventType.RUNNING, _SESSION)] if only is None else []

    def is_unacknowledged(self, session_id: str) -> bool:
        return False

    async def apply(self, events: Iterable[Event]) -> None:
        self.applied += events


class PlainApi:
    """Answers each poll at once with these events, and says nothing of itself. ``polls`` has their times, too."""

    def __init__(self, socket: RouterSocket) -> None:
        self._socket = socket
        self.polls: list[tuple[float, Any]] = []
        self.headers: Callable[[Any], dict[str, str]] = lambda packet: {"sender": "api"}
        self.events: list[Any] = []

    async def run(self) -> None:
        while True:
            for identity, frames in await self._socket.receive_batch():
                packet = json.loads(frames[-1])
                self.polls.append((trio.current_time(), packet))
                answer = {"headers": self.headers(packet), "events": self.events}
                self._socket.send(identity, [*frames[:-1], json.dumps(answer).encode()])

    async def wait_polls(self, count: int) -> None:
        with trio.fail_after(20):
            while len(self.polls) < count:
                await trio.sleep(0.01)


@asynccontextmanager
async def conversation(wait_s: float) -> AsyncIterator[tuple[PlainApi, FakeAgent]]:
    async with (
        open_router("tcp://127.0.0.1:*") as router,
        open_dealer(router.endpoint, identity=b"n") as dealer,
        trio.open_nursery() as nursery,
    ):
        api, agent = PlainApi(router), FakeAgent()
        poller = Poller(agent, dealer, NodeName("n"), slots=1, wait_s=wait_s)  # type: ignore[arg-type]
        for task in (api.run, poller.receive, poller.run):
            nursery.start_soon(task)
        yield api, agent
        nursery.cancel_scope.cancel()


async def test_an_api_that_holds_no_answers_is_polled_at_the_interval_and_told_everything_each_time() -> None:
    async with conversation(0.3) as (api, agent):
        api.events = [{"headers": {"event_type": "session_stopped", "session_id": _SESSION}}]
        await api.wait_polls(5)
        times = [at for at, _ in api.polls]
        # Neither at once again, nor only after the silence that means that an API is away.
        assert all(0.3 <= later - earlier < 5 for earlier, later in pairwise(times))
        for _, packet in api.polls:
            assert [event["headers"]["session_id"] for event in packet["events"]] == [_SESSION]
        assert {(event.event_type, event.session_id) for event in agent.applied} == {("session_stopped", _SESSION)}


async def test_an_api_that_repeats_the_number_and_holds_nothing_is_not_polled_without_a_pause() -> None:
    async with conversation(0.3) as (api, _):
        api.headers = lambda packet: {"sender": "api", "seq": packet["headers"]["seq"]}
        await api.wait_polls(5)
        times = [at for at, _ in api.polls]
        assert all(later - earlier >= 0.3 for earlier, later in pairwise(times))


async def test_news_does_not_wait_for_the_interval() -> None:
    async with conversation(60) as (api, agent):
        await api.wait_polls(1)
        while len(api.polls) < 2:
            agent.has_news()
            with trio.move_on_after(0.05):
                await api.wait_polls(2)
