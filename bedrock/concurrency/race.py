"""Several coroutines at once whose failures read like one coroutine's, without a group around them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

_T = TypeVar("_T")


async def first_of(*functions: Callable[[], Awaitable[_T]]) -> _T:
    """Run all, return what the first one to finish returns or raises, and cancel the others.

    What the others raise while they are being cancelled is lost, as they have lost.
    """
    results: list[_T] = []
    errors: list[Exception] = []

    async def run(function: Callable[[], Awaitable[_T]], scope: trio.CancelScope) -> None:
        try:
            result = await function()
        except Exception as error:
            if not results and not errors:
                errors.append(error)
        else:
            if not results and not errors:
                results.append(result)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        for function in functions:
            nursery.start_soon(run, function, nursery.cancel_scope)
    if errors:
        raise errors[0]
    return results[0]


async def all_of(*functions: Callable[[], Awaitable[object]]) -> None:
    """Run all to their end, even when one fails; then raise the first error, if there was one."""
    errors: list[Exception] = []

    async def run(function: Callable[[], Awaitable[object]]) -> None:
        try:
            await function()
        except Exception as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for function in functions:
            nursery.start_soon(run, function)
    if errors:
        raise errors[0]
