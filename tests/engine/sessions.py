"""What tests do with sessions, over and over."""

from __future__ import annotations

from pathlib import Path

import trio

from bedrock.client import Client
from bedrock.model import Session, Status
from bedrock.trace.events import Event, read_events
from bedrock.volume import TRACE_FILE


async def finished(client: Client, session: Session) -> Session:
    """Return the session once it has ended and its files are home."""
    with trio.fail_after(60):
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
