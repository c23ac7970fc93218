"""What tests do with sessions, over and over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from bedrock.client import Client
from bedrock.model import Session, Status
from bedrock.trace.events import Event, read_events
from bedrock.volume import TRACE_FILE

PAGE = 4096
Traced = Callable[..., Awaitable[list[Event]]]


async def finished(client: Client, session: Session, *, limit_s: float = 60) -> Session:
    """Return the session once it has ended and its files are home."""
    with trio.fail_after(limit_s):
        async for state in client.watch(session.id, until_stored=True):
            session = state
    return session


async def running(client: Client, session: Session) -> Session:
    """Return the session once it is no longer pending."""
    with trio.fail_after(30):
        async for state in client.watch(session.id):
            if state.status is not Status.PENDING:
                return state
    raise AssertionError("the session never ran")


async def events_of(client: Client, session: Session, directory: Path) -> list[Event]:
    """Every call in a session's trace."""
    path = directory / f"{session.id}.bdt"
    await client.download(session.id, TRACE_FILE, path)
    return list(read_events(path))


async def content(client: Client, session: Session, filename: str) -> bytes:
    """One of a session's files."""
    async with client.open_file(session.id, filename) as chunks:
        return b"".join([chunk async for chunk in chunks])


def of(events: list[Event], *ops: str, path: str | None = None) -> list[Event]:
    return [event for event in events if event.op in ops and (path is None or event.path == path)]
