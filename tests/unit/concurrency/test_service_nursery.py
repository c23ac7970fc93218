"""Tasks that serve a body, and that body's end."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from bedrock.concurrency.service_nursery import open_service_nursery


async def _clean_up(seconds: float) -> None:
    with trio.move_on_after(seconds, shield=True):
        await trio.sleep_forever()


class _Service:
    """Records whether it is there."""

    def __init__(self) -> None:
        self.is_alive = False

    async def run(self, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        self.is_alive = True
        task_status.started("up")
        try:
            await trio.sleep_forever()
        finally:
            self.is_alive = False


@pytest.mark.parametrize("waits_for_start", [False, True])
async def test_a_service_is_there_while_a_cancelled_body_cleans_up(
    autojump_clock: MockClock, waits_for_start: bool
) -> None:
    service = _Service()
    with trio.move_on_after(1) as scope:
        async with open_service_nursery() as services:
            if waits_for_start:
                assert await services.start(service.run) == "up"
            else:
                services.start_soon(service.run)
            try:
                await trio.sleep_forever()
            finally:
                await _clean_up(10)
                assert service.is_alive
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(11)
    assert not service.is_alive


async def test_a_body_that_ends_ends_its_services() -> None:
    service = _Service()
    async with open_service_nursery() as services:
        await services.start(service.run)
    assert not service.is_alive


async def test_a_body_that_fails_ends_its_services() -> None:
    service = _Service()

    async def use() -> None:
        async with open_service_nursery() as services:
            await services.start(service.run)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await use()
    assert not service.is_alive


async def test_a_service_that_fails_cancels_the_body_which_cleans_up_with_the_others(autojump_clock: MockClock) -> None:
    service = _Service()

    async def fail() -> None:
        await trio.sleep(1)
        raise KeyError("mine")

    async def use() -> None:
        async with open_service_nursery() as services:
            services.start_soon(service.run)
            services.start_soon(fail)
            try:
                await trio.sleep_forever()
            finally:
                await _clean_up(5)
                assert service.is_alive

    with pytest.raises(KeyError, match="mine"):
        await use()
    assert not service.is_alive


async def test_a_start_that_is_cancelled_is_given_up(autojump_clock: MockClock) -> None:
    async def never_starts(task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(1) as scope:
        async with open_service_nursery() as services:
            await services.start(never_starts)
    assert scope.cancelled_caught


async def test_an_error_before_the_start_is_raised_where_it_was_waited_for() -> None:
    async def fail(task_status: trio.TaskStatus[None]) -> None:
        raise KeyError("mine")

    async with open_service_nursery() as services:
        with pytest.raises(KeyError, match="mine"):
            await services.start(fail)


async def test_a_task_that_comes_after_the_body_is_cancelled_at_once(autojump_clock: MockClock) -> None:
    async with open_service_nursery() as services:

        async def late() -> None:
            try:
                await trio.sleep_forever()
            finally:
                services.start_soon(trio.sleep_forever)

        services.start_soon(late)
        await trio.sleep(1)


async def test_a_start_that_is_cancelled_just_as_the_task_has_started_ends_too() -> None:
    service = _Service()
    with trio.CancelScope() as scope:
        async with open_service_nursery() as services:

            async def slow(task_status: trio.TaskStatus[str]) -> None:
                await trio.lowlevel.checkpoint()
                scope.cancel()
                await service.run(task_status)

            await services.start(slow)
    assert scope.cancelled_caught
    assert not service.is_alive


async def test_a_task_that_returns_without_having_started_is_an_error() -> None:
    async def returns(task_status: trio.TaskStatus[None]) -> None:
        await trio.lowlevel.checkpoint()

    async with open_service_nursery() as services:
        with pytest.raises(RuntimeError, match="without calling"):
            await services.start(returns)
