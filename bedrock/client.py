"""The REST interface as typed async calls, on anyio: it works under Trio and under asyncio.

::

    async with open_client() as client:
        session = await client.create("busybox", ["cat", "/etc/passwd"], ttl="30s")
        async for session in client.watch(session.id):
            print(session.status, session.message)
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import anyio
import httpx
import msgspec

from bedrock import __version__
from bedrock.errors import BedrockError
from bedrock.model import FILES_SETTLED_AFTER_S, LogsState, Node, Session, SessionId, Status, StoredFile
from bedrock.settings import DEFAULT_URL
from bedrock.untrusted import MalformedJson, decode_json

_T = TypeVar("_T")

_WAIT_S = 30
_PAUSE_S = 0.1
_TIMEOUT = httpx.Timeout(30, read=_WAIT_S + 30, write=60)
_CHUNK = 256 << 10
_MAX_ANSWER_BYTES = 1 << 30


class ApiError(BedrockError):
    """The API answered with an error. ``detail`` is its sentence, ``field`` what was at fault where it names it."""

    def __init__(self, status: int, title: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail
        self.field = field


class ApiUnreachable(BedrockError):
    """No answer: nothing listens at the address, or the connection broke."""

    def __init__(self, url: str, cause: Exception) -> None:
        super().__init__(
            f"the API at {url} can't be reached ({cause or type(cause).__name__}); "
            "`bedrock up` starts one here, BEDROCK_URL says where another one is"
        )
        self.url = url


class Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    """The API's receipt for an upload: what it has stored, and how complete the session's files are now."""

    session_id: SessionId
    files: list[StoredFile]
    logs: LogsState | None = None


class _FileList(msgspec.Struct, frozen=True, kw_only=True):
    session_id: SessionId
    files: list[StoredFile]


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    title: str = ""
    detail: str = ""
    field: str | None = None


class Tagged(NamedTuple):
    """A session with the tag of the state it was read in, to be handed to :meth:`Client.wait_change`."""

    session: Session
    etag: str


class Client:
    """Made by :func:`open_client`. Every method raises :class:`ApiError` or :class:`ApiUnreachable`."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def create(
        self,
        image: str,
        command: str | Sequence[str] = (),
        *,
        ttl: str,
        init: bool = False,
        labels: Mapping[str, str] | None = None,
        trace: str | Mapping[str, Any] | None = None,
        max_output: str | int | None = None,
    ) -> Session:
        """Submit a session. A string of a command is split as a shell splits words, a sequence is not.

        ``trace`` is a mode (events, summary, off), or a mapping with any of mode, paths, classes and max_size.
        ``max_output`` is the upper size of what is kept of the output: 64MiB, or a number of bytes.
        """
        body: dict[str, Any] = {
            "image": image,
            "command": command if isinstance(command, str) else list(command),
            "ttl": ttl,
            "init": init,
            "labels": dict(labels or {}),
        }
        if trace is not None:
            body["trace"] = trace if isinstance(trace, str) else dict(trace)
        if max_output is not None:
            body["max_output"] = max_output
        return self._decode(await self._request("POST", "/api/sessions", json=body), Session)

    async def get(self, session_id: str) -> Tagged:
        """Read a session."""
        return self._tagged(await self._request("GET", f"/api/sessions/{session_id}"))

    async def wait_change(self, session_id: str, etag: str) -> Tagged:
        """Return a session once it is not what had this ``etag`` any more, for as long as that takes."""
        headers = {"If-None-Match": etag, "Prefer": f"wait={_WAIT_S}"}
        while True:
            response = await self._request("GET", f"/api/sessions/{session_id}", headers=headers)
            if response.status_code != 304:
                return self._tagged(response)
            # An API that is being stopped does not hold its answers.
            await anyio.sleep(_PAUSE_S)

    def _tagged(self, response: httpx.Response) -> Tagged:
        return Tagged(self._decode(response, Session), response.headers.get("ETag", ""))

    async def watch(self, session_id: str, *, until_stored: bool = False) -> AsyncIterator[Session]:
        """Yield a session now and at each change, until it has ended and, if wanted, has all its files.

        When those are all is :meth:`Session.has_all_files`: with nodes that send no manifest, ten seconds after the
        last one.
        """
        found = await self.get(session_id)
        while True:
            session = found.session
            yield session
            if session.has_all_files() if until_stored else session.status.is_terminal:
                return
            may_settle = until_stored and session.has_all_files(FILES_SETTLED_AFTER_S)
            with anyio.move_on_after(FILES_SETTLED_AFTER_S if may_settle else None) as settled:
                found = await self.wait_change(session_id, found.etag)
            if settled.cancelled_caught:
                return

    async def list(
        self,
        *,
        status: Status | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[Session]:
        """Yield sessions, oldest first unless ``newest_first``, page by page."""
        params: list[tuple[str, str]] = [("label", f"{name}={value}") for name, value in (labels or {}).items()]
        if status is not None:
            params.append(("status", status))
        if newest_first:
            params.append(("order", "desc"))
        left = limit
        after: str | None = None
        while left is None or left > 0:
            size = min(left or 500, 500)
            query = [*params, ("limit", str(size)), *([("after", after)] if after else [])]
            response = await self._request("GET", "/api/sessions", params=query)
            sessions = self._decode(response, list[Session])
            for session in sessions:
                yield session
            if "next" not in response.links or not sessions:
                return
            after = sessions[-1].id
            left = None if left is None else left - len(sessions)

    async def set_status(self, session_id: str, status: Status) -> Session:
        return self._decode(await self._request("PUT", f"/api/sessions/{session_id}", json={"status": status}), Session)

    async def stop(self, session_id: str) -> Session:
        """Ask for a session to be stopped."""
        return await self.set_status(session_id, Status.STOPPED)

    async def delete(self, session_id: str) -> None:
        await self._request("DELETE", f"/api/sessions/{session_id}")

    async def files(self, session_id: str) -> Sequence[StoredFile]:
        """The stored files of a session."""
        response = await self._request("GET", f"/api/sessions/{session_id}/logs", params={"content": "false"})
        return self._decode(response, _FileList).files

    @asynccontextmanager
    async def open_file(self, session_id: str, filename: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Read one stored file as a stream of chunks."""
        async with self._stream(f"/api/sessions/{session_id}/logs/{filename}", {}) as chunks:
            yield chunks

    @asynccontextmanager
    async def _stream(self, path: str, params: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        try:
            async with self._http.stream("GET", path, params=dict(params)) as response:
                if response.is_error:
                    await response.aread()
                    raise _problem_of(response)
                yield response.aiter_bytes(_CHUNK)
        except httpx.TransportError as error:
            raise ApiUnreachable(str(self._http.base_url), error) from None

    async def download(self, session_id: str, filename: str, path: Path) -> None:
        """Write one stored file to ``path``."""
        async with self.open_file(session_id, filename) as chunks, await anyio.open_file(path, "wb") as file:
            async for chunk in chunks:
                await file.write(chunk)

    async def upload(self, session_id: str, path: Path) -> Uploaded:
        """Store one file with a session, in constant memory. The receipt has the API's own sha256."""
        boundary = secrets.token_hex(16)
        disposition = f'Content-Disposition: form-data; name="file"; filename="{path.name}"'
        head = f"--{boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        size = (await anyio.Path(path).stat()).st_size

        async def body() -> AsyncIterator[bytes]:
            yield head
            left = size
            async with await anyio.open_file(path, "rb") as file:
                while left and (chunk := await file.read(min(_CHUNK, left))):
                    left -= len(chunk)
                    yield chunk
            yield tail

        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + size + len(tail)),
        }
        response = await self._request("POST", f"/api/sessions/{session_id}/logs", content=body(), headers=headers)
        return self._decode(response, Uploaded)

    async def trace(self, session_id: str) -> bytes:
        """The summary of a session's trace, as the API's JSON (:class:`bedrock.trace.summary.TraceSummary`)."""
        return (await self._request("GET", f"/api/sessions/{session_id}/trace")).content

    async def report(self, session_id: str, *, as_page: bool = True) -> bytes:
        """The report on a session's trace: a page, or the JSON of :class:`bedrock.trace.report.Report`."""
        params = {"format": "html" if as_page else "json"}
        return (await self._request("GET", f"/api/sessions/{session_id}/trace/report", params=params)).content

    @asynccontextmanager
    async def open_export(self, session_id: str, format_name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Read a session's trace in another format (:class:`bedrock.trace.export.Format`) as a stream of chunks."""
        async with self._stream(f"/api/sessions/{session_id}/trace/events", {"format": format_name}) as chunks:
            yield chunks

    async def nodes(self) -> Sequence[Node]:
        return self._decode(await self._request("GET", "/api/nodes"), list[Node])

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise ApiUnreachable(str(self._http.base_url), error) from None
        if response.is_error:
            raise _problem_of(response)
        return response

    @staticmethod
    def _decode(response: httpx.Response, kind: type[_T]) -> _T:
        try:
            return decode_json(response.content, kind, max_bytes=_MAX_ANSWER_BYTES)
        except MalformedJson as error:
            raise ApiError(
                response.status_code, "unexpected answer", f"what answers there is no Bedrock: {error}"
            ) from None


def _problem_of(response: httpx.Response) -> ApiError:
    try:
        problem = decode_json(response.content, _Problem, max_bytes=_MAX_ANSWER_BYTES)
    except MalformedJson:
        problem = _Problem(title=response.reason_phrase, detail=response.text[:200])
    return ApiError(response.status_code, problem.title, problem.detail, problem.field)


@asynccontextmanager
async def open_client(url: str | None = None) -> AsyncIterator[Client]:
    """Yield a client of the API at ``url``, by default at ``BEDROCK_URL``."""
    url = (url or os.environ.get("BEDROCK_URL") or DEFAULT_URL).rstrip("/")
    try:
        http = httpx.AsyncClient(
            base_url=url, timeout=_TIMEOUT, headers={"User-Agent": f"bedrock/{__version__}"}, trust_env=False
        )
    except (httpx.InvalidURL, ValueError) as error:
        raise BedrockError(f"BEDROCK_URL: {url!r} is no address: {error}") from None
    async with http:
        yield Client(http)
