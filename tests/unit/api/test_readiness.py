"""Parts of the API that hang are seen in /readyz."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio
from curl import curl

from bedrock.api import readiness
from bedrock.api.service import Api
from bedrock.client import Client
from bedrock.concurrency.sockets import RouterSocket

_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
print(flush=True)
sys.stdin.read()
"""


async def test_a_store_that_can_not_be_written_to_is_seen_in_the_readiness(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_PATIENCE_S", 0.2)
    path = str(tmp_path / "data" / "api" / "bedrock.db")
    # A process of its own: SQLite's locks don't hold between two copies of it in one.
    command = [sys.executable, "-c", _LOCK, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as intruder:
        assert intruder.stdout is not None
        intruder.stdout.readline()
        problem = await curl(f"{api.url}/readyz")
        intruder.communicate()
    assert (problem["status"], problem["detail"]) == (503, "the store has not answered for 0.2 s")
    with trio.fail_after(10):
        while await curl(f"{api.url}/readyz") != "OK":
            pass


async def test_a_socket_that_hangs_is_seen_in_the_readiness(
    api: Api, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(readiness, "_PATIENCE_S", 0.2)
    with monkeypatch.context() as hanging:
        hanging.setattr(RouterSocket, "_flush", lambda self, socket: go_on.wait(60))
        try:
            assert (await curl(f"{api.url}/readyz"))["detail"] == "the nodes' socket has not answered for 0.2 s"
        finally:
            go_on.set()
    with trio.fail_after(10):
        while await curl(f"{api.url}/readyz") != "OK":
            pass
