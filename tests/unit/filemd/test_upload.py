"""One volume and an API that is played, answer by answer."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import msgspec
import pytest

from bedrock.client import Client
from bedrock.filemd.upload import UnknownToApi, upload_volume
from bedrock.model import new_session_id
from bedrock.volume import MANIFEST, Manifest, describe_file


def make_volume(directory: Path, sizes: dict[str, int]) -> Path:
    path = directory / new_session_id()
    path.mkdir()
    for name, size in sizes.items():
        (path / name).write_bytes(bytes(size))
    files = [describe_file(path / name) for name in sizes]
    (path / MANIFEST).write_bytes(msgspec.json.encode(Manifest(session_id=path.name, files=files)))
    return path


class PlayedApi:
    """Says 404 to whoever asks for the files of a session that has none, and takes what comes if it ``knows`` it."""

    def __init__(self, *, knows: bool) -> None:
        self.stored: list[str] = []
        self.received = 0
        self._knows = knows
        http = httpx.AsyncClient(base_url="http://api", transport=httpx.MockTransport(self._answer))
        self.client = Client(http)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(404, json={"title": "Not Found"})
        body = await request.aread()
        self.received += len(body)
        if not self._knows:
            return httpx.Response(404, json={"title": "Not Found"})
        head, _, content = body.partition(b"\r\n\r\n")
        name = head.partition(b'filename="')[2].partition(b'"')[0].decode()
        content = content[: content.rindex(b"\r\n--")]
        self.stored.append(name)
        item = {"filename": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        logs = "complete" if name == MANIFEST else "stored"
        return httpx.Response(201, json={"session_id": request.url.path.split("/")[3], "files": [item], "logs": logs})


async def test_that_there_are_no_files_yet_may_be_said_with_404(tmp_path: Path) -> None:
    api = PlayedApi(knows=True)
    await upload_volume(api.client, make_volume(tmp_path, {"big": 1 << 20, "small": 3}))
    assert sorted(api.stored[:-1]) == ["big", "small"]
    assert api.stored[-1] == MANIFEST


async def test_a_session_that_takes_no_files_is_unknown_before_much_has_been_sent(tmp_path: Path) -> None:
    api = PlayedApi(knows=False)
    with pytest.raises(UnknownToApi):
        await upload_volume(api.client, make_volume(tmp_path, {"big": 1 << 20, "small": 3}))
    assert 0 < api.received < 1000
