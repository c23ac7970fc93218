from __future__ import annotations

import pytest
import trio

from bedrock.concurrency.nursery import open_hidden_nursery


async def fail(error: BaseException) -> None:
    raise error


async def test_an_error_of_the_body_comes_out_as_it_went_in_and_the_tasks_end() -> None:
    ended = trio.Event()

    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    error = KeyError("mine")
    cause = ValueError("why")

    async def use() -> None:
        async with open_hidden_nursery() as nursery:
            nursery.start_soon(task)
            await trio.lowlevel.checkpoint()
            raise error from cause

    with pytest.raises(KeyError) as caught:
        await use()
    assert caught.value is error
    assert caught.value.__cause__ is cause
    assert not isinstance(caught.value.__context__, BaseExceptionGroup)
    assert ended.is_set()


async def test_an_error_of_the_only_task_that_failed_comes_out_as_it_is_and_ends_the_body() -> None:
    async def use() -> None:
        async with open_hidden_nursery() as nursery:
            nursery.start_soon(fail, KeyError("mine"))
            await trio.sleep_forever()

    with pytest.raises(KeyError, match="mine"):
        await use()


async def test_errors_that_happen_together_stay_a_group() -> None:
    async def use() -> None:
        async with open_hidden_nursery() as nursery:
            nursery.start_soon(fail, KeyError("one"))
            nursery.start_soon(fail, ValueError("two"))

    with pytest.RaisesGroup(KeyError, ValueError):
        await use()


async def test_a_group_that_the_body_raised_is_still_that_group() -> None:
    error = KeyError("one")
    with pytest.raises(ExceptionGroup, match="mine") as caught:
        async with open_hidden_nursery():
            raise ExceptionGroup("mine", [error])
    assert caught.value.exceptions == (error,)


async def test_cancellation_from_outside_reaches_the_scope_that_it_belongs_to() -> None:
    with trio.CancelScope() as scope:
        async with open_hidden_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_body_that_ends_waits_for_its_tasks() -> None:
    done = []

    async def task() -> None:
        await trio.lowlevel.checkpoint()
        done.append(1)

    async with open_hidden_nursery() as nursery:
        nursery.start_soon(task)
    assert done == [1]
