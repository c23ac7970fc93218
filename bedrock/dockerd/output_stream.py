"""What a container prints, as the engine sends it: frames on one connection, read by a thread of the caller's.

There are two ways to it. *Attached* to a container before its start one gets every byte as it was printed, at the speed
of the connection. The engine's *log* has what was printed before one came, but line by line, which is much slower.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import docker
import docker.errors
import docker.types
import requests
import urllib3.exceptions

from bedrock.dockerd.engine_values import EngineError

STDOUT_FRAME = 1
STDERR_FRAME = 2
_ERROR_FRAME = 3  # the engine's own words: the log can't be read
_HEADER = struct.Struct(">BxxxL")
_READ_BYTES = 256 << 10

# Takes the number of a stream and some of what was printed there; returns whether it wants more.
Sink = Callable[[int, memoryview], bool]


class Frames:
    """Takes the bytes of a connection apart into frames, however they are cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, memoryview]]:
        """Yield the number of the stream and the content of each frame that is whole now.

        Raises :class:`EngineError` for what is no frame, or for the engine's own words.
        """
        data = self._rest + data if self._rest else data
        view = memoryview(data)
        position = 0
        while len(data) - position >= _HEADER.size:
            stream, size = _HEADER.unpack_from(data, position)
            if stream not in {STDOUT_FRAME, STDERR_FRAME, _ERROR_FRAME}:
                raise EngineError(f"the output can't be read: stream {stream} is neither stdout nor stderr")
            end = position + _HEADER.size + size
            if end > len(data):
                break
            content = view[position + _HEADER.size : end]
            if stream == _ERROR_FRAME:
                raise EngineError(f"the output can't be read: {bytes(content).decode('utf-8', 'replace').strip()}")
            yield stream, content
            position = end
        self._rest = data[position:]


class OutputStream:
    """One connection. Made by :func:`attach` or :func:`open_log`; one thread at a time may read it."""

    def __init__(self, client: docker.APIClient, response: requests.Response, end: requests.Response | None) -> None:
        self._client = client
        self._response = response
        self._end = end

    def read(self, sink: Sink) -> bool:
        """Hand everything to ``sink`` until it wants no more. Blocks.

        Returns whether that was all: a log was read to its end, or what was attached to has ended. It is not when
        ``sink`` had enough, or when the engine went away, which on an attached connection looks like an end.
        """
        frames = Frames()
        while data := self._response.raw.read1(_READ_BYTES):
            for stream, content in frames.feed(data):
                if not sink(stream, content):
                    return False
        return self._end is None or _has_ended(self._end)

    def close(self) -> None:
        """End the connection, under a thread that reads it, too."""
        for response in filter(None, (self._response, self._end)):
            try:
                docker.types.CancellableStream(iter(()), response).close()
            except (OSError, AttributeError):
                continue  # it has ended already
        self._client.close()


def attach(client: docker.APIClient, container: str) -> OutputStream:
    """Attach to a container. What it prints from now on is in the stream; the engine holds 1 MiB of it back for a
    reader who lags behind, then it lets the container wait. ``client`` belongs to the stream afterwards.
    """
    # Both are answered when the engine has noted them, so what happens to the container afterwards is seen.
    end = _send(client, "POST", f"containers/{container}/wait", {"condition": "next-exit"})
    response = _send(client, "POST", f"containers/{container}/attach", {"stream": 1, "stdout": 1, "stderr": 1})
    return OutputStream(client, response, end)


def open_log(client: docker.APIClient, container: str, *, follow: bool) -> OutputStream:
    """Read the engine's log of a container from its beginning; with ``follow`` until the container ends.

    ``client`` belongs to the stream afterwards.
    """
    response = _send(client, "GET", f"containers/{container}/logs", {"stdout": 1, "stderr": 1, "follow": int(follow)})
    return OutputStream(client, response, None)


def _send(client: docker.APIClient, method: str, path: str, parameters: dict[str, str | int]) -> requests.Response:
    url = f"{client.base_url}/v{client.api_version}/{path}"
    response = client.request(method, url, params=parameters, stream=True, timeout=None)
    try:
        response.raise_for_status()
    except requests.exceptions.HTTPError as error:
        raise docker.errors.create_api_error_from_http_exception(error) from None
    return response


def _has_ended(answer: requests.Response) -> bool:
    """Whether the engine that was asked has lived to see the container's end. Blocks until either has ended."""
    try:
        return "StatusCode" in answer.json()
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, ValueError, OSError):
        return False
