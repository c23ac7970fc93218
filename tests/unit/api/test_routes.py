"""The REST routes, with the curl lines of the original's README among them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio
from curl import curl

from bedrock.api import traces
from bedrock.api.service import Api
from bedrock.client import ApiError, ApiUnreachable, Client, open_client
from bedrock.errors import BedrockError
from bedrock.model import LogsState, Session, Status


async def test_the_curl_lines_of_the_original_readme_work_unchanged(api: Api, tmp_path: Path) -> None:
    body = '{\n    "image": "nginx:latest",\n    "command": "nginx -g \'daemon off;\'",\n    "ttl": "24h"\n  }'
    created = await curl("-X", "POST", f"{api.url}/api/sessions", "-H", "Content-Type: application/json", "-d", body)
    assert created["image"] == "nginx:latest"
    assert created["command"] == "nginx -g 'daemon off;'"
    assert created["argv"] == ["nginx", "-g", "daemon off;"]
    assert (created["ttl"], created["status"]) == ("24h", "pending")
    listed = await curl("-X", "GET", f"{api.url}/api/sessions")
    assert [session["id"] for session in listed] == [created["id"]]
    one = f"{api.url}/api/sessions/{created['id']}"
    stopped = await curl("-X", "PUT", one, "-H", "Content-Type: application/json", "-d", '{"status":"stopped"}')
    assert stopped["status"] == "stopped"
    file = tmp_path / "log.tar.gz"
    file.write_bytes(bytes(range(256)) * 10_000)  # more than 1 MiB: curl asks with Expect: 100-continue first
    stored = await curl("-X", "POST", f"{one}/logs", "-F", f"file=@{file}")
    assert stored["files"][0]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    logs = await curl("-X", "GET", f"{one}/logs")
    assert logs["session_id"] == created["id"]
    assert [item["filename"] for item in logs["files"]] == ["log.tar.gz"]
    assert base64.b64decode(logs["files"][0]["content"]) == file.read_bytes()
    assert logs["files"][0]["size"] == file.stat().st_size
    assert await curl(f"{api.url}/health") == "OK"


async def test_curl_needs_no_content_type_and_gets_an_empty_array_when_there_is_nothing(api: Api) -> None:
    assert await curl(f"{api.url}/api/sessions") == []
    assert (await curl(f"{api.url}/api/sessions", "-d", '{"image":"a","ttl":"1s"}'))["status"] == "pending"


async def test_the_go_fleets_fields_are_stored_under_their_file_names(api: Api, client: Client, tmp_path: Path) -> None:
    session = await client.create("busybox", "true", ttl="1s")
    arguments = []
    for field in ("target_log", "tracer_log", "vfs_pdf"):
        path = tmp_path / field.replace("_", ".")
        path.write_text(field)
        arguments += ["-F", f"{field}=@{path}"]
    await curl(f"{api.url}/api/sessions/{session.id}/logs", *arguments)
    assert {item.filename for item in await client.files(session.id)} == {"target.log", "tracer.log", "vfs.pdf"}
    found = await client.get(session.id)
    assert found.session.logs.state is LogsState.STORED


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/api/sessions", b"{", 400, "body"),
        ("POST", "/api/sessions", b'{"image":"a"}', 400, "ttl"),
        ("POST", "/api/sessions", b'{"image":"a","ttl":"soon"}', 400, "ttl"),
        ("POST", "/api/sessions", b'{"image":"a","ttl":"' + b"9" * 1_000_000 + b'h"}', 400, "ttl"),
        ("POST", "/api/sessions", b'{"image":"a","ttl":"1s","command":"' + b"a" * 1_000_000 + b'"}', 400, "command"),
        ("POST", "/api/sessions", b'{"image":"a","ttl":"1s","trace":{"max_size":1' + b"0" * 30 + b"}}", 400, "trace"),
        ("POST", "/api/sessions", b'{"image":"\xff","ttl":"1s"}', 400, "body"),
        ("POST", "/api/sessions", b'{"image":' + b"[" * 100_000, 400, "image"),
        ("POST", "/api/sessions", b'{"x":' + b"[" * 100_000, 400, "x"),
        ("POST", "/api/sessions", b" " * (2 << 20), 413, None),
        ("GET", "/api/sessions?limit=0000000001" + "9" * 5_000, b"", 400, "limit"),
        ("GET", "/api/sessions?limit=0", b"", 400, "limit"),
        ("GET", "/api/sessions?status=dead", b"", 400, "status"),
        ("GET", "/api/sessions?label=x", b"", 400, "label"),
        ("GET", "/api/sessions?after=x", b"", 400, "session_id"),
        ("GET", "/api/sessions?order=up", b"", 400, "order"),
        ("GET", "/api/sessions/nonsense", b"", 400, "session_id"),
        ("POST", "/api/sessions", b'{"image":"x","ttl":"1s","max_output":0}', 400, "max_output"),
        ("POST", "/api/sessions", b'{"image":"x","ttl":"1s","max_output":"2TiB"}', 400, "max_output"),
        ("POST", "/api/sessions", b'{"image":"x","ttl":"1s","max_output":"much"}', 400, "max_output"),
        ("POST", "/api/sessions", b'{"image":"x","ttl":"1s","max_output":true}', 400, "max_output"),
        ("GET", "/api/sessions/{unknown}", b"", 404, None),
        ("PUT", "/api/sessions/{unknown}", b'{"status":"stopped"}', 404, None),
        ("PUT", "/api/sessions/{known}", b'{"status":"dead"}', 400, "status"),
        ("PUT", "/api/sessions/{known}", b"{}", 400, "status"),
        ("PUT", "/api/sessions/{known}", b'{"status":"finished"}', 400, None),
        ("PUT", "/api/sessions/{known}", b'{"status":"pending"}', 400, None),
        ("DELETE", "/api/sessions/{known}", b"", 409, None),
        ("DELETE", "/api/sessions/{unknown}", b"", 404, None),
        ("GET", "/api/sessions/{unknown}/logs", b"", 404, None),
        ("GET", "/api/sessions/{known}/logs?content=maybe", b"", 400, "content"),
        ("GET", "/api/sessions/{known}/logs/nothing", b"", 404, None),
        ("GET", "/api/sessions/{known}/logs/.hidden", b"", 400, "filename"),
        ("GET", "/api/sessions/{known}/trace", b"", 404, None),
        ("POST", "/api/sessions/{unknown}/logs", b"", 404, None),
        ("POST", "/api/sessions/{known}/logs", b"x", 415, None),
        ("GET", "/nowhere", b"", 404, None),
        ("PATCH", "/api/sessions", b"", 405, None),
    ],
)
async def test_every_error_has_one_shape_and_names_what_is_wrong(
    api: Api, client: Client, method: str, path: str, body: bytes, status: int, field: str | None
) -> None:
    session = await client.create("busybox", "true", ttl="1s")
    path = path.replace("{known}", session.id).replace("{unknown}", "01a20a5a-f1dc-771c-a61f-2efdc4734108")
    async with httpx.AsyncClient() as http:
        answer = await http.request(method, api.url + path, content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail"} <= set(problem)
    assert problem["status"] == status
    assert problem.get("field") == field
    assert len(problem["detail"]) > 10


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\n\r\nno disposition\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="../../x"\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nunfinished',
        b"--b--\r\n",
        b"nonsense",
        b"",
    ],
)
async def test_a_malformed_upload_is_refused_and_stores_nothing(
    api: Api, client: Client, tmp_path: Path, body: bytes
) -> None:
    session = await client.create("busybox", "true", ttl="1s")
    async with httpx.AsyncClient() as http:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = await http.post(f"{api.url}/api/sessions/{session.id}/logs", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert await client.files(session.id) == []
    kept = [path for path in (tmp_path / "data" / "api" / "artifacts").rglob("*") if path.is_file()]
    assert kept == []


async def test_an_endless_boundary_is_refused(api: Api, client: Client) -> None:
    session = await client.create("busybox", "true", ttl="1s")
    headers = {"Content-Type": f"multipart/form-data; boundary={'b' * 1_000}"}
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{api.url}/api/sessions/{session.id}/logs", content=b"x", headers=headers)
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("content", [b'{"session_id":"\xff"}', b"[" * 100_000, b'{"x":' + b"[" * 100_000])
async def test_a_manifest_that_can_not_be_read_is_kept_and_proves_nothing(
    api: Api, client: Client, tmp_path: Path, content: bytes
) -> None:
    session = await client.create("busybox", "true", ttl="1s")
    (tmp_path / "manifest.json").write_bytes(content)
    assert (await client.upload(session.id, tmp_path / "manifest.json")).logs is LogsState.STORED
    found = await client.get(session.id)
    assert found is not None
    assert "unreadable manifest" in found.session.logs.message


@pytest.mark.parametrize("content", [b"", b"nonsense", b"nonsense" * 10_000])
async def test_a_trace_that_is_not_one_is_said_to_be_so(
    api: Api, client: Client, tmp_path: Path, content: bytes
) -> None:
    session = await client.create("busybox", "true", ttl="1s")
    (tmp_path / "trace.bdt").write_bytes(content)
    await client.upload(session.id, tmp_path / "trace.bdt")
    for path in ("trace", "trace/events", "trace/report"):
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"{api.url}/api/sessions/{session.id}/{path}")
        assert answer.status_code == 422, answer.text
        assert "trace" in answer.json()["detail"]
        assert str(tmp_path) not in answer.text


async def test_a_trace_that_was_forged_is_refused(
    api: Api, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(path: Path) -> None:
        raise IndexError("list index out of range")

    session = await client.create("busybox", "true", ttl="1s")
    (tmp_path / "trace.bdt").write_bytes(b"forged")
    await client.upload(session.id, tmp_path / "trace.bdt")
    monkeypatch.setattr(traces, "summarise", stumble)
    problem = await curl(f"{api.url}/api/sessions/{session.id}/trace")
    assert (problem["status"], problem["detail"][:20]) == (422, "trace.bdt is damaged")


async def test_a_file_can_be_read_in_part_and_resumed(api: Api, client: Client, tmp_path: Path) -> None:
    session = await client.create("busybox", "true", ttl="1s")
    path = tmp_path / "f.log"
    path.write_bytes(b"0123456789")
    await client.upload(session.id, path)
    url = f"{api.url}/api/sessions/{session.id}/logs/f.log"
    async with httpx.AsyncClient() as http:
        part = await http.get(url, headers={"Range": "bytes=2-4"})
        assert (part.status_code, part.content) == (206, b"234")
        assert part.headers["content-range"] == "bytes 2-4/10"
        beyond = await http.get(url, headers={"Range": "bytes=10-"})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */10")
        head = await http.head(url)
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")
        whole = await http.get(url)
        assert whole.headers["etag"] == f'"{hashlib.sha256(b"0123456789").hexdigest()}"'


async def test_a_file_that_is_still_to_come_can_be_followed(client: Client, api: Api, tmp_path: Path) -> None:
    session = await client.create("busybox", "true", ttl="1s")
    path = tmp_path / "f.log"
    path.write_bytes(b"late")
    async with httpx.AsyncClient(timeout=20) as http:
        url = f"{api.url}/api/sessions/{session.id}/logs/f.log"
        async with trio.open_nursery() as nursery:
            answers: list[httpx.Response] = []

            async def follow() -> None:
                answers.append(await http.get(f"{url}?follow=true"))

            nursery.start_soon(follow)
            await trio.sleep(0.1)  # nothing outside shows that it is being followed
            assert not answers
            await client.upload(session.id, path)
    assert answers[0].content == b"late"


async def test_whoever_waits_for_a_change_is_told_at_once(client: Client) -> None:
    session = await client.create("busybox", "true", ttl="1s")
    found = await client.get(session.id)
    unchanged = await client._request("GET", f"/api/sessions/{session.id}", headers={"If-None-Match": found.etag})
    assert unchanged.status_code == 304
    changed: list[Session] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                changed.append((await client.wait_change(session.id, found.etag)).session)

            nursery.start_soon(wait)
            await trio.sleep(0.1)
            await client.stop(session.id)
    assert changed[0].status is Status.STOPPED


async def test_a_deleted_session_is_gone_with_its_files(client: Client, tmp_path: Path) -> None:
    session = await client.create("busybox", "true", ttl="1s")
    path = tmp_path / "f.log"
    path.write_bytes(b"x")
    await client.upload(session.id, path)
    await client.stop(session.id)
    await client.delete(session.id)
    with pytest.raises(ApiError, match="there is no session"):
        await client.get(session.id)
    with pytest.raises(ApiError, match="there is no session"):
        await client.files(session.id)
    assert [item async for item in client.list()] == []
    assert not (tmp_path / "data" / "api" / "artifacts" / session.id).exists()


async def test_the_metrics_and_the_readiness_can_be_read(api: Api, client: Client) -> None:
    await client.create("busybox", "true", ttl="1s")
    assert "bedrock_sessions_created_total 1.0" in await curl(f"{api.url}/metrics")
    assert await curl(f"{api.url}/readyz") == await curl(f"{api.url}/livez") == "OK"


def test_the_client_works_under_asyncio_too_and_says_so_when_nobody_is_there() -> None:
    async def main() -> None:
        async with open_client("http://127.0.0.1:9") as client:
            with pytest.raises(ApiUnreachable, match="bedrock up"):
                await client.nodes()

    asyncio.run(main())


async def test_a_second_api_on_the_same_data_is_refused(api: Api, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bedrock.api", "--data-dir", str(tmp_path / "data"), "--api-http-port", "0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "in use by another process" in done.stderr
    assert "Traceback" not in done.stderr
    assert issubclass(ApiError, BedrockError)
