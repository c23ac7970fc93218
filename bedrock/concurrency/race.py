"""Several coroutines at once, whose failure reads like one coroutine's unless several of them fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from bedrock.concurrency.nursery import open_hidden_nursery

_T = TypeVar("_T")


async def first_of(*functions: Callable[[], Awaitable[_T]]) -> _T:
    """Run all, return what the first one to finish returns, and cancel the others.

    An error of any of them is raised, also one that a loser raises while it is being cancelled, since nobody else would
    hear of it: alone as it is, several as a group. What a loser returns is lost, as it has lost. Cancelled from
    outside, all are cancelled.
    """
    results: list[_T] = []

    async def run(function: Callable[[], Awaitable[_T]], scope: trio.CancelScope) -> None:
        results.append(await function())
        scope.cancel()

    async with open_hidden_nursery() as nursery:
        for function in functions:
            nursery.start_soon(run, function, nursery.cancel_scope)
    return results[0]


async def all_of(*functions: Callable[[], Awaitable[object]]) -> None:
    """Run all to their end, even when one fails; then raise its error as it is, or those of several as a group.

    Cancelled from outside, all are cancelled, and errors that there were come out beside the cancellation.
    """
    errors: list[BaseException] = []

    async def run(function: Callable[[], Awaitable[object]]) -> None:
        try:
            await function()
        except Exception as error:
            errors.append(error)

    try:
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(run, function)
    except BaseException as error:
        errors.insert(0, error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup("several of those that ran together failed", errors)
