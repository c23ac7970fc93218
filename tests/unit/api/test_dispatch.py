"""Packets of nodes that name no protocol, and of our own, on a real DEALER socket."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from nodes import open_node

from bedrock.api import dispatch
from bedrock.api.service import Api
from bedrock.client import Client
from bedrock.lifecycle import Outcome
from bedrock.model import LogsState, Reason, Session, Status, TraceState, Verdict

_NOW = datetime(2026, 1, 2, tzinfo=UTC)


def kinds(answer: Any) -> list[tuple[str, str]]:
    return [(event["headers"]["event_type"], event["headers"]["session_id"]) for event in answer["events"]]


async def get(client: Client, session: Session) -> Session:
    found = await client.get(session.id)
    return found.session


async def test_a_node_that_names_no_protocol_gets_its_whole_list_at_once(api: Api, client: Client) -> None:
    async with open_node(api.socket_endpoint, "plain") as node:
        assert (await node.poll())["events"] == []
        session = await client.create("nginx:stable", "nginx -g 'daemon off;'", ttl="24h")
        assert session.dockerd_id == "plain"
        for _ in range(2):  # it is told until it reports
            answer = await node.poll()
            assert answer["headers"] == {"sender": "api"}
            assert kinds(answer) == [("session_start", session.id)]
            order = json.loads(b64decode(answer["events"][0]["payload"]))
            assert order["image"] == "nginx:stable"
            assert order["command"] == "nginx -g daemon off;"
            assert order["ttl"] == 24 * 3600 * 10**9
        assert kinds(await node.poll(("session_running", session.id, b""))) == []
        assert (await get(client, session)).status is Status.RUNNING
        await client.stop(session.id)
        assert kinds(await node.poll()) == [("session_stopped", session.id)]
        for _ in range(2):
            assert kinds(await node.poll(("session_end", session.id, b"whatever"))) == [("session_cleanup", session.id)]
        assert (await get(client, session)).status is Status.STOPPED
        assert (await node.poll())["events"] == []


@pytest.mark.parametrize(("kind", "status"), [("session_end", Status.FINISHED), ("session_failed", Status.FAILED)])
async def test_an_end_without_particulars_ends_the_session(api: Api, client: Client, kind: str, status: Status) -> None:
    async with open_node(api.socket_endpoint, "plain") as node:
        await node.poll()
        session = await client.create("busybox", "true", ttl="1m")
        answer = await node.poll(("session_running", session.id, b""), (kind, session.id, b""))
        assert kinds(answer) == [("session_cleanup", session.id)]
        assert (await get(client, session)).status is status


@pytest.mark.parametrize("data", [b"", b"{}", b'{"headers": {}, "events": []}', b'{ "events": null }'])
async def test_an_empty_packet_is_echoed(api: Api, data: bytes) -> None:
    async with open_node(api.socket_endpoint, "x") as node:
        assert await node.raw(data) == data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"garbage", "not JSON"),
        (b"[1]", "Expected `object`"),
        (b'{"headers": {"sender": "x"}, "events": [{"payload": "%"}]}', "not base64"),
        (b'{"headers": {"a": "b"}}', "sender"),
        (b'{"headers": {"sender": "../x"}}', "not a node name"),
        (b'{"headers": {"sender": "x", "protocol": "2", "slots": "-1"}}', "slots"),
        (b'{"headers": {"sender": "x", "protocol": "2", "wait": "soon"}}', "wait"),
        (b'{"headers": {"sender": "x", "protocol": "2", "wait": "' + b"9" * 1_000_000 + b'h"}}', "wait"),
        (b'{"headers": {"sender": "x", "protocol": "2", "seq": "' + b"9" * 1_000 + b'"}}', "seq"),
        (b'{"unknown": ' + b"[" * 100_000, "nested"),
        (b'{"headers": {"sender": "\xff"}}', "not JSON"),
    ],
)
async def test_a_packet_that_can_t_be_used_is_answered_counted_and_never_fatal(
    api: Api, client: Client, data: bytes, words: str
) -> None:
    async with open_node(api.socket_endpoint, "x") as node:
        answer = json.loads(await node.raw(data))
        assert words in answer["headers"]["error"]
        assert (await node.poll())["events"] == []
    metrics = (await client._request("GET", "/metrics")).text
    assert 'bedrock_packets_refused_total{cause="content"} 1.0' in metrics


_END = b'{"status":"finished","reason":"exit","message":"%s","finished_at":"%s"%s}'


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (_END % (b"\xff", b"2026-01-02T03:04:05Z", b""), "not JSON"),
        (_END % (b"m", b"2026-01-02T03:04:05+23:59", b""), "UTC"),
        (_END % (b"m", b"2026-01-02T03:04:05Z", b',"exit_code":1' + b"0" * 30), "exit_code"),
        (_END % (b"m", b"2026-01-02T03:04:05Z", b',"more":' + b"[" * 100_000), "nested"),
        (_END.replace(b"finished", b"running", 1) % (b"m", b"2026-01-02T03:04:05Z", b""), "running"),
    ],
)
async def test_an_end_that_can_not_be_read_ends_its_session_alone_and_is_not_stored(
    api: Api, client: Client, payload: bytes, words: str
) -> None:
    async with open_node(api.socket_endpoint, "a") as node:
        await node.own_poll(full="true")
        first, second = [await client.create("busybox", "true", ttl="1m") for _ in range(2)]
        answer = await node.own_poll(
            ("session_progress", second.id, b'{"message":"\xff"}'),
            ("session_end", first.id, payload),
            ("session_running", second.id, b'{"started_at":"2026-01-02T03:04:05Z"}'),
        )
        assert kinds(answer)[0] == ("session_cleanup", first.id)
        ended, running = await get(client, first), await get(client, second)
        assert (ended.status, ended.reason, ended.exit_code) == (Status.FAILED, Reason.RUNTIME_ERROR, None)
        assert words in ended.message
        assert running.started_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def test_a_message_of_any_length_is_cut_short_and_its_session_ends(api: Api, client: Client) -> None:
    async with open_node(api.socket_endpoint, "a") as node:
        await node.own_poll(full="true")
        session = await client.create("busybox", "true", ttl="1m")
        progress = b'{"message":"%s"}' % (b"x" * 1_500_000)
        await node.own_poll(("session_progress", session.id, progress))
        assert len((await get(client, session)).message) < 5_000
        await node.own_poll(("session_end", session.id, _END % (b"x" * 1_500_000, b"2026-01-02T03:04:05Z", b"")))
        ended = await get(client, session)
        assert (ended.status, ended.message[:3]) == (Status.FINISHED, "xxx")
        assert len(ended.message) < 5_000


async def test_a_defect_that_one_packet_hits_upon_ends_neither_the_api_nor_other_nodes(
    api: Api, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    async with open_node(api.socket_endpoint, "a") as node, open_node(api.socket_endpoint, "b") as other:
        with monkeypatch.context() as broken:
            broken.setattr(dispatch, "read_poll", fail)
            assert "could not handle the packet" in (await node.own_poll())["headers"]["error"]
        assert (await other.own_poll())["events"] == []
    assert 'packets_refused_total{cause="defect"} 1.0' in (await client._request("GET", "/metrics")).text


async def test_unknown_events_and_foreign_sessions_are_ignored_and_a_good_one_beside_them_counts(
    api: Api, client: Client
) -> None:
    async with open_node(api.socket_endpoint, "a") as first, open_node(api.socket_endpoint, "b") as second:
        await first.own_poll()
        session = await client.create("busybox", "true", ttl="1m")
        assert session.dockerd_id == "a"
        await second.own_poll(("session_end", session.id, b""), ("session_running", session.id, b""))
        assert (await get(client, session)).status is Status.PENDING
        await first.own_poll(
            ("session_dance", session.id, b""), ("session_running", "../x", b""), ("session_running", session.id, b"")
        )
        assert (await get(client, session)).status is Status.RUNNING


async def test_a_waiting_poll_is_answered_the_moment_there_is_work(api: Api, client: Client) -> None:
    async with open_node(api.socket_endpoint, "a") as node:
        first = await node.own_poll(full="true")
        headers = first["headers"]
        seen = {"api_boot": headers["api_boot"], "seen": headers["revision"], "wait": "60s"}
        answers: list[Any] = []
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    answers.append(await node.own_poll(**seen))

                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert not answers
                session = await client.create("busybox", "true", ttl="1m")
        assert kinds(answers[0]) == [("session_start", session.id)]
        # What has been seen is not told again, what has not is; a node that reports everything is told everything.
        seen["seen"] = answers[0]["headers"]["revision"]
        assert kinds(await node.own_poll(**{**seen, "wait": "10ms"})) == []
        assert kinds(await node.own_poll(**{**seen, "seen": headers["revision"]})) == [("session_start", session.id)]
        assert kinds(await node.own_poll(full="true")) == [("session_start", session.id)]


@pytest.mark.parametrize("is_ours", [True, False])
async def test_orders_that_are_too_large_for_one_answer_come_in_several(
    api: Api, client: Client, is_ours: bool
) -> None:
    async with open_node(api.socket_endpoint, "a") as node:
        slots = {"protocol": "2", "slots": "200", "boot": "b"} if is_ours else {}
        first = await node.poll(**slots, **({"full": "true"} if is_ours else {}))
        seen = {"api_boot": first["headers"]["api_boot"], "seen": first["headers"]["revision"]} if is_ours else {}
        made = [(await client.create("busybox", ["a" * 130_000], ttl="1m")).id for _ in range(110)]
        taken: list[str] = []
        while len(taken) < len(made):
            # A node of the Go fleet is told all that it has not reported, ours what it has not seen.
            answer = await node.poll(*(("session_running", one, b"") for one in taken), **slots, **seen)
            orders = [session for kind, session in kinds(answer) if kind == "session_start"]
            assert orders
            taken += orders
            if is_ours:
                seen["seen"] = answer["headers"]["revision"]
        assert taken == made
        assert (await node.poll(*(("session_running", one, b"") for one in taken), **slots, **seen))["events"] == []


async def test_a_newer_poll_ends_the_wait_of_the_one_before(api: Api) -> None:
    async with open_node(api.socket_endpoint, "a") as node:
        await node.own_poll(full="true")
        with trio.fail_after(10):
            node.socket.send([b'{"headers":{"sender":"a","protocol":"2","seq":"1","wait":"60s"}}'])
            node.socket.send([b'{"headers":{"sender":"a","protocol":"2","seq":"2","wait":"0s"}}'])
            answers: list[str] = []
            while len(answers) < 2:
                answers += [json.loads(frames[-1])["headers"]["seq"] for frames in await node.socket.receive_batch()]
        assert sorted(answers) == ["1", "2"]


async def test_slots_are_kept_and_those_who_wait_come_first(api: Api, client: Client) -> None:
    waiting = [await client.create("busybox", "true", ttl="1m") for _ in range(3)]
    assert {session.dockerd_id for session in waiting} == {None}
    assert "no DockerD is alive" in waiting[0].message
    async with open_node(api.socket_endpoint, "a") as node:  # with two slots
        await node.own_poll(full="true")
        with trio.fail_after(10):
            while [(await get(client, session)).dockerd_id for session in waiting] != ["a", "a", None]:
                await trio.sleep(0.01)
        late = await client.create("busybox", "true", ttl="1m")
        outcome = Outcome(
            status=Status.FINISHED,
            reason=Reason.EXIT,
            message="m",
            finished_at=_NOW,
            exit_code=0,
            trace=Verdict(state=TraceState.COMPLETE),
        )
        payload = msgspec.json.encode(outcome)
        assert kinds(await node.own_poll(("session_end", waiting[0].id, payload)))[0] == (
            "session_cleanup",
            waiting[0].id,
        )
        with trio.fail_after(10):
            while (await get(client, waiting[2])).dockerd_id != "a":
                await trio.sleep(0.01)
        assert (await get(client, late)).dockerd_id is None


async def test_a_session_that_a_full_report_does_not_name_is_lost(api: Api, client: Client) -> None:
    async with open_node(api.socket_endpoint, "a") as node:
        await node.own_poll(full="true")
        session = await client.create("busybox", "true", ttl="1m")
        await node.own_poll(("session_running", session.id, b""))
        await node.own_poll(full="true")
        lost = await get(client, session)
        assert (lost.status, lost.reason) == (Status.FAILED, Reason.NODE_LOST)


async def test_a_session_that_the_store_does_not_know_is_stopped_where_it_runs(api: Api) -> None:
    unknown = "01a20a5a-f1dc-771c-a61f-2efdc4734108"
    async with open_node(api.socket_endpoint, "a") as node:
        answer = await node.own_poll(("session_running", unknown, b""), full="true")
        assert kinds(answer) == [("session_stopped", unknown)]
        answer = await node.own_poll(("session_end", unknown, b""))
        assert kinds(answer) == [("session_cleanup", unknown)]


async def test_a_stop_and_an_end_at_once_leave_one_terminal_status(api: Api, client: Client) -> None:
    async with open_node(api.socket_endpoint, "a") as node:
        await node.own_poll(full="true")
        for _ in range(30):
            session = await client.create("busybox", "true", ttl="1m")
            await node.own_poll(("session_running", session.id, b""))
            seen: list[Session] = []
            async with trio.open_nursery() as nursery:

                async def stop(target: Session = session, seen: list[Session] = seen) -> None:
                    try:
                        seen.append(await client.stop(target.id))
                    except Exception as error:
                        assert "an ended session never changes" in str(error)  # noqa: PT017 - either is right

                nursery.start_soon(stop)
                nursery.start_soon(node.own_poll, ("session_end", session.id, b""))
            settled = await get(client, session)
            assert settled.status in {Status.STOPPED, Status.FINISHED}
            assert all(item.status is settled.status for item in seen)
            await node.own_poll(("session_end", session.id, b""))
            assert (await get(client, session)).status is settled.status
            assert settled.logs.state is LogsState.PENDING
