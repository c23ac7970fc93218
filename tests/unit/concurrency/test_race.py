from __future__ import annotations

import pytest
import trio
import trio.testing

from bedrock.concurrency.race import all_of, first_of


async def forever() -> str:
    await trio.sleep_forever()


async def test_the_first_to_finish_gives_the_result_and_the_others_are_cancelled() -> None:
    was_cancelled = False

    async def loser() -> str:
        nonlocal was_cancelled
        try:
            return await forever()
        except trio.Cancelled:
            was_cancelled = True
            raise

    async def winner() -> str:
        await trio.testing.wait_all_tasks_blocked()
        return "won"

    assert await first_of(loser, winner, loser) == "won"
    assert was_cancelled


async def test_a_first_error_comes_out_as_it_is() -> None:
    async def fail() -> str:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await first_of(forever, fail)


async def test_a_loser_that_still_finishes_changes_nothing() -> None:
    is_won = trio.Event()

    async def win() -> str:
        await trio.testing.wait_all_tasks_blocked()
        is_won.set()
        return "won"

    async def finish_late() -> str:
        with trio.CancelScope(shield=True):
            await is_won.wait()
        return "late"

    assert await first_of(finish_late, win) == "won"


async def quick() -> str:
    return "won"


async def fail_late() -> str:
    try:
        return await forever()
    finally:
        raise OSError("the disk is gone")


async def test_an_error_of_a_loser_that_cleans_up_is_heard() -> None:
    with pytest.raises(OSError, match="the disk is gone"):
        await first_of(quick, fail_late)


async def test_errors_of_a_winner_and_of_a_loser_are_heard_together() -> None:
    async def fail() -> str:
        raise KeyError("mine")

    with pytest.RaisesGroup(KeyError, OSError):
        await first_of(fail, fail_late)


async def test_a_race_from_outside_cancelled_ends_all() -> None:
    with trio.move_on_after(0.01) as scope:
        await first_of(forever, forever)
    assert scope.cancelled_caught


async def test_all_run_to_their_end_though_one_fails_and_its_error_comes_out_as_it_is() -> None:
    done = []

    async def fail() -> None:
        raise KeyError("mine")

    async def finish() -> None:
        await trio.testing.wait_all_tasks_blocked()
        done.append("finished")

    with pytest.raises(KeyError, match="mine"):
        await all_of(fail, finish)
    assert done == ["finished"]


async def test_of_several_errors_all_are_heard() -> None:
    async def fail(error: Exception) -> None:
        raise error

    with pytest.RaisesGroup(ValueError, OSError):
        await all_of(lambda: fail(ValueError("a")), lambda: fail(OSError("b")))


async def test_an_error_before_a_cancellation_from_outside_is_heard() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    with pytest.RaisesGroup(KeyError), trio.move_on_after(0.01):
        await all_of(fail, forever)


async def test_without_an_error_all_of_says_nothing() -> None:
    done = []

    async def finish() -> None:
        done.append("finished")

    await all_of(finish, finish)
    assert done == ["finished", "finished"]
