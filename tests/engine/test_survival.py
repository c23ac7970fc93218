"""Processes that are killed, and sessions that don't mind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio
from engine_facts import VERSE, containers_of
from processes import Fleet
from sessions import content, events_of, finished, running

from bedrock.client import open_client
from bedrock.model import LogsState, Reason, Session, Status, TraceState

_COMMAND = ["sh", "-c", "cat /srv/verse.txt; sleep 3; echo end; exit 9"]


async def _all(fleet: Fleet) -> list[Session]:
    async with open_client(fleet.url) as client:
        return [session async for session in client.list()]


async def test_an_api_that_is_killed_comes_back_with_the_same_sessions(fleet: Fleet, image: str) -> None:
    api = fleet.api().start()
    async with open_client(fleet.url) as client:
        made = [await client.create(image, "true", ttl=f"{seconds}s") for seconds in range(1, 21)]
        await client.stop(made[3].id)
        before = await _all(fleet)
        api.kill()
        api.start()
        assert await _all(fleet) == before
        assert [session.id for session in before] == [session.id for session in made]


async def test_an_api_that_is_killed_while_a_session_runs_hears_of_its_end(
    fleet: Fleet, image: str, tmp_path: Path
) -> None:
    api = fleet.api().start()
    fleet.dockerd("alpha").start()
    fleet.filemd().start()
    async with open_client(fleet.url) as client:
        session = await running(client, await client.create(image, _COMMAND, ttl="60s"))
        api.kill()
        api.start()
        session = await finished(client, session)
        assert (session.status, session.reason, session.exit_code) == (Status.FAILED, Reason.EXIT, 9)
        assert session.trace is not None
        assert session.trace.state is TraceState.COMPLETE


async def test_a_dockerd_that_is_killed_takes_its_running_session_up_again(
    fleet: Fleet, image: str, tmp_path: Path
) -> None:
    dockerd = fleet.start()
    async with open_client(fleet.url) as client:
        session = await running(client, await client.create(image, _COMMAND, ttl="60s"))
        dockerd.kill()
        dockerd.start()
        session = await finished(client, session)
        assert (session.status, session.reason, session.exit_code) == (Status.FAILED, Reason.EXIT, 9)
        assert session.trace is not None
        assert session.trace.state is TraceState.COMPLETE
        assert await content(client, session, "stdout.log") == VERSE + b"end\n"
        execs = [event for event in await events_of(client, session, tmp_path) if event.argv == _COMMAND]
        assert len(execs) == 1
    assert containers_of("alpha") == []


async def test_a_session_that_ends_and_one_that_is_overdue_while_dockerd_is_dead_are_brought_to_their_ends(
    fleet: Fleet, image: str
) -> None:
    dockerd = fleet.start()
    async with open_client(fleet.url) as client:
        ends = await client.create(image, ["sh", "-c", "sleep 1; exit 4"], ttl="60s")
        overdue = await client.create(image, "sleep 60", ttl="2s")
        for session in (ends, overdue):
            await running(client, session)
        dockerd.kill()
        await trio.sleep(3)  # what is waited for is the sessions' own time
        dockerd.start()
        ends, overdue = await finished(client, ends), await finished(client, overdue)
        assert (ends.status, ends.reason, ends.exit_code) == (Status.FAILED, Reason.EXIT, 4)
        assert (overdue.status, overdue.reason) == (Status.FINISHED, Reason.TTL)
        assert {ends.logs.state, overdue.logs.state} == {LogsState.COMPLETE}
    assert containers_of("alpha") == []


async def test_a_dockerd_that_is_killed_at_any_moment_runs_no_session_twice(fleet: Fleet, image: str) -> None:
    dockerd = fleet.start()
    async with open_client(fleet.url) as client:
        sessions = []
        for delay_s in (0.0, 0.05, 0.15, 0.3, 0.5, 0.8):
            sessions.append(await client.create(image, ["sh", "-c", "cat /srv/verse.txt; sleep 0.3"], ttl="60s"))
            await trio.sleep(delay_s)
            dockerd.kill()
            dockerd.start()
        for session in sessions:
            ended = await finished(client, session)
            assert (ended.status, ended.exit_code) == (Status.FINISHED, 0), ended
            assert await content(client, ended, "stdout.log") == VERSE
            assert ended.trace is not None
            assert ended.trace.state is TraceState.COMPLETE
    assert containers_of("alpha") == []
    assert list(fleet.data_dir.joinpath("volumes").iterdir()) == []


async def test_the_ttl_holds_while_the_api_is_away_and_the_end_is_told_afterwards(fleet: Fleet, image: str) -> None:
    api = fleet.api().start()
    fleet.dockerd("alpha").start()
    fleet.filemd().start()
    async with open_client(fleet.url) as client:
        session = await running(client, await client.create(image, "sleep 60", ttl="2s"))
        api.kill()
        deadline = time.monotonic() + 20
        while containers_of("alpha") and time.monotonic() < deadline:
            await trio.sleep(0.1)
        assert containers_of("alpha") == []
        api.start()
        session = await finished(client, session)
        assert (session.status, session.reason) == (Status.FINISHED, Reason.TTL)


async def test_a_filemd_that_is_killed_brings_the_files_home_when_it_is_back(fleet: Fleet, image: str) -> None:
    fleet.api().start()
    fleet.dockerd("alpha").start()
    filemd = fleet.filemd().start()
    filemd.kill()
    async with open_client(fleet.url) as client:
        session = await client.create(image, "cat /srv/verse.txt", ttl="60s")
        with trio.fail_after(30):
            async for state in client.watch(session.id):
                session = state
        assert session.status is Status.FINISHED
        assert session.logs.state is LogsState.PENDING
        filemd.start()
        assert await content(client, await finished(client, session), "stdout.log") == VERSE


async def test_up_stops_its_sessions_and_brings_their_files_home_before_it_ends(fleet: Fleet, image: str) -> None:
    up = fleet.process("bedrock", "up", "--dockerd-name", "alpha", name="up")
    up.start()
    async with open_client(fleet.url) as client:
        session = await running(client, await client.create(image, "sleep 60", ttl="60s"))
    assert up.stop() == 0
    assert containers_of("alpha") == []
    up.start()
    async with open_client(fleet.url) as client:
        session = await finished(client, session)
        assert (session.status, session.reason) == (Status.STOPPED, Reason.SHUTDOWN)
        assert session.logs.state is LogsState.COMPLETE


async def test_two_nodes_on_one_engine_take_turns_and_leave_each_others_containers_alone(
    fleet: Fleet, image: str
) -> None:
    fleet.api().start()
    alpha = fleet.dockerd("alpha").start()
    fleet.dockerd("beta").start()
    fleet.filemd().start()
    async with open_client(fleet.url) as client:
        with trio.fail_after(10):
            while sum(node.alive for node in await client.nodes()) < 2:
                await trio.sleep(0.05)
        sessions = [await client.create(image, _COMMAND, ttl="60s") for _ in range(4)]
        nodes = [session.dockerd_id for session in sessions]
        assert nodes in (["alpha", "beta"] * 2, ["beta", "alpha"] * 2)
        for session in sessions:
            await running(client, session)
        # One that starts anew adopts its own and nothing else.
        alpha.kill()
        alpha.start()
        for session in sessions:
            ended = await finished(client, session)
            assert (ended.exit_code, ended.dockerd_id) == (9, session.dockerd_id)
        adopted = {event["session"] for event in alpha.events() if event["event"] == "session adopted"}
        assert adopted == {session.id for session in sessions if session.dockerd_id == "alpha"}
    assert containers_of("alpha") == containers_of("beta") == []


async def test_a_second_dockerd_of_the_same_name_is_refused(fleet: Fleet) -> None:
    fleet.api().start()
    fleet.dockerd("alpha").start()
    second = fleet.process("bedrock.dockerd", "--dockerd-name", "alpha", name="second")
    with pytest.raises(AssertionError, match="is already running with this data_dir"):
        second.start()
