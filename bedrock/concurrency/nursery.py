"""A nursery that an ``open_...`` context keeps to itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from bedrock.concurrency.groups import lone_error_unwrapped


@asynccontextmanager
async def open_hidden_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery for the inside of an async context manager, whose callers need not know that there is one.

    An error of the body comes out as it went in, and so does one of a task when nothing else failed, so that
    ``except EngineError`` round the context catches what it names. Failures that happen together stay a group.
    Everything else, cancellation included, is as with :func:`trio.open_nursery`.
    """
    with lone_error_unwrapped(levels=1):
        async with trio.open_nursery() as nursery:
            yield nursery
