"""Nodes that name no protocol: what they are told, what the API does in their place, and what their reports cost."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from nodes import Node, open_node

from bedrock.api.coordinator import Coordinator, open_coordinator
from bedrock.api.dispatch import open_dispatcher
from bedrock.api.metrics import ApiMetrics
from bedrock.api.requests import CreateRequest, new_session
from bedrock.api.service import Api
from bedrock.client import Client
from bedrock.kv import Entry, KVStore, open_store
from bedrock.model import Reason, Session, Status


def kinds(answer: Any) -> list[tuple[str, str]]:
    return [(event["headers"]["event_type"], event["headers"]["session_id"]) for event in answer["events"]]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("nginx -g daemon", "nginx -g daemon"),
        (["cat", "/etc/passwd"], "cat /etc/passwd"),
        ('sh -c "true"', "sh -c true"),  # a node that splits on spaces would take the quotes for part of a word
        ("", ""),
    ],
)
async def test_the_command_is_one_string_and_nothing_of_ours_is_in_the_order(
    api: Api, client: Client, command: str | list[str], words: str
) -> None:
    async with open_node(api.socket_endpoint, "plain") as node:
        await node.poll()
        await client.create("nginx:stable", command, ttl="24h")
        (event,) = (await node.poll())["events"]
        order = json.loads(b64decode(event["payload"]))
        assert order == {"image": "nginx:stable", "command": words, "ttl": 24 * 3600 * 10**9}


async def test_a_node_of_ours_gets_an_array(api: Api, client: Client) -> None:
    async with open_node(api.socket_endpoint, "ours") as node:
        await node.own_poll(full="true")
        await client.create("nginx:stable", "nginx -g 'daemon off;'", ttl="24h")
        (event,) = (await node.own_poll())["events"]
        assert json.loads(b64decode(event["payload"]))["command"] == ["nginx", "-g", "daemon off;"]


async def test_the_api_ends_a_session_whose_time_is_over_where_the_node_does_not(api: Api, client: Client) -> None:
    async with open_node(api.socket_endpoint, "plain") as node:
        await node.poll()
        session = await client.create("busybox", "sleep 60", ttl="1s")
        await node.poll(("session_running", session.id, b""))
        with trio.fail_after(20):
            while not (events := kinds(await node.poll(("session_running", session.id, b"")))):
                await trio.sleep(0.05)
        assert set(events) == {("session_stopped", session.id)}
        ended = (await client.get(session.id)).session
        assert (ended.status, ended.reason) == (Status.FINISHED, Reason.TTL)
        assert ended.started_at is not None
        assert ended.finished_at is not None
        assert (ended.finished_at - ended.started_at).total_seconds() >= 1
        # It stopped the container by a signal, which it calls a failure; the session's end stays what it was.
        assert kinds(await node.poll(("session_failed", session.id, b""))) == [("session_cleanup", session.id)]
        assert (await client.get(session.id)).session.reason is Reason.TTL
        assert kinds(await node.poll()) == []


async def test_a_node_of_ours_keeps_the_time_itself(api: Api, client: Client) -> None:
    async with open_node(api.socket_endpoint, "ours") as ours, open_node(api.socket_endpoint, "plain") as plain:
        await ours.own_poll(full="true")
        session = await client.create("busybox", "sleep 60", ttl="1s")
        await ours.own_poll(("session_running", session.id, b""))
        # The other node's session begins later and has as long: when that is over, this one's was over before.
        await plain.poll()
        other = await client.create("busybox", "sleep 60", ttl="1s")
        assert other.dockerd_id == "plain"
        await plain.poll(("session_running", other.id, b""))
        with trio.fail_after(20):
            while (await client.get(other.id)).session.status is Status.RUNNING:
                await plain.poll()
                await trio.sleep(0.05)
        assert (await client.get(session.id)).session.status is Status.RUNNING


async def test_who_waits_for_a_file_that_such_a_node_does_not_bring_is_told_so(
    api: Api, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "target.log"
    path.write_text("hello")
    async with open_node(api.socket_endpoint, "plain") as node:
        await node.poll()
        session = await client.create("busybox", "true", ttl="1m")
        await node.poll(("session_end", session.id, b""))
        await client.upload(session.id, path)
        with trio.fail_after(40):
            answer = await client._http.get(f"/api/sessions/{session.id}/logs/stdout.log?follow=true")
        assert answer.status_code == 404
        assert "has no file 'stdout.log'" in answer.json()["detail"]


class CountingStore:
    """A store that counts what is read of it."""

    def __init__(self, store: KVStore) -> None:
        self._store = store
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get(self, key: str) -> Entry | None:
        self.reads += 1
        return await self._store.get(key)

    async def get_many(self, keys: Iterable[str]) -> Any:
        self.reads += 1
        return await self._store.get_many(list(keys))


@asynccontextmanager
async def open_counted(path: Path) -> AsyncIterator[tuple[CountingStore, Coordinator, str]]:
    async with AsyncExitStack() as stack:
        store = CountingStore(await stack.enter_async_context(open_store(f"sqlite:///{path}/store.db")))
        coordinator = await stack.enter_async_context(
            open_coordinator(store, ApiMetrics(), node_timeout_s=60, node_lost_after_s=60)
        )
        dispatcher = await stack.enter_async_context(open_dispatcher(coordinator, "tcp://127.0.0.1:*", boot="b"))
        yield store, coordinator, dispatcher.endpoint


async def running_sessions(coordinator: Coordinator, node: Node, count: int, ttl: str) -> list[Session]:
    await node.poll()
    made = [
        await coordinator.create(new_session(CreateRequest(image="busybox", command="sleep 60", ttl=ttl)))
        for _ in range(count)
    ]
    await node.poll(*(("session_running", session.id, b"") for session in made))
    return made


async def test_a_report_that_changes_nothing_reads_nothing_from_the_store(tmp_path: Path) -> None:
    async with open_counted(tmp_path) as (store, coordinator, endpoint), open_node(endpoint, "plain") as node:
        made = await running_sessions(coordinator, node, 40, "1h")
        stopped = made[7]
        await coordinator.request_status(stopped.id, Status.STOPPED)
        store.reads = 0
        answer = await node.poll(*(("session_running", session.id, b"") for session in made))
        assert set(kinds(answer)) == {("session_stopped", stopped.id)}
        assert store.reads == 0


async def test_the_time_of_a_session_is_kept_by_the_next_run_of_the_api_too(tmp_path: Path) -> None:
    async with open_counted(tmp_path) as (_, coordinator, endpoint), open_node(endpoint, "plain") as node:
        (session,) = await running_sessions(coordinator, node, 1, "2s")
    async with open_counted(tmp_path) as (_, coordinator, endpoint), open_node(endpoint, "plain") as node:
        with trio.fail_after(20):
            while not kinds(await node.poll(("session_running", session.id, b""))):
                await trio.sleep(0.05)
        assert (await coordinator.get(session.id)).session.reason is Reason.TTL
