"""The REST routes: what a request means to the coordinator and the files, and what is answered. Nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
import trio
from quart import Response, request

from bedrock.api import requests
from bedrock.api.artifacts import ArtifactDir, check_filename
from bedrock.api.asgi import BedrockQuart, make_quart
from bedrock.api.coordinator import Coordinator
from bedrock.api.origins import keep_foreign_pages_out
from bedrock.api.problems import Problem, install_error_handlers
from bedrock.api.ranges import RangeNotSatisfiable, parse_range
from bedrock.api.readiness import Check, check_parts
from bedrock.api.sessions import SessionPage
from bedrock.api.traces import TraceReader
from bedrock.api.uploads import Uploads
from bedrock.concurrency.race import first_of
from bedrock.errors import BedrockError, InvalidInput
from bedrock.model import FILES_SETTLED_AFTER_S, Session, SessionId, StoredFile, TraceState, parse_session_id
from bedrock.trace.export import CONTENT_TYPES, SUFFIXES, Format, parse_format
from bedrock.volume import IMAGE_FILES, TRACE_FILE

_PAGE = 500
_MAX_LIMIT = 1_000
_MAX_WAIT_S = 60.0
_CONTENT_TYPES = {"log": "text/plain; charset=utf-8", "json": "application/json"}


def json_response(value: Any, status: int = 200, **headers: str) -> Response:
    return Response(
        msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers={name.replace("_", "-"): text for name, text in headers.items()},
    )


async def read_body() -> bytes:
    """The request's body, for JSON, whatever content type it claims: curl -d claims a form."""
    data = bytearray()
    async for chunk in request.body:
        data += chunk
        if len(data) > requests.MAX_BODY_BYTES:
            raise Problem(413, f"the body is larger than {requests.MAX_BODY_BYTES} bytes")
    return bytes(data)


def make_app(
    coordinator: Coordinator,
    artifacts: ArtifactDir,
    *,
    parts: Mapping[str, Check],
    max_upload: int,
    stopping: trio.Event,
    leaving: trio.Event,
) -> BedrockQuart:
    """Return the application for one coordinator. Handlers that wait end when ``stopping`` is set.

    ``parts`` are what ``/readyz`` asks, by their names: each returns soon, or raises, or hangs. It is no longer ready
    when ``leaving`` is set: what it works for is being ended.
    """
    app = make_quart("bedrock", max_body_bytes=max_upload)
    install_error_handlers(app)
    keep_foreign_pages_out(app)
    _add_session_routes(app, coordinator, artifacts, stopping)
    _add_file_routes(app, coordinator, artifacts, stopping)
    _add_service_routes(app, coordinator, parts, leaving)
    return app


def _add_session_routes(
    app: BedrockQuart, coordinator: Coordinator, artifacts: ArtifactDir, stopping: trio.Event
) -> None:
    """POST, GET, PUT and DELETE of sessions."""

    @app.post("/api/sessions")
    async def create_session() -> Response:
        wanted = requests.parse_body(await read_body(), requests.CreateRequest)
        session = await coordinator.create(requests.new_session(wanted))
        return json_response(coordinator.present(session), 201, Location=f"/api/sessions/{session.id}")

    @app.get("/api/sessions")
    async def list_sessions() -> Response:
        query = request.args
        statuses = [requests.parse_status(text) for text in query.getlist("status")]
        labels = [requests.parse_label(text) for text in query.getlist("label")]
        after = parse_session_id(query["after"]) if "after" in query else None
        if query.get("order", "asc") not in {"asc", "desc"}:
            raise InvalidInput("order", "is neither asc (oldest first) nor desc")
        newest_first = query.get("order") == "desc"

        async def page(limit: int, behind: SessionId | None) -> SessionPage:
            return await coordinator.sessions.page(
                limit=limit, after=behind, statuses=statuses, labels=labels, newest_first=newest_first
            )

        if "limit" in query:
            found = await page(requests.parse_limit(query["limit"], maximum=_MAX_LIMIT), after)
            response = json_response(coordinator.present_all(found.sessions))
            if found.after is not None:
                kept = [(name, text) for name, text in query.items(multi=True) if name != "after"]
                response.headers["Link"] = f'<{_url_with([*kept, ("after", found.after)])}>; rel="next"'
            return response

        # The first page is read before the status line is sent: a store that fails must not look like a short list.
        first = await page(_PAGE, after)

        async def stream() -> AsyncIterator[bytes]:
            found, separator = first, b"["
            while True:
                if found.sessions:  # not so where the last of them has been deleted since the page before
                    # In one piece, which costs the server as much as encoding a hundred sessions, however long it is.
                    yield separator + b",".join(map(msgspec.json.encode, coordinator.present_all(found.sessions)))
                    separator = b","
                if found.after is None:
                    yield b"[]" if separator == b"[" else b"]"
                    return
                found = await page(_PAGE, found.after)

        return Response(stream(), content_type="application/json")

    @app.get("/api/sessions/<session_id>")
    async def get_session(session_id: str) -> Response:
        known_id = parse_session_id(session_id)
        wait_s = requests.parse_prefer_wait(request.headers.get("Prefer"), maximum_s=_MAX_WAIT_S)
        seen = request.headers.get("If-None-Match")
        deadline = trio.current_time() + wait_s
        while True:
            with coordinator.watching(known_id) as changed:
                session, _ = await coordinator.get(known_id)
                response = json_response(session)
                await response.add_etag()
                etag = response.headers["ETag"]
                if seen != etag:
                    return response
                if trio.current_time() >= deadline or stopping.is_set():
                    return Response(b"", status=304, headers={"ETag": etag})
                with trio.move_on_at(deadline):
                    await first_of(changed.wait, stopping.wait)

    @app.put("/api/sessions/<session_id>")
    async def put_session(session_id: str) -> Response:
        known_id = parse_session_id(session_id)
        wanted = requests.parse_body(await read_body(), requests.StatusRequest)
        return json_response(await coordinator.request_status(known_id, wanted.status))

    @app.delete("/api/sessions/<session_id>")
    async def delete_session(session_id: str) -> Response:
        known_id = parse_session_id(session_id)
        await coordinator.delete(known_id)
        await artifacts.remove_session(known_id)
        return Response(b"", status=204)


