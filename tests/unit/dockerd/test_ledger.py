"""Ends that are kept until the API has acknowledged them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from bedrock.concurrency.service_nursery import open_service_nursery
from bedrock.dockerd import ledger as ledger_module
from bedrock.dockerd.agent import Agent
from bedrock.dockerd.ledger import Ledger, open_ledger
from bedrock.lifecycle import Outcome
from bedrock.model import Reason, Status, new_session_id, utc_now
from bedrock.volume import write_durably
from bedrock.wire import Event, EventType

_OUTCOME = Outcome(status=Status.FINISHED, reason=Reason.EXIT, message="", finished_at=utc_now(), exit_code=0)


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def _host(ledger: Ledger) -> Any:
    return cast("Any", SimpleNamespace(ledger=ledger))


async def test_ends_that_are_added_while_the_node_reports_do_not_disturb_the_report(
    tmp_path: Path, hasty_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "write_durably", lambda path, content: path.write_bytes(content))
    ledger = await open_ledger(tmp_path / "ended")
    async with open_service_nursery() as services:
        agent = Agent(_host(ledger), tmp_path, services)
        under_way = 4

        async def add() -> None:
            nonlocal under_way
            for _ in range(100):
                await ledger.add(new_session_id(), _OUTCOME)
            under_way -= 1

        for _ in range(under_way):
            services.start_soon(add)
        while under_way:
            agent.report(None)
            await trio.lowlevel.checkpoint()
        assert len(agent.report(None)) == 400


async def test_a_slow_disk_does_not_hold_the_others_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order to stop what this node does not have is written down, and meanwhile everything else goes on."""
    may_write = threading.Event()

    def write_slowly(path: Path, content: bytes) -> None:
        assert may_write.wait(timeout=5), "the loop stood still"
        write_durably(path, content)

    monkeypatch.setattr(ledger_module, "write_durably", write_slowly)
    session_id = new_session_id()
    async with open_service_nursery() as services, trio.open_nursery() as nursery:
        ledger = await open_ledger(tmp_path / "ended")
        agent = Agent(_host(ledger), tmp_path, services)
        nursery.start_soon(agent.apply, [Event(EventType.STOPPED, session_id)])
        await wait_all_tasks_blocked()
        may_write.set()
    assert agent.is_unacknowledged(session_id)
    await agent.apply([Event(EventType.CLEANUP, session_id)])
    assert not agent.is_unacknowledged(session_id)
    assert list((tmp_path / "ended").iterdir()) == []


async def test_an_end_outlives_the_process_until_it_is_acknowledged(tmp_path: Path) -> None:
    ledger = await open_ledger(tmp_path / "ended")
    kept, acknowledged = new_session_id(), new_session_id()
    for session_id in (kept, acknowledged):
        await ledger.add(session_id, _OUTCOME)
    await ledger.acknowledge([acknowledged, acknowledged, new_session_id()])
    assert (await open_ledger(tmp_path / "ended")).outcomes == {kept: _OUTCOME}


async def test_an_end_that_can_not_be_read_is_left_aside(tmp_path: Path) -> None:
    ledger = await open_ledger(tmp_path)
    whole, damaged = new_session_id(), new_session_id()
    await ledger.add(whole, _OUTCOME)
    for content in (b'{"message":"\xff"}', b"[" * 100_000, b"", b"{}"):
        (tmp_path / f"{damaged}.json").write_bytes(content)
        assert set((await open_ledger(tmp_path)).outcomes) == {whole}
