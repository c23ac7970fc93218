"""The first driver: SQLAlchemy's synchronous engine in threads, on the SQLite that pysqlite3 brings along."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pysqlite3
import trio
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from bedrock.concurrency.service_nursery import open_service_nursery
from bedrock.kv.errors import translate
from bedrock.kv.interface import Commit, Entry, KVStore, Scan, StoreClosed, StoreError
from bedrock.kv.schema import migrate, read_many, read_revision, read_scan
from bedrock.kv.writer import Writer

_T = TypeVar("_T")

# 3.7.0 to 3.51.2 can corrupt a database when one connection resets the WAL while another one writes.
_OLDEST_SQLITE = (3, 51, 3)
_READERS = 4
BUSY_TIMEOUT_MS = 5_000
_DISPOSE_S = 5.0


class SqliteStore(KVStore):
    """One database file. Made by :func:`open_sqlite`."""

    def __init__(self, writer: Writer, readers: Engine) -> None:
        self._writer = writer
        self._readers = readers
        self._limiter = trio.CapacityLimiter(_READERS)
        self._is_closed = False

    async def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        return await self._read(partial(read_many, keys=keys))

    async def _scan(self, scan: Scan) -> list[Entry]:
        return await self._read(partial(read_scan, scan=scan))

    async def revision(self) -> int:
        return await self._read(read_revision)

    async def _commit(self, commit: Commit) -> int:
        return await self._writer.commit(commit)

    async def _read(self, function: Callable[[Connection], _T]) -> _T:
        if self._is_closed:
            raise StoreClosed

        def work() -> _T:
            try:
                with self._readers.begin() as connection:
                    return function(connection)
            except SQLAlchemyError as error:
                raise translate(error) from None

        return await trio.to_thread.run_sync(work, limiter=self._limiter)


def _make_engine(path: Path, *, writes: bool) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        module=pysqlite3,
        poolclass=QueuePool,
        pool_size=1 if writes else _READERS,
        max_overflow=0,
        connect_args={"check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, _record: Any) -> None:
        # The driver's own idea of when to begin a transaction loses updates; SQLAlchemy says it instead, below.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        if writes:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
        else:
            # Only the writer's connection writes and checkpoints: see _OLDEST_SQLITE.
            cursor.execute("PRAGMA wal_autocheckpoint=0")
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that begins by reading and then writes fails at once when somebody else has written meanwhile.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@asynccontextmanager
async def open_sqlite(path: Path) -> AsyncIterator[SqliteStore]:
    """Open the database at ``path``, making it when it is not there, until the context is left.

    Commits that are queued then are still written. Raises :class:`StoreError` for a file that is no database, is of a
    later version, or can't be opened.
    """
    if pysqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreError(
            f"pysqlite3 brings SQLite {pysqlite3.sqlite_version}, which can corrupt the store; install pysqlite3 0.6.1"
        )
    writing, reading = _make_engine(path, writes=True), _make_engine(path, writes=False)

    def prepare() -> None:
        try:
            with writing.begin() as connection:
                migrate(connection)
        except SQLAlchemyError as error:
            raise translate(error) from None

    def dispose() -> None:
        reading.dispose()
        writing.dispose()

    try:
        await trio.to_thread.run_sync(prepare)
        writer = Writer(writing)
        store = SqliteStore(writer, reading)

        async def write() -> None:
            # A write must not be left in mid-air: the thread is told to end, and then waited for.
            await trio.to_thread.run_sync(writer.run, thread_name="store writer", limiter=trio.CapacityLimiter(1))

        async with open_service_nursery() as services:
            services.start_soon(write)
            try:
                yield store
            finally:
                store._is_closed = True
                writer.close()
    finally:
        with trio.move_on_after(_DISPOSE_S, shield=True):
            await trio.to_thread.run_sync(dispose, abandon_on_cancel=True)