def _add_file_routes(app: BedrockQuart, coordinator: Coordinator, artifacts: ArtifactDir, stopping: trio.Event) -> None:
    """The files of sessions, up and down, and what is computed from them."""
    uploads = Uploads(coordinator, artifacts)
    traces = TraceReader(artifacts)

    @app.post("/api/sessions/<session_id>/logs")
    async def post_logs(session_id: str) -> Response:
        known_id = parse_session_id(session_id)
        try:
            files = await uploads.receive(known_id, request.body, request.headers.get("Content-Type"))
        except BedrockError:
            coordinator.metrics.uploads_failed.inc()
            raise
        session, _ = await coordinator.get(known_id)
        return json_response({"session_id": known_id, "files": files, "logs": session.logs.state}, 201)

    @app.get("/api/sessions/<session_id>/logs")
    async def get_logs(session_id: str) -> Response:
        known_id = parse_session_id(session_id)
        await coordinator.get(known_id)
        files = await coordinator.sessions.files(known_id)
        if not requests.parse_flag(request.args.get("content"), field="content", default=True):
            return json_response({"session_id": known_id, "files": files})

        async def stream() -> AsyncIterator[bytes]:
            yield b'{"session_id":' + msgspec.json.encode(known_id) + b',"files":['
            for index, item in enumerate(files):
                yield b"," if index else b""
                yield b'{"filename":' + msgspec.json.encode(item.filename) + b',"content":"'
                async for piece in _base64(artifacts.read(known_id, item.filename, 0, item.size)):
                    yield piece
                yield b'","size":%d,"sha256":"%s"}' % (item.size, item.sha256.encode())
            yield b"]}"

        return Response(stream(), content_type="application/json")

    @app.get("/api/sessions/<session_id>/logs/<filename>")
    async def get_file(session_id: str, filename: str) -> Response:
        known_id = parse_session_id(session_id)
        name = check_filename(filename)
        follows = requests.parse_flag(request.args.get("follow"), field="follow", default=False)
        item = await _find_file(coordinator, known_id, name, stopping if follows else None)
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": f'"{item.sha256}"',
            "Content-Disposition": "attachment",
            "X-Content-Type-Options": "nosniff",
        }
        try:
            wanted = parse_range(request.headers.get("Range"), item.size)
        except RangeNotSatisfiable as error:
            raise Problem(416, str(error), Content_Range=f"bytes */{error.size}") from None
        start, end = wanted or (0, item.size)
        if wanted is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{item.size}"
        headers["Content-Length"] = str(end - start)
        return Response(
            artifacts.read(known_id, name, start, end),
            status=200 if wanted is None else 206,
            content_type=_CONTENT_TYPES.get(name.rpartition(".")[2], "application/octet-stream"),
            headers=headers,
        )

    @app.get("/api/sessions/<session_id>/trace")
    async def get_trace(session_id: str) -> Response:
        known_id = parse_session_id(session_id)
        item = await _find_file(coordinator, known_id, TRACE_FILE, None)
        return Response(await traces.summary(known_id, item), content_type="application/json")

    @app.get("/api/sessions/<session_id>/trace/events")
    async def get_trace_events(session_id: str) -> Response:
        known_id = parse_session_id(session_id)
        wanted = parse_format(request.args.get("format", Format.JSONL))
        session, _ = await coordinator.get(known_id)
        item = await _find_file(coordinator, known_id, TRACE_FILE, None)
        filename = f"{known_id}.{SUFFIXES.get(wanted, wanted)}"
        return Response(
            traces.export(session, item, wanted),
            content_type=CONTENT_TYPES[wanted],
            headers={
                "Content-Disposition": f'attachment; filename="{filename}"',
                "X-Bedrock-Trace": session.trace.state if session.trace is not None else TraceState.UNTRACED,
                "X-Bedrock-Unsupported": ", ".join(session.trace.unsupported) if session.trace is not None else "",
                "X-Content-Type-Options": "nosniff",
            },
        )

    @app.get("/api/sessions/<session_id>/trace/report")
    async def get_trace_report(session_id: str) -> Response:
        known_id = parse_session_id(session_id)
        wanted = request.args.get("format", "html")
        if wanted not in {"html", "json"}:
            raise InvalidInput("format", f"{wanted[:40]!r} is neither html nor json")
        session, _ = await coordinator.get(known_id)
        item = await _find_file(coordinator, known_id, TRACE_FILE, None)
        image_files = await coordinator.sessions.file(known_id, IMAGE_FILES)
        content = await traces.report(session, item, image_files, as_page=wanted == "html")
        return Response(
            content,
            content_type="text/html; charset=utf-8" if wanted == "html" else "application/json",
            # The page runs its own scripts only, and asks nobody for anything.
            headers={
                "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
                "img-src data: blob:",
                "X-Content-Type-Options": "nosniff",
            },
        )


