"""How long a session is watched, on a clock that jumps, with an API that plays a session's life by that clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing

from bedrock.client import Client
from bedrock.model import Logs, LogsState, Reason, Session, Status, TraceState, Verdict, new_session_id

_NOW = datetime(2026, 1, 2, tzinfo=UTC)
_VERDICT = Verdict(state=TraceState.COMPLETE)


def session(status: Status, logs: LogsState = LogsState.PENDING, **fields: Any) -> Session:
    return Session(
        id=_ID,
        created_at=_NOW,
        status=status,
        image="busybox",
        command="true",
        ttl="1m",
        argv=["true"],
        logs=Logs(state=logs, **({"files": fields.pop("files")} if "files" in fields else {})),
        **fields,
    )


_ID = new_session_id()
_RUNNING = session(Status.RUNNING)


def client_of(life: Sequence[tuple[float, Session]]) -> Client:
    """A client of an API in which one session is, from each of these seconds on, what stands beside it."""

    def present() -> Session:
        return [state for at_s, state in life if at_s <= trio.current_time()][-1]

    async def answer(request: httpx.Request) -> httpx.Response:
        wait_s = float(request.headers.get("Prefer", "wait=0").removeprefix("wait="))
        deadline = trio.current_time() + wait_s
        while True:
            content = msgspec.json.encode(present())
            etag = f'"{hash(content)}"'
            if request.headers.get("If-None-Match") != etag:
                return httpx.Response(200, content=content, headers={"ETag": etag})
            changes = [at_s for at_s, _ in life if at_s > trio.current_time()]
            await trio.sleep_until(min([deadline, *changes]))
            if trio.current_time() >= deadline:
                return httpx.Response(304, headers={"ETag": etag})

    return Client(httpx.AsyncClient(base_url="http://api", transport=httpx.MockTransport(answer)))


@pytest.mark.parametrize(
    ("life", "seconds"),
    [
        pytest.param(
            [(0, _RUNNING), (100, session(Status.FINISHED)), (105, session(Status.FINISHED, LogsState.STORED))],
            115,
            id="files without a manifest are all that come once nothing more has come for ten seconds",
        ),
        pytest.param(
            [
                (0, _RUNNING),
                (100, session(Status.FINISHED, LogsState.STORED, files=1)),
                (109, session(Status.FINISHED, LogsState.STORED, files=2)),
            ],
            119,
            id="each file that comes begins the ten seconds anew",
        ),
        pytest.param(
            [
                (0, _RUNNING),
                (100, session(Status.FINISHED, LogsState.STORED, trace=_VERDICT)),
                (900, session(Status.FINISHED, LogsState.COMPLETE, trace=_VERDICT)),
            ],
            900,
            id="a node that judges traces brings a manifest, however long its files take",
        ),
        pytest.param(
            [(0, _RUNNING), (100, session(Status.FAILED, reason=Reason.NODE_LOST))],
            110,
            id="a lost node brings nothing",
        ),
        pytest.param(
            [(0, _RUNNING), (100, session(Status.FINISHED)), (900, session(Status.FINISHED, LogsState.COMPLETE))],
            900,
            id="files of which none has come yet are waited for",
        ),
        pytest.param([(0, session(Status.STOPPED, LogsState.NONE))], 0, id="there will be no files"),
    ],
)
async def test_a_session_is_watched_until_no_more_of_its_files_are_to_come(
    life: Sequence[tuple[float, Session]], seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.fail_after(2000):
        seen = [state async for state in client_of(life).watch(_ID, until_stored=True)]
    assert seen == [state for _, state in life]
    assert trio.current_time() == pytest.approx(seconds, abs=1)


async def test_without_files_the_end_is_enough(autojump_clock: trio.testing.MockClock) -> None:
    life = [(0, _RUNNING), (100, session(Status.FINISHED))]
    with trio.fail_after(2000):
        seen = [state.status async for state in client_of(life).watch(_ID)]
    assert seen == [Status.RUNNING, Status.FINISHED]


async def test_a_change_is_waited_for_as_long_as_it_takes(autojump_clock: trio.testing.MockClock) -> None:
    client = client_of([(0, _RUNNING), (7000, session(Status.FINISHED))])
    found = await client.get(_ID)
    assert found.session == _RUNNING
    changed = await client.wait_change(_ID, found.etag)
    assert (changed.session.status, trio.current_time()) == (Status.FINISHED, pytest.approx(7000, abs=1))
