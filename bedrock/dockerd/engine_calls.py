"""How the Docker Engine is called: in threads, each with a client of its own, with its errors made ours.

The docker SDK knows nothing of Trio. Facts this takes care of: the SDK's client is not documented as safe for threads,
so each call borrows one of its own; and a lost engine shows itself as one of a dozen exceptions, which all become
:class:`EngineUnavailable`.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import docker
import docker.errors
import docker.types
import msgspec
import requests
import structlog
import trio
import urllib3.exceptions

from bedrock.concurrency.backoff import backoff_delays
from bedrock.dockerd.engine_values import EngineError, EngineUnavailable, ImageMissing

_T = TypeVar("_T")

log = structlog.get_logger(__name__)

# More starts at once than the machine has cores only make each of them slower.
_STARTS_AT_ONCE = 3
_CALLS_AT_ONCE = 16
_CALL_TIMEOUT_S = 120
# A call that takes longer than its connection may be silent is given up all the same.
_CALL_LIMIT_S = _CALL_TIMEOUT_S + 10.0
# Between two tries to reach an engine that is away.
_PING_FIRST_S, _PING_MAX_S = 0.1, 2.0
# What an engine answers whose containerd has gone before it: a refusal in form, and not one in fact.
_LAST_WORDS = (
    "transport is closing",
    "error reading from server",
    "context canceled",
    "dial unix",
    "grpc: ",
    "shutting down",
    "ttrpc: closed",
    "not yet ready",
)


@contextmanager
def translated(missing: type[EngineError] = EngineError) -> Iterator[None]:
    """Turn what the SDK raises into our errors. ``missing`` is raised for a 404."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise ImageMissing(_sentence(error)) from None
    except docker.errors.NotFound as error:
        raise missing(_sentence(error)) from None
    except docker.errors.APIError as error:
        if error.is_server_error() and any(word in str(error) for word in _LAST_WORDS):
            raise EngineUnavailable(f"the Docker Engine is going down: {_sentence(error)}") from None
        raise EngineError(_sentence(error)) from None
    except (
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        docker.errors.DockerException,
        ConnectionError,
    ) as error:
        raise EngineUnavailable(f"the Docker Engine can't be reached: {error}") from None


@contextmanager
def broken_lines() -> Iterator[None]:
    """Turn into :class:`EngineUnavailable` what comes of a line of JSON that an engine has not written to its end."""
    try:
        yield
    except (docker.errors.StreamParseError, msgspec.DecodeError, ValueError) as error:
        raise EngineUnavailable(f"the Docker Engine broke off in the middle of a line: {error}") from None


def _sentence(error: docker.errors.APIError) -> str:
    return str(error.explanation or error)


class StreamHandle:
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


class Chunks(io.RawIOBase):
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


class EngineCalls:
    """The calls of one engine.

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
        self._asking = trio.Lock()
        self._is_away = False

    def hurry(self, limit_s: float) -> None:
        """Let no call take longer than ``limit_s`` seconds from now on, those that are under way included."""
        self._limit_s = limit_s
        for scope in self._under_way:
            scope.deadline = min(scope.deadline, trio.current_time() + limit_s)

    def _client(self, timeout_s: int | None = _CALL_TIMEOUT_S) -> docker.APIClient:
        # The stubs don't know that None means no limit.
        return docker.APIClient(self._base_url, version=self._api_version, timeout=cast("int", timeout_s))

    async def ping(self) -> None:
        """Return when the engine has answered. Raises :class:`EngineUnavailable`."""
        await self._call(lambda client: client.ping())

    async def wait_back(self) -> None:
        """Return when the engine answers. Any number of tasks may wait for that; they ask one after the other."""
        async with self._asking:
            for delay_s in backoff_delays(_PING_FIRST_S, _PING_MAX_S):
                try:
                    await self.ping()
                except EngineError as error:
                    if not self._is_away:
                        log.warning("the Docker Engine is away; it is waited for", error=str(error))
                    self._is_away = True
                    await trio.sleep(delay_s)
                else:
                    break
        if self._is_away:
            log.info("the Docker Engine is back")
        self._is_away = False

    async def _call(
        self,
        function: Callable[[docker.APIClient], _T],
        *,
        limiter: trio.CapacityLimiter | None = None,
        missing: type[EngineError] = EngineError,
    ) -> _T:
        def work() -> _T:
            with translated(missing):
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
            with translated(missing):
                client = self._client()
                try:
                    return function(client)
                finally:
                    client.close()

        return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=not waits)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        for client in self._idle:
            client.close()
