"""Images that come from a registry: our own, on loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest
import trio
from processes import free_port
from sessions import finished, running

from bedrock.client import Client
from bedrock.model import Reason, Status


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, image: str) -> Iterator[str]:
    """A registry that has our image, of which this host has forgotten the name."""
    program = shutil.which("docker-registry")
    assert program is not None, "scripts/test installs docker-registry"
    directory = tmp_path_factory.mktemp("registry")
    address = f"127.0.0.1:{free_port()}"
    config = directory / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {directory}/data\nhttp:\n  addr: {address}\n"
    )
    process = subprocess.Popen([program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                httpx.get(f"http://{address}/v2/")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        client = docker.from_env()
        name = f"{address}/bedrock-test/pulled"
        client.images.get(image).tag(name, "1")
        assert "error" not in client.images.push(name, "1")
        client.images.remove(f"{name}:1")
        client.close()
        yield address
    finally:
        process.terminate()
        process.wait()


def forget(name: str) -> None:
    client = docker.from_env()
    client.images.remove(name, force=True)
    client.close()


async def test_an_image_that_is_not_here_is_pulled_once_for_all_who_wait(client: Client, registry: str) -> None:
    name = f"{registry}/bedrock-test/pulled:1"
    sessions = [await client.create(name, "cat /srv/verse.txt", ttl="30s") for _ in range(3)]
    for session in sessions:
        ended = await finished(client, session)
        assert (ended.status, ended.exit_code) == (Status.FINISHED, 0), ended.message
        assert ended.image == name
    forget(name)


async def test_an_image_that_the_registry_does_not_have_is_not_found(client: Client, registry: str) -> None:
    ended = await finished(client, await client.create(f"{registry}/bedrock-test/nothing:1", "true", ttl="30s"))
    assert (ended.status, ended.reason) == (Status.FAILED, Reason.IMAGE_NOT_FOUND)
    assert "bedrock-test/nothing" in ended.message


async def test_a_registry_that_does_not_answer_delays_nobody_else_and_the_wait_can_be_stopped(
    client: Client, image: str, tmp_path: Path
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        stuck = await client.create(f"127.0.0.1:{port}/bedrock-test/stuck:1", "true", ttl="30s")
        with trio.fail_after(20):
            async for state in client.watch(stuck.id):
                if state.message.startswith("pulling "):
                    break
        other = await finished(client, await client.create(image, "true", ttl="30s"))
        assert other.status is Status.FINISHED
        found = await client.get(stuck.id)
        assert found.session.status is Status.PENDING
        await client.stop(stuck.id)
        ended = await finished(client, stuck)
        assert (ended.status, ended.reason) == (Status.STOPPED, Reason.STOP_REQUEST)
    assert await running(client, other)
