"""The second driver: SQLAlchemy's asyncio engine, through trio-asyncio.

It is the road for databases that have asyncio drivers only; on SQLite it serves to keep that road open, and is several
times slower than the first driver, since each statement crosses from Trio to asyncio to a thread and back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio
import trio_asyncio
from sqlalchemy import Connection, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from bedrock.concurrency.groups import lone_error_unwrapped
from bedrock.kv.errors import translate
from bedrock.kv.interface import Commit, Entry, KVStore, Scan, StoreClosed, StoreUnavailable
from bedrock.kv.schema import apply_commit, migrate, read_many, read_revision, read_scan, write_revision
from bedrock.kv.sqlite import BUSY_TIMEOUT_MS

_T = TypeVar("_T")

_TRANSACTION_S = 30.0
_DISPOSE_S = 5.0


class AsyncStore(KVStore):
    """One database behind one connection. Made by :func:`open_aiosqlite`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # One connection for everything: Python's own SQLite may be of the versions that corrupt a database to which
        # two connections write and checkpoint.
        self._turn = trio.Lock()
        self._is_closed = False

    async def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        return await self._run(partial(read_many, keys=keys))

    async def _scan(self, scan: Scan) -> list[Entry]:
        return await self._run(partial(read_scan, scan=scan))

    async def revision(self) -> int:
        return await self._run(read_revision)

    async def _commit(self, commit: Commit) -> int:
        def work(connection: Connection) -> int:
            revision = read_revision(connection)
            apply_commit(connection, commit, revision + 1)
            if commit.operations:
                revision += 1
                write_revision(connection, revision)
            return revision

        return await self._run(work)

    async def _run(self, function: Callable[[Connection], _T]) -> _T:
        async def work() -> _T:
            async with self._engine.begin() as connection:
                return await connection.run_sync(function)

        if self._is_closed:
            raise StoreClosed
        async with self._turn:
            if self._is_closed:
                raise StoreClosed
            try:
                # Once begun, a transaction is brought to its end: half of one would hold the only connection.
                with trio.fail_after(_TRANSACTION_S, shield=True):
                    result: _T = await trio_asyncio.aio_as_trio(work)()
            except SQLAlchemyError as error:
                raise translate(error) from None
            except trio.TooSlowError:
                raise StoreUnavailable(f"the store did not answer within {_TRANSACTION_S:.0f} s") from None
            return result


@asynccontextmanager
async def _open_loop() -> AsyncIterator[None]:
    """An asyncio loop whose nurseries don't show: a lone error comes out as it went in."""
    with lone_error_unwrapped():
        async with trio_asyncio.open_loop():
            yield


@asynccontextmanager
async def open_aiosqlite(path: Path) -> AsyncIterator[AsyncStore]:
    """Open the database at ``path`` until the context is left. Raises what :func:`open_sqlite` raises."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    async with _open_loop():
        store = AsyncStore(engine)
        try:
            await store._run(migrate)
            yield store
        finally:
            with trio.move_on_after(_DISPOSE_S, shield=True):
                async with store._turn:
                    store._is_closed = True
                    await trio_asyncio.aio_as_trio(engine.dispose)()
