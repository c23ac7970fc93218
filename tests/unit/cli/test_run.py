"""`bedrock run` as a process, against a real API and a node that the test plays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from nodes import Node, open_node
from processes import Fleet, Process

from bedrock.client import open_client
from bedrock.model import Status


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def api(fleet: Fleet) -> Process:
    return fleet.api().start()


class Run:
    """A `bedrock run`. ``stderr`` is read as it comes."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.stderr = b""

    async def wait_stderr(self, words: bytes) -> None:
        assert self.process.stderr is not None
        with trio.fail_after(30):
            while words not in self.stderr:
                chunk = await self.process.stderr.receive_some()
                assert chunk, self.stderr.decode()
                self.stderr += chunk

    async def wait(self) -> int:
        assert self.process.stderr is not None
        with trio.fail_after(30):
            async for chunk in self.process.stderr:
                self.stderr += chunk
            return await self.process.wait()

    @property
    def lines(self) -> list[str]:
        return self.stderr.decode().splitlines()


@asynccontextmanager
async def bedrock_run(url: str, *arguments: str) -> AsyncIterator[Run]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "bedrock", "run", *arguments],
        env={**os.environ, "BEDROCK_URL": url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield Run(process)
    finally:
        process.kill()
        await process.wait()


async def wait_started(node: Node) -> str:
    """Poll until there is a session to start, and say that it runs; return its id."""
    with trio.fail_after(30):
        while not (events := (await node.poll())["events"]):
            await trio.sleep(0.02)
    session_id: str = events[0]["headers"]["session_id"]
    await node.poll(("session_running", session_id, b""))
    return session_id


async def wait_event(node: Node, event_type: str) -> Any:
    with trio.fail_after(30):
        while True:
            for event in (await node.poll())["events"]:
                if event["headers"]["event_type"] == event_type:
                    return event
            await trio.sleep(0.02)


async def test_a_second_ctrl_c_ends_run_with_130_and_one_line(fleet: Fleet) -> None:
    async with open_node(f"tcp://127.0.0.1:{fleet.socket_port}", "slow") as node:
        await node.poll()
        async with bedrock_run(fleet.url, "busybox", "sleep", "60") as run:
            session_id = await wait_started(node)
            run.process.send_signal(signal.SIGINT)
            await run.wait_stderr(b"stopping the session")
            await wait_event(node, "session_stopped")  # which this node leaves undone
            run.process.send_signal(signal.SIGINT)
            assert await run.wait() == 130
            assert run.lines == [
                "bedrock: stopping the session (once more: don't wait)",
                f"bedrock: session {session_id} is being stopped; not waiting for it",
            ]


@contextmanager
def api_that_hangs(port: int) -> Iterator[None]:
    """Something that takes connections at ``port`` and never answers."""
    with socket.create_server(("127.0.0.1", port)):
        yield


async def test_a_second_ctrl_c_is_heard_while_the_api_hangs_and_says_that_the_session_runs_on(
    fleet: Fleet, api: Process
) -> None:
    async with open_node(f"tcp://127.0.0.1:{fleet.socket_port}", "slow") as node:
        await node.poll()
        async with bedrock_run(fleet.url, "busybox", "sleep", "60") as run:
            session_id = await wait_started(node)
            api.stop()
            with api_that_hangs(fleet.http_port):
                run.process.send_signal(signal.SIGINT)
                await run.wait_stderr(b"stopping the session")
                run.process.send_signal(signal.SIGINT)
                assert await run.wait() == 130
            assert run.lines[-1] == (
                f"bedrock: the API has not answered, so session {session_id} may run on; "
                f"`bedrock stop {session_id}` stops it"
            )


async def test_a_stop_is_asked_for_again_until_the_api_is_back(fleet: Fleet, api: Process) -> None:
    async with open_node(f"tcp://127.0.0.1:{fleet.socket_port}", "slow") as node:
        await node.poll()
        async with bedrock_run(fleet.url, "busybox", "sleep", "60") as run:
            session_id = await wait_started(node)
            api.stop()
            run.process.send_signal(signal.SIGINT)
            await run.wait_stderr(b"stopping the session")
            api.start()
            async with open_client(fleet.url) as client:
                with trio.fail_after(30):
                    async for session in client.watch(session_id):
                        last = session
            assert last.status is Status.STOPPED


async def test_run_ends_for_a_node_that_brings_files_but_no_manifest(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "target.log"
    path.write_text("hello")
    async with open_node(f"tcp://127.0.0.1:{fleet.socket_port}", "other") as node, open_client(fleet.url) as client:
        await node.poll()
        async with bedrock_run(fleet.url, "busybox", "true") as run:
            session_id = await wait_started(node)
            await node.poll(("session_end", session_id, b""))
            await client.upload(session_id, path)
            assert await run.wait() == 0
            assert run.lines == [f"bedrock: session {session_id} finished: the node reported the end"]
