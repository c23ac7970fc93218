"""The key-value store. :func:`open_store` is the way in; :mod:`bedrock.kv.interface` is the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from bedrock.errors import InvalidInput
from bedrock.kv.interface import (
    Conflict,
    Delete,
    Entry,
    KVStore,
    Page,
    Put,
    StoreClosed,
    StoreError,
    StoreUnavailable,
)
from bedrock.ownership import sole_owner

__all__ = [
    "Conflict",
    "Delete",
    "Entry",
    "KVStore",
    "Page",
    "Put",
    "StoreClosed",
    "StoreError",
    "StoreUnavailable",
    "open_store",
]


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[KVStore]:
    """Open the store at ``url`` until the context is left: ``sqlite:///FILE`` or ``sqlite+aiosqlite:///FILE``.

    The file and its directory are made when they are not there. One process at a time: a second one is refused.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidInput("store_url", f"{url!r} is no URL; give sqlite:////absolute/path.db") from None
    if parsed.drivername not in {"sqlite", "sqlite+aiosqlite"}:
        raise InvalidInput("store_url", f"{parsed.drivername!r} is none of sqlite, sqlite+aiosqlite")
    if not parsed.database or parsed.database == ":memory:" or not Path(parsed.database).is_absolute():
        raise InvalidInput("store_url", f"{url!r} names no absolute path; give sqlite:////absolute/path.db")
    path = Path(parsed.database)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent} can't be made: {error.strerror}") from None
    refusal = f"{path} is in use by another process; stop that one, or give this one a store_url of its own"
    with sole_owner(path.with_name(path.name + ".lock"), refusal):
        if parsed.drivername == "sqlite":
            from bedrock.kv.sqlite import open_sqlite

            async with open_sqlite(path) as store:
                yield store
        else:
            from bedrock.kv.aio import open_aiosqlite

            async with open_aiosqlite(path) as async_store:
                yield async_store
