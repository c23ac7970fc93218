"""Lists of sessions, in pages and as streams."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from bedrock.api import app
from bedrock.api.requests import CreateRequest, new_session
from bedrock.api.service import Api
from bedrock.api.sessions import SessionPage, Sessions
from bedrock.client import Client
from bedrock.kv import open_store
from bedrock.lifecycle import assign
from bedrock.model import NodeName, Status


async def test_a_list_is_paged_filtered_and_ordered(api: Api, client: Client) -> None:
    made = [
        await client.create("busybox", "true", ttl="1s", labels={"team": "a" if number % 2 else "b", "n": str(number)})
        for number in range(7)
    ]
    await client.stop(made[1].id)
    await client.stop(made[2].id)

    async def ids(**query: Any) -> list[str]:
        return [session.id async for session in client.list(**query)]

    everything = [session.id for session in made]
    assert await ids() == everything
    assert await ids(newest_first=True, limit=3) == everything[::-1][:3]
    assert await ids(status=Status.STOPPED) == [made[1].id, made[2].id]
    assert await ids(labels={"team": "a"}) == [made[1].id, made[3].id, made[5].id]
    assert await ids(labels={"team": "a", "n": "3"}) == [made[3].id]
    assert await ids(labels={"team": "a"}, status=Status.PENDING) == [made[3].id, made[5].id]
    async with httpx.AsyncClient() as http:
        url, found = f"{api.url}/api/sessions?limit=3", []
        while url:
            answer = await http.get(url)
            found += [session["id"] for session in answer.json()]
            url = api.url + answer.links["next"]["url"] if "next" in answer.links else ""
        assert found == everything
        streamed = await http.get(f"{api.url}/api/sessions")
        assert [session["id"] for session in streamed.json()] == everything


async def test_a_list_whose_end_is_deleted_while_it_is_sent_is_still_whole(
    api: Api, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await client.create("busybox", "true", ttl="1s") for _ in range(3)]
    await client.stop(made[2].id)
    page = Sessions.page

    async def page_then_delete(self: Sessions, **options: Any) -> SessionPage:
        found = await page(self, **options)
        if options["after"] is None:
            await client.delete(made[2].id)
        return found

    async with httpx.AsyncClient() as http:
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(app, "_PAGE", 2)
            meanwhile.setattr(Sessions, "page", page_then_delete)
            answer = await http.get(f"{api.url}/api/sessions")
        assert [item["id"] for item in answer.json()] == [session.id for session in made[:2]]


async def test_what_nodes_owe_is_read_in_pages_when_the_api_starts_and_what_is_gone_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(f"sqlite:///{tmp_path}/store.db") as store:
        sessions = Sessions(store)
        owed = []
        for _ in range(300):
            session = new_session(CreateRequest(image="busybox", ttl="1s"))
            owed.append((await sessions.insert(assign(session, NodeName("a")))).session)
        await store.put("work/a/01a20a5a-f1dc-771c-a61f-2efdc4734108", b"")
        reads = 0
        read = type(store).get_many

        async def count(self: Any, keys: Sequence[str]) -> Any:
            nonlocal reads
            reads += 1
            return await read(self, keys)

        monkeypatch.setattr(type(store), "get_many", count)
        assert [session async for _, session in sessions.work()] == owed
        assert reads == 1
        assert len((await store.scan("work/")).entries) == 300
