"""One tracer for all sessions of a node: shared, killed, stopped, replaced, adopted."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import docker
import pytest
import trio
from engine_facts import containers_of, host_tracers_of, leftovers_of
from processes import Fleet
from sessions import content, events_of, finished, running

from bedrock.client import Client, open_client
from bedrock.model import Session, Status, TraceState
from bedrock.tracer import OWN_IMAGE

NODE = "shared"
AT_ONCE = 8


@pytest.fixture
def host(fleet: Fleet) -> Fleet:
    """A node whose tracer is given little time, so that what depends on it is seen soon."""
    fleet.environment["BEDROCK_DOCKERD_TRACER_TIMEOUT"] = "10s"
    fleet.environment["BEDROCK_DOCKERD_SLOTS"] = str(2 * AT_ONCE)
    fleet.api().start()
    fleet.filemd().start()
    return fleet


def _pid_of(container: str) -> int:
    api = docker.from_env()
    try:
        return int(api.containers.get(container).attrs["State"]["Pid"])
    finally:
        api.close()


async def _begin(client: Client, image: str, command: str) -> list[Session]:
    """Sessions that run at the same time, each of which writes a file of its own name."""
    sessions = []
    for number in range(AT_ONCE):
        script = f"echo {number} > /tmp/own-{number}; {command}"
        sessions.append(await client.create(image, ["sh", "-c", script], ttl="120s"))
    return [await running(client, session) for session in sessions]


async def test_sessions_at_the_same_time_share_one_tracer_and_see_each_their_own(
    host: Fleet, image: str, tmp_path: Path
) -> None:
    host.dockerd(NODE).start()
    async with open_client(host.url) as client:
        sessions = await _begin(client, image, "while [ ! -e /tmp/go ]; do sleep 0.1; done")
        assert len(host_tracers_of(NODE)) == 1
        assert len(containers_of(NODE)) == AT_ONCE
        for number, session in enumerate(sessions):
            await client.stop(session.id)
            session = await finished(client, session)
            assert session.trace is not None
            assert session.trace.state is TraceState.COMPLETE, session.trace
            written = {event.path for event in await events_of(client, session, tmp_path) if event.op == "write"}
            assert written == {f"/tmp/own-{number}"}


async def test_when_the_tracer_is_killed_its_sessions_say_so_and_the_next_one_is_traced(
    host: Fleet, image: str
) -> None:
    dockerd = host.dockerd(NODE).start()
    async with open_client(host.url) as client:
        sessions = await _begin(client, image, "sleep 100")
        (tracer,) = host_tracers_of(NODE)
        os.kill(_pid_of(tracer), signal.SIGKILL)
        for session in sessions:
            session = await finished(client, session)
            assert session.status is Status.FAILED
            assert session.trace is not None
            assert session.trace.state is TraceState.PARTIAL
        session = await finished(client, await client.create(image, ["true"], ttl="60s"))
        assert session.trace is not None
        assert session.trace.state is TraceState.COMPLETE
    assert dockerd.stop() == 0
    assert leftovers_of(NODE, host.data_dir) == []


async def test_a_tracer_that_is_stopped_costs_its_sessions_their_traces_and_is_replaced(
    host: Fleet, image: str
) -> None:
    dockerd = host.dockerd(NODE).start()
    async with open_client(host.url) as client:
        sessions = await _begin(client, image, "while [ ! -e /tmp/go ]; do sleep 0.1; done")
        (tracer,) = host_tracers_of(NODE)
        os.kill(_pid_of(tracer), signal.SIGSTOP)
        for session in sessions:
            await client.stop(session.id)
        for session in sessions:
            session = await finished(client, session)
            assert session.status is Status.STOPPED
            assert session.trace is not None
            assert session.trace.state is TraceState.PARTIAL
        session = await finished(client, await client.create(image, ["true"], ttl="60s"))
        assert session.trace is not None
        assert session.trace.state is TraceState.COMPLETE, session
    assert dockerd.stop() == 0
    assert leftovers_of(NODE, host.data_dir) == []


@pytest.fixture
def other_version() -> Iterator[str]:
    """Our tracer once more, as an image of another id."""
    api = docker.from_env()
    name = "bedrock-test/tracer:next"
    try:
        source = api.containers.create(OWN_IMAGE, ["none"])
        try:
            programs = b"".join(source.export())
        finally:
            source.remove()
        archive = io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(programs)) as old, tarfile.open(fileobj=archive, mode="w") as new:
            for member in old:
                if member.isfile() and member.name in {"bdtrace", "gate"}:
                    new.addfile(member, old.extractfile(member))
        labels = [f"LABEL {key}={value}" for key, value in api.images.get(OWN_IMAGE).labels.items()]
        changes = ["ENV PATH=/", "LABEL next=1", *labels]
        api.api.import_image_from_data(
            archive.getvalue(), repository="bedrock-test/tracer", tag="next", changes=changes
        )
        yield name
        api.images.remove(name, force=True)
    finally:
        api.close()


async def test_a_new_version_starts_beside_the_old_one_which_serves_its_sessions_to_their_end(
    host: Fleet, image: str, other_version: str
) -> None:
    dockerd = host.dockerd(NODE).start()
    async with open_client(host.url) as client:
        sessions = await _begin(client, image, "while [ ! -e /tmp/go ]; do sleep 0.1; done")
        (old,) = host_tracers_of(NODE)
        assert dockerd.stop() == 0
        dockerd = host.process(
            "bedrock.dockerd",
            "--dockerd-name",
            NODE,
            "--dockerd-bedrock-tracer-image",
            other_version,
            name="dockerd-next",
        ).start()
        session = await finished(client, await client.create(image, ["true"], ttl="60s"))
        assert session.trace is not None
        assert session.trace.state is TraceState.COMPLETE
        assert len(host_tracers_of(NODE)) == 2
        for session in sessions:
            await client.stop(session.id)
            session = await finished(client, session)
            assert session.trace is not None
            assert session.trace.state is TraceState.COMPLETE, session.trace
        with trio.fail_after(30):
            while old in await trio.to_thread.run_sync(partial(host_tracers_of, NODE)):
                await trio.sleep(0.1)
    assert dockerd.stop() == 0
    assert leftovers_of(NODE, host.data_dir) == []


async def test_a_dockerd_that_is_killed_finds_its_tracer_and_sessions_again(host: Fleet, image: str) -> None:
    dockerd = host.dockerd(NODE).start()
    async with open_client(host.url) as client:
        sessions = await _begin(client, image, "while [ ! -e /tmp/go ]; do sleep 0.1; done")
        before = host_tracers_of(NODE)
        dockerd.kill()
        dockerd.start()
        for session in sessions:
            await client.stop(session.id)
            session = await finished(client, session)
            assert session.trace is not None
            assert session.trace.state is TraceState.COMPLETE, session.trace
            assert await content(client, session, "tracer.log") == b""
        assert host_tracers_of(NODE) == before
    assert dockerd.stop() == 0
    assert leftovers_of(NODE, host.data_dir) == []
