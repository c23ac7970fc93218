"""An engine that dies and comes back while sessions flow."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
from own_engine import OwnEngine
from processes import Fleet
from sessions import content, finished, running

from bedrock.client import Client, open_client
from bedrock.model import Reason, Session, Status
from bedrock.tracer import OWN_IMAGE

pytestmark = pytest.mark.timeout(180)

# Leaves at once when it is asked to: an engine that comes back waits for what it finds running.
_COMMAND = "trap 'exit 9' TERM; echo begin; sleep {} & wait; echo end"
_SESSIONS = 12


@pytest.fixture
def engine(image: str) -> Iterator[OwnEngine]:
    engine = OwnEngine()
    try:
        engine.start()
        for name in (image, OWN_IMAGE):
            engine.copy_image(name)
        yield engine
    finally:
        engine.close()
        assert engine.processes() == []


@pytest.fixture
def restless(tmp_path: Path, engine: OwnEngine) -> Iterator[Fleet]:
    """A fleet on an engine that may be killed."""
    with Fleet(tmp_path) as fleet:
        fleet.environment["BEDROCK_DOCKERD_DOCKER_HOST"] = engine.address
        yield fleet


async def _count_ended(client: Client) -> int:
    return len([session async for session in client.list() if session.status.is_terminal])


async def _wait_ended(client: Client, wanted: int) -> None:
    with trio.fail_after(60):
        while await _count_ended(client) < wanted:
            await trio.sleep(0.05)


async def test_an_engine_that_is_killed_three_times_costs_the_sessions_that_ran_and_no_others(
    restless: Fleet, engine: OwnEngine, image: str
) -> None:
    restless.start("alpha", "--dockerd-slots", "4")
    ended: list[Session] = []
    async with open_client(restless.url) as client:
        made = [
            await client.create(image, ["sh", "-c", _COMMAND.format(0.2 + 0.1 * (number % 4))], ttl="60s")
            for number in range(_SESSIONS)
        ]
        for wanted, with_containers in ((1, True), (3, False), (6, True)):
            await _wait_ended(client, wanted)
            await trio.to_thread.run_sync(partial(engine.kill, with_containers=with_containers))
            await trio.to_thread.run_sync(engine.start)
        for session in made:
            ended.append(await finished(client, session))
        for session in ended:
            said = await content(client, session, "stdout.log")
            # What was printed while there was no engine is lost, and the engine does not say so.
            assert b"begin\nend\n".startswith(said)
            if session.status is not Status.FINISHED:
                # Only what was being run when an engine died may have failed, and only as itself.
                assert session.status is Status.FAILED
                assert session.reason in {Reason.EXIT, Reason.TRACER_ERROR}, session
    finished_well = sum(session.status is Status.FINISHED for session in ended)
    assert finished_well >= _SESSIONS - 3 * 4
    assert engine.leftovers() == [name for name in engine.leftovers() if name.startswith("bedrock-tracer-alpha-")]
    assert list(restless.data_dir.joinpath("volumes").iterdir()) == []


async def test_a_session_that_has_not_started_says_that_it_waits_for_the_engine_and_runs_when_it_is_back(
    restless: Fleet, engine: OwnEngine, image: str
) -> None:
    dockerd = restless.start()
    async with open_client(restless.url) as client:
        await finished(client, await client.create(image, "true", ttl="60s"))
        engine.kill()
        session = await client.create(image, "echo hello", ttl="60s")
        with trio.fail_after(30):
            async for state in client.watch(session.id):
                if state.message.startswith("waiting for the Docker Engine"):
                    break
        await trio.to_thread.run_sync(engine.start)
        session = await finished(client, session)
        assert session.status is Status.FINISHED, session.message
        assert await content(client, session, "stdout.log") == b"hello\n"
    said = [event["event"] for event in dockerd.events()]
    assert said.count("the Docker Engine is away; it is waited for") == 1
    assert said.count("the Docker Engine is back") == 1


async def test_an_engine_that_does_not_come_back_is_waited_for_as_long_as_the_setting_says(
    restless: Fleet, engine: OwnEngine, image: str
) -> None:
    restless.start("alpha", "--dockerd-engine-timeout", "1s")
    async with open_client(restless.url) as client:
        engine.kill()
        session = await client.create(image, "true", ttl="60s")
        with trio.fail_after(30):
            async for state in client.watch(session.id):
                session = state
        await trio.to_thread.run_sync(engine.start)
        session = await finished(client, session)
    assert (session.status, session.reason) == (Status.FAILED, Reason.RUNTIME_ERROR)
    assert "was away for longer than 1s" in session.message


async def test_an_engine_that_does_not_answer_holds_nobody_who_is_to_stop_at_once(
    restless: Fleet, engine: OwnEngine, image: str
) -> None:
    up = restless.process("bedrock", "up", "--dockerd-name", "alpha", "--dockerd-stop-grace", "50s", name="up")
    up.start()
    async with open_client(restless.url) as client:
        session = await running(client, await client.create(image, ["sh", "-c", _COMMAND.format(300)], ttl="300s"))
    engine.signal(signal.SIGSTOP)
    try:
        up.signal(signal.SIGINT)
        with trio.fail_after(30):
            while not any(event["event"] == "stopping" for event in up.events()):
                await trio.sleep(0.02)
        begin = time.monotonic()
        up.signal(signal.SIGINT)
        assert await trio.to_thread.run_sync(partial(up.wait, timeout_s=60)) == 130
        assert time.monotonic() - begin < 10
    finally:
        engine.signal(signal.SIGCONT)
    up.start()
    async with open_client(restless.url) as client:
        session = await finished(client, session)
    assert (session.status, session.reason) == (Status.STOPPED, Reason.SHUTDOWN)
    assert up.stop() == 0
    assert engine.leftovers() == []