def _add_service_routes(
    app: BedrockQuart, coordinator: Coordinator, parts: Mapping[str, Check], leaving: trio.Event
) -> None:
    """The fleet, and what operators and their machines ask."""

    @app.get("/api/nodes")
    async def list_nodes() -> Response:
        return json_response(coordinator.fleet.view())

    @app.get("/health")
    async def health() -> Response:
        return Response("OK", content_type="text/plain")

    @app.get("/livez")
    async def live() -> Response:
        return Response("OK", content_type="text/plain")

    @app.get("/readyz")
    async def ready() -> Response:
        if leaving.is_set():
            raise Problem(503, "Bedrock is being stopped, or a part of it has died")
        await check_parts(parts)
        return Response("OK", content_type="text/plain")

    @app.get("/metrics")
    async def metrics() -> Response:
        text = await trio.to_thread.run_sync(coordinator.metrics.render)
        return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")


async def _find_file(
    coordinator: Coordinator, session_id: SessionId, name: str, stopping: trio.Event | None
) -> StoredFile:
    """Return a stored file. With ``stopping`` one that is still to come is waited for, until that is set."""
    unchanged_s = 0.0
    while True:
        with coordinator.watching(session_id) as changed:
            session, _ = await coordinator.get(session_id)
            item = await coordinator.sessions.file(session_id, name)
            if item is not None:
                return item
            is_over = session.has_all_files(unchanged_s)
            if stopping is None or stopping.is_set() or is_over:
                raise Problem(404, _why_missing(session, name, is_over=is_over))
            with trio.move_on_after(FILES_SETTLED_AFTER_S) as unchanged:
                await first_of(changed.wait, stopping.wait)
            unchanged_s = FILES_SETTLED_AFTER_S if unchanged.cancelled_caught else 0


def _why_missing(session: Session, name: str, *, is_over: bool) -> str:
    if not is_over:
        return (
            f"session {session.id} has no file {name!r}; the session is {session.status}, "
            f"its files are {session.logs.state}"
        )
    if name == TRACE_FILE and session.trace is not None and session.trace.message:
        return f"session {session.id} has no trace ({name}): {session.trace.message}"
    return f"session {session.id} has no file {name!r}"


async def _base64(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Encode a stream piece by piece: only whole groups of three bytes can be put one behind the other."""
    rest = b""
    async for chunk in chunks:
        data = rest + chunk
        whole = len(data) - len(data) % 3
        rest = data[whole:]
        yield b64encode(data[:whole])
    yield b64encode(rest)


def _url_with(query: Sequence[tuple[str, str]]) -> str:
    return f"{request.path}?{urlencode(query)}"
