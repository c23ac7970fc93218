"""The Docker Engine, through the docker SDK in Trio threads.

Everything Bedrock asks of an engine goes through :class:`Engine`; what comes back are our own values and our own
errors, so that nothing above this module knows the SDK. Facts it takes care of: the SDK's client is not documented as
safe for threads, so each call borrows one of its own; the engine gains nothing from more than a few starts at once, so
they queue here; and a lost engine shows itself as one of a dozen exceptions, which all become
:class:`EngineUnavailable`.
"""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import docker
import docker.auth
import docker.errors
import docker.types
import msgspec
import requests
import trio
import urllib3.exceptions

from bedrock.concurrency.threads import ThreadStream, open_thread_stream, run_closable
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

_T = TypeVar("_T")

# More starts at once than the machine has cores only make each of them slower.
_STARTS_AT_ONCE = 3
_CALLS_AT_ONCE = 16
_CALL_TIMEOUT_S = 120
# A call that takes longer than its connection may be silent is given up all the same.
_CALL_LIMIT_S = _CALL_TIMEOUT_S + 10.0
_TAIL_LINES = 20
_TAIL_CHARACTERS = 2000


@contextmanager
def _translated(missing: type[EngineError] = EngineError) -> Iterator[None]:
    """Turn what the SDK raises into our errors. ``missing`` is raised for a 404."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise ImageMissing(_sentence(error)) from None
    except docker.errors.NotFound as error:
        raise missing(_sentence(error)) from None
    except docker.errors.APIError as error:
        raise EngineError(_sentence(error)) from None
    except (
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        docker.errors.DockerException,
        ConnectionError,
    ) as error:
        raise EngineUnavailable(f"the Docker Engine can't be reached: {error}") from None


def _sentence(error: docker.errors.APIError) -> str:
    return str(error.explanation or error)


class _StreamHandle:
    """Lets one thread end a stream that another one is reading. ``close`` may come before the stream is there."""

    def __init__(self, client: docker.APIClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._stream: docker.types.CancellableStream[Any] | None = None
        self._closed = False

    def watch(self, stream: docker.types.CancellableStream[Any]) -> docker.types.CancellableStream[Any]:
        with self._lock:
            self._stream = stream
            if self._closed:
                stream.close()
        return stream

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._stream is not None:
                self._stream.close()
        self._client.close()


class _Chunks(io.RawIOBase):
    """Chunks that come one after the other, as a file to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


class Engine:
    """One Docker Engine. Made by :func:`open_engine`; every method raises :class:`EngineError` or a kind of it.

    A cancelled call returns when the engine has answered, or after :meth:`hurry`: whether it took effect is then
    unknown, as it is after :class:`EngineUnavailable`, so callers name what they create and look it up by name.
    """

    def __init__(self, base_url: str, api_version: str) -> None:
        self._base_url = base_url
        self._api_version = api_version
        self._idle: list[docker.APIClient] = []
        self._calls = trio.CapacityLimiter(_CALLS_AT_ONCE)
        self._starts = trio.CapacityLimiter(_STARTS_AT_ONCE)
        self._limit_s = _CALL_LIMIT_S
        self._under_way: set[trio.CancelScope] = set()

    def hurry(self, limit_s: float) -> None:
        """Let no call take longer than ``limit_s`` seconds from now on, those that are under way included."""
        self._limit_s = limit_s
        for scope in self._under_way:
            scope.deadline = min(scope.deadline, trio.current_time() + limit_s)

    def _client(self, timeout_s: int | None = _CALL_TIMEOUT_S) -> docker.APIClient:
        # The stubs don't know that None means no limit.
        return docker.APIClient(self._base_url, version=self._api_version, timeout=cast("int", timeout_s))

    async def _call(
        self,
        function: Callable[[docker.APIClient], _T],
        *,
        limiter: trio.CapacityLimiter | None = None,
        missing: type[EngineError] = EngineError,
    ) -> _T:
        def work() -> _T:
            with _translated(missing):
                client = self._idle.pop() if self._idle else self._client()
                result = function(client)
                self._idle.append(client)  # not after an error: its connection may be in an unknown state
                return result

        async with limiter or self._calls:
            # A call that is under way is waited for, since what it does would otherwise happen behind our back.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._limit_s) as scope:
                self._under_way.add(scope)
                try:
                    return await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)
                finally:
                    self._under_way.discard(scope)
        raise EngineUnavailable(f"the Docker Engine did not answer within {self._limit_s:g} s")

    async def _read(
        self,
        function: Callable[[docker.APIClient], _T],
        *,
        limiter: trio.CapacityLimiter,
        missing: type[EngineError],
        waits: bool,
    ) -> _T:
        """Call what takes long, reading piece by piece, and ends with the next piece when it is cancelled.

        ``function`` calls :func:`trio.from_thread.check_cancelled` before it does anything with a piece. That it has
        ended is waited for where it has something to clean up (``waits``).
        """

        def work() -> _T:
            with _translated(missing):
                client = self._client()
                try:
                    return function(client)
                finally:
                    client.close()

        return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=not waits)

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
        handle = _StreamHandle(client)

        def messages() -> Iterator[dict[str, Any]]:
            with _translated(ImageMissing):
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
                read_only=plan.read_only or None,
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
            with _translated(ContainerMissing):
                return function(self._client(timeout_s=None), name)

        return await trio.to_thread.run_sync(work, limiter=self._calls)

    async def read_output(self, stream: OutputStream, sink: Sink) -> bool:
        """Hand what is in ``stream`` to ``sink``, in a thread of its own, and close it; see :meth:`OutputStream.read`.

        Cancelled, it ends when ``sink`` returns.
        """

        def work() -> bool:
            with _translated():
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
                with tarfile.open(fileobj=_Chunks(client.export(created["Id"])), mode="r|") as archive:
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

        handle = _StreamHandle(client)

        def events() -> Iterator[dict[str, Any]]:
            since = datetime.now(UTC).timestamp() - 2
            with _translated():
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
        with _translated():
            client = docker.APIClient(docker_host, version="auto", timeout=10)
            try:
                return str(client.api_version)
            finally:
                client.close()

    engine = Engine(docker_host, await trio.to_thread.run_sync(negotiate))
    try:
        yield engine
    finally:
        for client in engine._idle:
            client.close()
