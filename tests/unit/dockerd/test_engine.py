"""The engine's client against an engine that accepts and does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from bedrock.dockerd.engine import Engine
from bedrock.dockerd.engine_values import EngineUnavailable


@pytest.fixture
async def silent_engine(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Engine]:
    """An engine that takes every request and never says anything."""
    path = tmp_path / "sock"
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
        await listener.bind(str(path))
        listener.listen()
        yield Engine(f"unix://{path}", "1.41")


async def test_a_call_that_is_cancelled_waits_for_its_answer_until_it_is_told_to_hurry(silent_engine: Engine) -> None:
    with trio.fail_after(30), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            over = trio.Event()

            async def call() -> None:
                with suppress(EngineUnavailable):
                    await silent_engine.remove("nobody")
                over.set()

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked(0.1)
            scope.cancel()
            with trio.move_on_after(0.2, shield=True):
                await over.wait()
            assert not over.is_set()
            silent_engine.hurry(0.1)
    assert over.is_set()


async def test_a_call_in_a_hurry_ends_without_an_answer(silent_engine: Engine) -> None:
    silent_engine.hurry(0.1)
    with trio.fail_after(30), pytest.raises(EngineUnavailable, match="did not answer within"):
        await silent_engine.info()


async def test_opening_a_silent_stream_is_given_up_at_once(silent_engine: Engine) -> None:
    for function in (silent_engine.attach_output, partial(silent_engine.open_log, follow=True)):
        with trio.fail_after(30), trio.move_on_after(0.2) as scope:
            await function("nobody")
        assert scope.cancelled_caught
