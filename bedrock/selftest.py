"""A session that reads a secret which nobody else knows, traced on this host: does the trace tell of it?"""

from __future__ import annotations

import io
import secrets
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import docker
import docker.errors
import requests
import trio

from bedrock.client import Client, open_client
from bedrock.concurrency.groups import first_member
from bedrock.embedded import open_bedrock
from bedrock.errors import BedrockError
from bedrock.model import NodeName, Session, Status, TraceState
from bedrock.settings import Settings
from bedrock.trace.events import read_events
from bedrock.trace.verdict import read_report
from bedrock.tracer import OWN_IMAGE
from bedrock.tracer.build import provide_image
from bedrock.volume import STDOUT, TRACE_FILE, TRACER_STATUS

_REPOSITORY = "bedrock/selftest"
_PROGRAM = "bdtrace"
_LIMIT_S = 60
_CALL_S = 30
_REMOVE_S = 10


class SelfTestFailed(BedrockError):
    """The session did not run, or its trace does not tell what it did; the text says how far it got."""


async def run_self_test(settings: Settings) -> str:
    """Run all of Bedrock for a moment, and one session in it; return a sentence on what was seen.

    The settings are this host's own but for the node's name, the ports and the directory, which is a new one below
    ``data_dir``. Everything is removed again. Raises :class:`SelfTestFailed`.
    """
    nonce = secrets.token_hex(16)
    try:
        settings.common.data_dir.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix="doctor-", dir=settings.common.data_dir) as name,
            trio.fail_after(_LIMIT_S),
        ):
            directory = Path(name)
            own = replace(
                settings,
                common=replace(settings.common, data_dir=directory),
                api=replace(settings.api, http_host="127.0.0.1", http_port=0, socket_host="127.0.0.1", socket_port=0,
                            store_url=f"sqlite:///{directory}/store.db"),
                dockerd=replace(settings.dockerd, name=NodeName(f"doctor-{nonce[:8]}")),
            )  # fmt: skip
            async with (
                _open_image(nonce, settings.dockerd.docker_host) as image,
                open_bedrock(own) as url,
                open_client(url) as client,
            ):
                return await _judge(client, image, nonce, directory)
    except* (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as group:
        raise SelfTestFailed(f"the session could not be prepared: {first_member(group)}") from None
    except* trio.TooSlowError:
        raise SelfTestFailed(f"it did not end within {_LIMIT_S} seconds") from None
    except* BedrockError as group:
        raise SelfTestFailed(str(first_member(group))) from None
    raise AssertionError("unreachable")


async def _judge(client: Client, image: str, nonce: str, directory: Path) -> str:
    session = await client.create(image, [f"/{_PROGRAM}", "--print", f"/{nonce}"], ttl=f"{_LIMIT_S}s", trace="events")
    async for state in client.watch(session.id, until_stored=True):
        session = state
    if session.status is not Status.FINISHED or session.trace is None:
        raise SelfTestFailed(f"the session {session.status}: {session.message}")
    await client.download(session.id, STDOUT, directory / STDOUT)
    if (directory / STDOUT).read_text() != nonce:
        raise SelfTestFailed("the session ran, but its output is not what it was to print")
    return await _seen(client, session, nonce, directory)


async def _seen(client: Client, session: Session, nonce: str, directory: Path) -> str:
    verdict = session.trace
    assert verdict is not None
    await client.download(session.id, TRACER_STATUS, directory / TRACER_STATUS)
    report = read_report(directory / TRACER_STATUS)
    if report is not None and report.state == "foreign":
        return f"the session ran; its trace is {verdict.state}: {verdict.message}"
    if report is None or verdict.state is not TraceState.COMPLETE:
        raise SelfTestFailed(f"the trace is {verdict.state}: {verdict.message}")
    await client.download(session.id, TRACE_FILE, directory / TRACE_FILE)
    events = await trio.to_thread.run_sync(lambda: list(read_events(directory / TRACE_FILE)))
    size = sum(event.result or 0 for event in events if event.op == "read" and event.path == f"/{nonce}")
    if size != len(nonce):
        raise SelfTestFailed(f"the trace tells of {size} bytes that were read of /{nonce}, not of {len(nonce)}")
    remark = f"; {verdict.message}" if verdict.message else ""
    return f"a session read a secret, and its trace tells of it; attached in {report.attach_ms:.0f} ms{remark}"


@asynccontextmanager
async def _open_image(nonce: str, docker_host: str) -> AsyncIterator[str]:
    """An image of one static program, and of a file whose name and content are the nonce."""
    image = f"{_REPOSITORY}:{nonce}"
    await trio.to_thread.run_sync(_make_image, image, nonce, docker_host)
    try:
        yield image
    finally:
        with trio.move_on_after(_REMOVE_S, shield=True):
            await trio.to_thread.run_sync(_remove_image, image, docker_host, abandon_on_cancel=True)


def _make_image(image: str, nonce: str, docker_host: str) -> None:
    provide_image(OWN_IMAGE, docker_host)
    with _client(docker_host) as client:
        source = client.containers.create(OWN_IMAGE, ["none"])
        try:
            chunks, _ = source.get_archive(f"/{_PROGRAM}")
            archive = io.BytesIO(b"".join(chunks))
        finally:
            source.remove()
        with tarfile.open(fileobj=archive, mode="a") as tar:
            info = tarfile.TarInfo(nonce)
            info.size, info.mode = len(nonce), 0o444
            tar.addfile(info, io.BytesIO(nonce.encode()))
        repository, _, tag = image.rpartition(":")
        client.api.import_image_from_data(archive.getvalue(), repository=repository, tag=tag)


def _remove_image(image: str, docker_host: str) -> None:
    with _client(docker_host) as client:
        client.images.remove(image, force=True)


def _client(docker_host: str) -> AbstractContextManager[docker.DockerClient]:
    return closing(docker.DockerClient(docker_host, version="auto", timeout=_CALL_S))
