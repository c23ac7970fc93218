"""Being told to stop, once, twice, and by death."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import docker
import httpx
import pytest
import trio
from engine_facts import containers_of, leftovers_of
from processes import Fleet
from sessions import content, finished, running

from bedrock.api.service import open_api
from bedrock.client import open_client
from bedrock.dockerd.agent import Agent
from bedrock.dockerd.service import open_dockerd
from bedrock.dockerd.watch import ContainerWatch
from bedrock.embedded import open_bedrock
from bedrock.lifecycle import Outcome
from bedrock.model import LogsState, Reason, Session, SessionId, Status, new_session_id
from bedrock.settings import Settings, load_settings
from bedrock.volume import LOCK
from bedrock.wire import Event, EventType, StartOrder, decode_payload, encode_payload

_DEAF = ["sh", "-c", "trap '' TERM INT; echo deaf; while :; do sleep 1; done"]
# Ends by itself some seconds after it has been asked to, with a code of its own.
_SLOW_TO_LEAVE = ["sh", "-c", "trap 'echo bye; sleep 5; exit 7' TERM; while :; do sleep 0.1; done"]


def _output_of(session_id: str) -> bytes:
    api = docker.from_env()
    try:
        return bytes(api.containers.get(f"bedrock-target-{session_id}").logs())
    finally:
        api.close()


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():
            await trio.sleep(0.02)


async def test_two_sigints_end_everything_at_once_and_the_truth_is_written_down(fleet: Fleet, image: str) -> None:
    up = fleet.process("bedrock", "up", "--dockerd-name", "alpha", "--dockerd-stop-grace", "50s", name="up")
    up.start()
    async with open_client(fleet.url) as client:
        session = await running(client, await client.create(image, _DEAF, ttl="300s"))
    await _until(lambda: b"deaf" in _output_of(session.id))
    up.signal(signal.SIGINT)
    await _until(lambda: any(event["event"] == "stopping" for event in up.events()))
    async with httpx.AsyncClient(base_url=fleet.url) as http:
        answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, 503)
    begin = time.monotonic()
    up.signal(signal.SIGINT)
    assert up.wait(timeout_s=60) == 130
    assert time.monotonic() - begin < 5
    assert leftovers_of("alpha", fleet.data_dir) == []
    up.start()
    async with open_client(fleet.url) as client:
        session = await finished(client, session)
    assert (session.status, session.reason, session.exit_code) == (Status.STOPPED, Reason.SHUTDOWN, 137)
    assert session.logs.state is LogsState.COMPLETE
    assert "Traceback" not in up.log.read_text()


async def test_why_a_session_was_ended_outlives_the_dockerd_that_ended_it(fleet: Fleet, image: str) -> None:
    """The target ends by itself, with an error, between the death of one DockerD and the birth of the next."""
    dockerd = fleet.start("alpha", "--dockerd-stop-grace", "50s")
    async with open_client(fleet.url) as client:
        session = await running(client, await client.create(image, _SLOW_TO_LEAVE, ttl="1s"))
        await _until(lambda: b"bye" in _output_of(session.id))
        dockerd.kill()
        api = docker.from_env()
        api.containers.get(f"bedrock-target-{session.id}").wait(timeout=30)
        api.close()
        dockerd.start()
        session = await finished(client, session)
        assert await content(client, session, "stdout.log") == b"bye\n"
    assert (session.status, session.reason, session.exit_code) == (Status.FINISHED, Reason.TTL, 7)
    assert containers_of("alpha") == []


async def test_a_dockerd_that_is_told_to_stop_does_not_wait_for_a_sessions_grace(fleet: Fleet, image: str) -> None:
    dockerd = fleet.start("alpha", "--dockerd-stop-grace", "8s")
    async with open_client(fleet.url) as client:
        session = await running(client, await client.create(image, _DEAF, ttl="300s"))
        await _until(lambda: b"deaf" in _output_of(session.id))
        await client.stop(session.id)
        await _until(lambda: any(event["event"] == "stop received" for event in dockerd.events()))
        dockerd.signal(signal.SIGTERM)
        await _until(lambda: any(event["event"] == "stopping" for event in dockerd.events()))
        begin = time.monotonic()
        dockerd.signal(signal.SIGTERM)
        assert dockerd.wait(timeout_s=60) == 130
        assert time.monotonic() - begin < 5
        assert containers_of("alpha") == [f"bedrock-target-{session.id}"]
        dockerd.start()
        session = await finished(client, session)
    assert (session.status, session.reason, session.exit_code) == (Status.STOPPED, Reason.STOP_REQUEST, 137)
    assert containers_of("alpha") == []


async def test_a_part_that_dies_ends_everything_and_says_why(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the part that hears of the engine's containers, with a session that does not want to end."""
    dies = trio.Event()

    async def run(watch: ContainerWatch) -> None:
        await dies.wait()
        raise KeyError("a defect")

    monkeypatch.setattr(ContainerWatch, "run", run)
    settings = _settings(tmp_path, **{"--dockerd-stop-grace": "50s"})

    async def use() -> Session:
        async with open_bedrock(settings) as url, open_client(url) as client:
            session = await running(client, await client.create(image, _DEAF, ttl="300s"))
            dies.set()
            await trio.sleep_forever()
            return session

    with trio.fail_after(60):
        begin = trio.current_time()
        with pytest.raises(KeyError, match="a defect"):
            await use()
        assert trio.current_time() - begin < 45
    assert leftovers_of("gamma", tmp_path) == []
    async with open_api(settings) as api, open_client(api.url) as client:
        (session,) = [item async for item in client.list()]
    assert (session.status, session.reason) == (Status.STOPPED, Reason.SHUTDOWN)


def _ends(agent: Agent) -> dict[str, Outcome]:
    events = [event for event in agent.report(None) if event.event_type in {EventType.END, EventType.FAILED}]
    return {event.session_id: decode_payload(event, Outcome) for event in events}


async def test_a_session_that_is_stopped_before_it_has_begun_ends(tmp_path: Path, image: str) -> None:
    settings = _settings(tmp_path)
    session_id: SessionId = new_session_id()
    order = StartOrder(image=image, command=["true"], ttl=10**10)
    with trio.fail_after(60):
        async with open_dockerd(settings) as agent:
            await agent.apply(
                [
                    Event(EventType.START, session_id, encode_payload(order)),
                    Event(EventType.STOPPED, session_id),
                ]
            )
            await _until(lambda: session_id in _ends(agent))
            outcome = _ends(agent)[session_id]
    assert (outcome.status, outcome.reason) == (Status.STOPPED, Reason.STOP_REQUEST)
    assert not (settings.volumes_dir / session_id / LOCK).exists()
    assert leftovers_of("gamma", tmp_path) == []


def _settings(data_dir: Path, **flags: str) -> Settings:
    engine = {name: os.environ[name] for name in ("BEDROCK_DOCKERD_DOCKER_HOST",) if name in os.environ}
    ports = {"--api-http-port": "0", "--api-socket-port": "0", "--dockerd-name": "gamma"}
    return load_settings(flags=ports | flags, environ={"BEDROCK_DATA_DIR": str(data_dir)} | engine)
