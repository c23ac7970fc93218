"""The Docker Engine, through the docker SDK in Trio threads.

Everything Bedrock asks of an engine goes through :class:`Engine`; what comes back are our own values and our own
errors, so that nothing above this module knows the SDK. Facts it takes care of: the SDK's client is not documented as
safe for threads, so each call borrows one of its own; the engine gains nothing from more than a few starts at once, so
they queue here; and a lost engine shows itself as one of a dozen exceptions, which all become
:class:`EngineUnavailable`.
"""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import docker
import docker.auth
import docker.errors
import docker.types
import msgspec
import requests
import trio

from bedrock.concurrency.threads import ThreadStream, open_thread_stream, run_closable
from bedrock.dockerd.engine_calls import Chunks, EngineCalls, StreamHandle, broken_lines, translated
from bedrock.dockerd.engine_values import (
    ContainerMissing,
    ContainerPlan,
    ContainerState,
    EngineError,
    EngineUnavailable,
    ImageInfo,
    ImageMissing,
    overlay_layers,
)
from bedrock.dockerd.output_stream import OutputStream, Sink, attach, open_log
from bedrock.trace.paths import text_of

_TAIL_LINES = 20
_TAIL_CHARACTERS = 2000


class Engine(EngineCalls):
    """One Docker Engine. Made by :func:`open_engine`; every method raises :class:`EngineError` or a kind of it."""

    async def info(self) -> dict[str, Any]:
        """The engine's description of itself and of its host."""
        found: dict[str, Any] = await self._call(lambda client: client.info())
        return found

    async def image(self, name: str) -> ImageInfo:
        """Look up an image on this host. Raises :class:`ImageMissing`."""
        raw = await self._call(lambda client: cast("Any", client).inspect_image(name), missing=ImageMissing)
        config = raw.get("Config") or {}
        return ImageInfo(
            id=raw["Id"],
            entrypoint=list(config.get("Entrypoint") or []),
            cmd=list(config.get("Cmd") or []),
            stop_signal=config.get("StopSignal") or "SIGTERM",
            labels=dict(config.get("Labels") or {}),
            digests=list(raw.get("RepoDigests") or []),
            layers=overlay_layers(raw.get("GraphDriver") or {}),
        )

    def open_pull(self, name: str) -> AbstractAsyncContextManager[ThreadStream[dict[str, Any]]]:
        """Fetch an image; the stream gives the engine's progress messages. Leaving it ends the fetch."""
        client = self._client(timeout_s=None)
        repository, tag = split_image_name(name)
        handle = StreamHandle(client)

        def messages() -> Iterator[dict[str, Any]]:
            with translated(ImageMissing), broken_lines():
                # The SDK's own pull() gives a stream that nobody can close from outside, so the request is made here.
                registry, _ = docker.auth.resolve_repository_name(repository)
                header = docker.auth.get_config_header(client, registry)
                response = client.post(
                    f"{client.base_url}/v{self._api_version}/images/create",
                    params={"fromImage": repository, "tag": tag},
                    headers={"X-Registry-Auth": header} if header else {},
                    stream=True,
                    timeout=None,
                )
                try:
                    response.raise_for_status()
                except requests.exceptions.HTTPError as error:
                    raise docker.errors.create_api_error_from_http_exception(error) from None
                lines = response.iter_lines()
                for line in handle.watch(docker.types.CancellableStream(lines, response)):
                    if line:
                        yield msgspec.json.decode(line)

        return open_thread_stream(messages, handle.close, name=f"pull {name}", max_buffer=10_000)

    async def create_bind_volume(self, name: str, directory: Path, labels: Mapping[str, str]) -> None:
        """Create a named volume that is a bind of ``directory``. Creating it again is not an error."""
        options = {"type": "none", "o": "bind", "device": str(directory)}
        await self._call(lambda client: client.create_volume(name, "local", options, dict(labels)))

    async def remove_volume(self, name: str) -> None:
        """Remove a volume object (not what it is bound to); one that is gone already is not an error."""
        try:
            await self._call(lambda client: client.remove_volume(name), missing=ContainerMissing)
        except ContainerMissing:
            return

    async def create(self, plan: ContainerPlan) -> str:
        """Create a container and return its id. Raises :class:`ImageMissing`."""

        def work(client: docker.APIClient) -> str:
            host_config = client.create_host_config(
                binds=list(plan.binds),
                cap_add=list(plan.cap_add) or None,
                pid_mode=plan.pid_mode,
                network_mode=plan.network_mode,
                init=plan.init or None,
                security_opt=list(plan.security_opt) or None,
                privileged=plan.privileged,
                # Whatever the engine's default is, we must be able to read the output, and it must have a bound. Of the
                # engine's own formats this is the one that keeps bytes which are no UTF-8, and the fastest.
                log_config=docker.types.LogConfig(
                    type="local", config={"max-size": str(plan.log_bytes), "max-file": "2", "compress": "false"}
                ),
            )
            created = client.create_container(
                plan.image,
                command=list(plan.command),
                entrypoint=None if plan.entrypoint is None else list(plan.entrypoint),
                name=plan.name,
                labels=dict(plan.labels),
                host_config=host_config,
            )
            return str(created["Id"])

        return await self._call(work)

    async def start(self, container: str) -> None:
        await self._call(lambda client: client.start(container), limiter=self._starts, missing=ContainerMissing)

    async def kill(self, container: str, signal: str) -> None:
        """Send a signal. A container that has ended, or is gone, is not an error."""
        try:
            await self._call(lambda client: client.kill(container, signal), missing=ContainerMissing)
        except ContainerMissing:
            return
        except EngineUnavailable:
            raise
        except EngineError:
            # "is not running" has no code of its own; a second look tells it from a real refusal.
            if (await self.inspect(container)).status == "running":
                raise

    async def remove(self, container: str) -> None:
        """Remove a container, killing it if need be, with its anonymous volumes. One that is gone is not an error."""
        try:
            await self._call(
                lambda client: client.remove_container(container, v=True, force=True), missing=ContainerMissing
            )
        except ContainerMissing:
            return
        except EngineUnavailable:
            raise
        except EngineError as error:
            if "already in progress" not in str(error):
                raise

    async def inspect(self, container: str) -> ContainerState:
        """Look at a container, by id or name. Raises :class:`ContainerMissing`."""
        raw = await self._call(lambda client: client.inspect_container(container), missing=ContainerMissing)
        state = raw["State"]
        return ContainerState(
            id=raw["Id"],
            name=raw["Name"].removeprefix("/"),
            status=state["Status"],
            pid=state["Pid"],
            exit_code=state["ExitCode"],
            oom_killed=state["OOMKilled"],
            error=state["Error"],
            started_at=_engine_time(state["StartedAt"]),
            finished_at=_engine_time(state["FinishedAt"]),
            labels=dict(raw["Config"].get("Labels") or {}),
            image_id=raw["Image"],
        )

    async def list_names(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Names of all containers, running or not, that carry ``labels``, each with its session label."""
        filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
        raw = await self._call(lambda client: client.containers(all=True, filters=filters))
        return {item["Names"][0].removeprefix("/"): item["Labels"].get("bedrock.session", "") for item in raw}

    async def list_volumes(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Names of all volumes that carry ``labels``, each with its session label."""
        filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
        raw = await self._call(lambda client: client.volumes(filters=filters))
        return {item["Name"]: (item.get("Labels") or {}).get("bedrock.session", "") for item in raw["Volumes"] or []}

    async def tail(self, container: str) -> str:
        """The last lines that a container has printed; empty for one that is gone."""
        try:
            raw = await self._call(lambda client: client.logs(container, tail=_TAIL_LINES), missing=ContainerMissing)
        except ContainerMissing:
            return ""
        return raw.decode("utf-8", "replace").strip()[-_TAIL_CHARACTERS:]

    async def attach_output(self, container: str) -> OutputStream:
        """Attach to what a container prints from now on. Raises :class:`ContainerMissing`."""
        return await self._open_output(attach, container)

    async def open_log(self, container: str, *, follow: bool) -> OutputStream:
        """Open the log of what a container has printed. Raises :class:`ContainerMissing`."""
        return await self._open_output(partial(open_log, follow=follow), container)

    async def _open_output(self, function: Callable[[docker.APIClient, str], OutputStream], name: str) -> OutputStream:
        def work() -> OutputStream:
            with translated(ContainerMissing):
                stream = function(self._client(timeout_s=None), name)
            try:
                trio.from_thread.check_cancelled()
            except trio.Cancelled:
                # What nobody reads would make the container wait.
                stream.close()
                raise
            return stream

        with trio.move_on_after(self._limit_s):
            return await trio.to_thread.run_sync(work, limiter=self._calls, abandon_on_cancel=True)
        raise EngineUnavailable(f"the Docker Engine did not answer within {self._limit_s:g} s")

    async def read_output(self, stream: OutputStream, sink: Sink) -> bool:
        """Hand what is in ``stream`` to ``sink``, in a thread of its own, and close it; see :meth:`OutputStream.read`.

        Cancelled, it ends when ``sink`` returns.
        """

        def work() -> bool:
            with translated():
                return stream.read(sink)

        return await run_closable(work, stream.close, name="output")

    async def read_image_file(self, image: str, path: str, *, name: str, labels: Mapping[str, str]) -> bytes:
        """Return the tar archive of one path in an image, through a container that is never started."""

        def work(client: docker.APIClient) -> bytes:
            created = client.create_container(image, command=["-"], name=name, labels=dict(labels))
            try:
                chunks, _ = client.get_archive(created["Id"], path)
                return b"".join(chunks)
            finally:
                client.remove_container(created["Id"], force=True)

        return await self._call(work, missing=ImageMissing)

    async def list_image(self, image: str, *, name: str, labels: Mapping[str, str]) -> list[tuple[str, int]]:
        """Return path and size of each regular file of an image, read from its archive as it streams by.

        A path is what :func:`bedrock.trace.paths.text_of` makes of its bytes.
        """

        def work(client: docker.APIClient) -> list[tuple[str, int]]:
            created = client.create_container(image, command=["-"], name=name, labels=dict(labels))
            try:
                with tarfile.open(fileobj=Chunks(client.export(created["Id"])), mode="r|") as archive:
                    found = []
                    for member in archive:
                        trio.from_thread.check_cancelled()
                        if member.isreg():
                            path = "/" + member.name.removeprefix("./").lstrip("/")
                            found.append((text_of(path.encode("utf-8", "surrogateescape")), member.size))
                    return found
            except tarfile.TarError as error:
                raise EngineError(f"the archive of image {image} can't be read: {error}") from None
            finally:
                client.remove_container(created["Id"], force=True)

        return await self._read(work, limiter=self._calls, missing=ImageMissing, waits=True)

    def open_events(self, labels: Mapping[str, str]) -> AbstractAsyncContextManager[ThreadStream[dict[str, Any]]]:
        """Follow what happens to the containers that carry ``labels``.

        The stream also ends when the engine goes away, without an error: callers take the end as a disconnect. It
        begins two seconds back, since the engine confirms the request before it has subscribed the reader.
        """
        client = self._client(timeout_s=None)
        filters = {
            "type": ["container"],
            "event": ["die", "destroy"],
            "label": [f"{key}={value}" for key, value in labels.items()],
        }

        handle = StreamHandle(client)

        def events() -> Iterator[dict[str, Any]]:
            since = datetime.now(UTC).timestamp() - 2
            with translated(), broken_lines():
                yield from handle.watch(client.events(since=int(since), filters=filters, decode=True))

        return open_thread_stream(events, handle.close, name="engine events", max_buffer=10_000)


def split_image_name(name: str) -> tuple[str, str | None]:
    """Split ``repo[:tag]`` or ``repo@digest`` the way the engine's pull wants it; no tag means ``latest``."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    head, slash, last = name.rpartition("/")
    repository, colon, tag = last.partition(":")
    return head + slash + repository, tag if colon else "latest"


def _engine_time(text: str) -> datetime | None:
    """Parse the engine's RFC 3339 time of nanoseconds; the zero time means that it has not happened."""
    if text.startswith("0001-"):
        return None
    moment = msgspec.convert(text, datetime)
    return moment.astimezone(UTC)


@asynccontextmanager
async def open_engine(docker_host: str) -> AsyncIterator[Engine]:
    """Connect to the engine at ``docker_host`` and agree on an API version. Raises :class:`EngineUnavailable`."""

    def negotiate() -> str:
        with translated():
            client = docker.APIClient(docker_host, version="auto", timeout=10)
            try:
                return str(client.api_version)
            finally:
                client.close()

    engine = Engine(docker_host, await trio.to_thread.run_sync(negotiate))
    try:
        yield engine
    finally:
        engine.close()
