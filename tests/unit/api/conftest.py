"""A real API in this process: real store, real sockets, real files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bedrock.api.service import Api, open_api
from bedrock.client import Client, open_client
from bedrock.settings import load_settings


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    flags = {
        "--data-dir": str(tmp_path / "data"),
        "--api-http-port": "0",
        "--api-socket-port": "0",
        "--api-graceful-timeout": "1s",
        "--api-max-upload": "50MiB",
    }
    async with open_api(load_settings(flags, {})) as opened:
        yield opened


@pytest.fixture
async def client(api: Api) -> AsyncIterator[Client]:
    async with open_client(api.url) as opened:
        yield opened
