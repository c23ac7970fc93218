"""Clients that misbehave, on raw sockets against the real server: none may harm anybody but itself."""

from __future__ import annotations

import contextlib
import inspect
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trio
import trio.testing
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers.request import TrioBody
from werkzeug.exceptions import RequestEntityTooLarge

from bedrock.api import asgi, server
from bedrock.api.asgi import make_quart
from bedrock.api.server import ServerError, open_http_server
from bedrock.api.service import Api
from bedrock.client import Client


async def connect(url: str) -> trio.SocketStream:
    parts = urlsplit(url)
    return await trio.open_tcp_stream(str(parts.hostname), parts.port or 0)


async def read_all(stream: trio.SocketStream) -> bytes:
    """Everything up to the end, which must come."""
    data = b""
    with trio.fail_after(10):
        while True:
            try:
                chunk = await stream.receive_some()
            except trio.BrokenResourceError:
                return data
            if not chunk:
                return data
            data += chunk


async def exchange(url: str, data: bytes) -> bytes:
    async with await connect(url) as stream:
        await stream.send_all(data)
        return await read_all(stream)


async def is_well(api: Api) -> bool:
    async with httpx.AsyncClient() as http:
        return (await http.get(f"{api.url}/health")).text == "OK"


_GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (_GET + b"Connection: close\r\n\r\n", 200),
        (b"GET /health HTTP/1.0\r\n\r\n", 200),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET ? HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://evil/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (_GET + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (_GET + b"X: a\r\n" * 120 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"nonsense\r\n\r\n", 400),
    ],
)
async def test_odd_requests_are_answered_and_the_connection_ends(api: Api, data: bytes, status: int) -> None:
    answer = await exchange(api.url, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"server:" not in answer.lower()
    assert await is_well(api)


async def test_a_websocket_upgrade_with_bytes_behind_it_is_only_a_request(api: Api) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    async with await connect(api.url) as stream:
        await stream.send_all(_GET + upgrade + b"dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\xff")
        with trio.fail_after(5):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
    assert await is_well(api)


async def test_an_h2c_upgrade_is_not_taken(api: Api) -> None:
    headers = b"Connection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    assert (await exchange(api.url, _GET + headers)).startswith(b"HTTP/1.1 200")


async def test_a_connection_that_is_silent_after_a_request_is_closed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_quart("test", max_body_bytes=1000)

    @app.get("/")
    async def index() -> str:
        return "hello"

    monkeypatch.setattr(server, "_IDLE_S", 0.2)
    async with open_http_server(app, host="127.0.0.1", port=0, max_connections=5, graceful_timeout_s=1) as running:
        answer = await exchange(running.url, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.endswith(b"hello")
        assert await exchange(running.url, b"GET / HT") == b""


@asynccontextmanager
async def big_answers(**limits: int) -> AsyncIterator[str]:
    """A server whose answers never end."""
    app = make_quart("test", max_body_bytes=1000)

    @app.get("/")
    async def endless() -> object:
        async def stream() -> AsyncIterator[bytes]:
            while True:
                yield bytes(1 << 20)

        return stream(), 200

    async with open_http_server(
        app, host="127.0.0.1", port=0, max_connections=limits.get("connections", 5), graceful_timeout_s=0.3
    ) as running:
        yield running.url


async def test_a_client_that_does_not_read_can_not_hold_the_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_WRITE_S", 1.0)
    with trio.fail_after(20):
        async with big_answers() as url:
            stream = await connect(url)
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await stream.receive_some(10)
    await stream.aclose()


async def test_one_connection_too_many_is_turned_away_and_the_next_is_welcome() -> None:
    async with big_answers(connections=1) as url:
        async with await connect(url) as first:
            await first.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await first.receive_some(10)
            answer = await exchange(url, b"")
            assert answer.startswith(b"HTTP/1.1 503 ")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
            assert json.loads(body)["status"] == 503
        with trio.fail_after(10):
            while True:
                async with await connect(url) as second:
                    await second.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    if (await second.receive_some(12)).startswith(b"HTTP/1.1 200"):
                        return


async def test_a_taken_port_is_named(api: Api) -> None:
    port = urlsplit(api.url).port or 0
    with pytest.raises(ServerError, match=str(port)):
        async with open_http_server(
            make_quart("x", max_body_bytes=1), host="127.0.0.1", port=port, max_connections=1, graceful_timeout_s=1
        ):
            pass


async def test_a_body_that_comes_faster_than_it_is_read_waits_outside() -> None:
    app = make_quart("test", max_body_bytes=1 << 30)
    chunks: list[int] = []

    @app.post("/")
    async def slow() -> str:
        from quart import request

        async for chunk in request.body:
            chunks.append(len(chunk))
            await trio.sleep(0.03)  # a slow disk
        return str(sum(chunks))

    async def body() -> AsyncIterator[bytes]:
        for _ in range(60):
            yield bytes(1 << 20)

    async with (
        open_http_server(app, host="127.0.0.1", port=0, max_connections=5, graceful_timeout_s=1) as running,
        httpx.AsyncClient(timeout=60) as http,
    ):
        answer = await http.post(running.url, content=body())
        assert answer.text == str(60 << 20)
        assert max(chunks) <= 2 << 20


async def test_the_size_limit_holds_for_a_body_without_a_length(client: Client, api: Api) -> None:
    session = await client.create("busybox", "true", ttl="1s")

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(60):
            yield bytes(1 << 20)
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(f"{api.url}/api/sessions/{session.id}/logs", content=body(), headers=headers)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert await client.files(session.id) == []


async def test_a_body_that_gets_too_large_while_it_is_waited_for_is_an_error_and_no_end() -> None:
    body = asgi.StreamBody(None, 10)

    async def read() -> None:
        with pytest.raises(RequestEntityTooLarge):
            await anext(aiter(body))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        body.append(bytes(11))


async def test_a_body_that_stops_coming_is_given_up(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    monkeypatch.setattr(asgi, "_CHUNK_S", 0.2)
    answer = await exchange(api.url, b"POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_hangs_up_in_an_upload_leaves_nothing(api: Api, client: Client) -> None:
    session = await client.create("busybox", "true", ttl="1s")
    head = (
        f"POST /api/sessions/{session.id}/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="half"\r\n\r\n'
    )
    stream = await connect(api.url)
    await stream.send_all(head.encode() + bytes(3_000_000))
    await stream.aclose()
    assert await is_well(api)
    assert await client.files(session.id) == []


def test_what_the_repairs_override_is_still_there() -> None:
    """When this fails a new hypercorn or quart-trio has other insides, and server.py and asgi.py need a new look."""
    assert {"_check_protocol", "_create_stream", "_send_error_response"} <= set(vars(H11Protocol))
    assert {"run", "protocol_send", "_read_data", "_close", "_idle_timeout"} <= set(vars(TCPServer))
    assert list(inspect.signature(H11Protocol.__init__).parameters)[1:] == [
        *("app", "config", "context", "task_group", "connection_state", "ssl", "client", "server", "send")
    ]
    assert {"handle_messages", "handle_request"} <= set(vars(TrioASGIHTTPConnection))
    body = TrioBody(None, None)
    assert all(hasattr(body, name) for name in ("_data", "_complete", "_has_data", "_must_raise"))


def _sockets() -> int:
    """How many this process has open."""
    found = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one through which the directory is read
            found += str(path.readlink()).startswith("socket:")
    return found


@pytest.mark.parametrize(
    "request_head",
    [
        _GET + b"\r\n",
        _GET + b"Connection: close\r\n\r\n",
        b"GET /api/sessions/{known} HTTP/1.1\r\nHost: x\r\nPrefer: wait=60\r\nIf-None-Match: {etag}\r\n\r\n",
        b"POST /api/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
        b"GET /health HT",
        b"",
    ],
)
@pytest.mark.parametrize("reads", [True, False])
async def test_a_connection_that_its_client_has_closed_is_closed_at_once(
    api: Api, client: Client, request_head: bytes, reads: bool
) -> None:
    session = await client.create("busybox", "true", ttl="1s")
    found = await client.get(session.id)
    assert found is not None
    data = request_head.replace(b"{known}", session.id.encode()).replace(b"{etag}", found.etag.encode())
    assert await is_well(api)
    before = _sockets()
    for _ in range(20):
        stream = await connect(api.url)
        await stream.send_all(data)
        answer = b""
        while reads and data.startswith(_GET) and not answer.endswith(b"OK"):
            answer += await stream.receive_some()
        await stream.aclose()
    with trio.fail_after(10):  # an idle one is kept for three times as long
        while _sockets() > before:
            await trio.sleep(0.02)


async def test_a_request_whose_client_has_gone_before_it_was_looked_at_costs_nothing() -> None:
    app = make_quart("test", max_body_bytes=1000)
    served = 0

    @app.get("/")
    async def index() -> str:
        nonlocal served
        served += 1
        return "hello"

    async with open_http_server(app, host="127.0.0.1", port=0, max_connections=100, graceful_timeout_s=1) as running:
        for _ in range(50):
            # Without a checkpoint in between: the server sees the request and its client's farewell together.
            with socket.create_connection(("127.0.0.1", urlsplit(running.url).port or 0)) as impatient:
                impatient.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await exchange(running.url, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.endswith(b"hello")
        assert served == 1
