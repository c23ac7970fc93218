"""The one thread that writes, with group commit: whatever is queued when it looks goes into one transaction.

Waiting for the disk costs the same for one commit as for a hundred, so nearly nothing is paid for ``synchronous=FULL``
as soon as there is more than one caller. Each caller is answered for its own commit: one that is refused leaves no
trace in the group, and a group that could not be written is told to all who were in it.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence

import outcome
import structlog
import trio
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from bedrock.kv.errors import translate
from bedrock.kv.interface import Commit, Conflict, StoreClosed
from bedrock.kv.schema import apply_commit, read_revision, write_revision

log = structlog.get_logger(__name__)

_GROUP = 256
_QUEUE = 4_096


class _Waiter:
    """One caller's commit, and where its result is put."""

    def __init__(self, commit: Commit) -> None:
        self.commit = commit
        self.done = trio.Event()
        self.result: outcome.Value[int] | outcome.Error | None = None


class Writer:
    """The writing thread's queue. :meth:`run` is the thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._token = trio.lowlevel.current_trio_token()
        self._queue: queue.SimpleQueue[_Waiter | None] = queue.SimpleQueue()
        self._room = trio.Semaphore(_QUEUE)
        self._is_closed = False

    async def commit(self, commit: Commit) -> int:
        """Queue a commit and wait for its result. Waits for room first when the queue is full."""
        await self._room.acquire()
        if self._is_closed:
            self._room.release()
            raise StoreClosed
        waiter = _Waiter(commit)
        self._queue.put(waiter)
        await waiter.done.wait()
        assert waiter.result is not None
        return waiter.result.unwrap()

    def close(self) -> None:
        """Let the thread end once everything that is queued has been written. Later commits are refused."""
        self._is_closed = True
        self._queue.put(None)

    def run(self) -> None:
        """Write until closed."""
        is_open = True
        while is_open:
            group: list[_Waiter] = []
            waiter = self._queue.get()
            while True:
                if waiter is None:
                    is_open = False
                    break
                group.append(waiter)
                if len(group) == _GROUP:
                    break
                try:
                    waiter = self._queue.get_nowait()
                except queue.Empty:
                    break
            if group:
                self._write(group)
                self._token.run_sync_soon(self._answer, group)

    def _write(self, group: Sequence[_Waiter]) -> None:
        try:
            self._write_together(group)
        except SQLAlchemyError as error:
            if len(group) == 1:
                group[0].result = outcome.Error(translate(error))
                log.error("commit failed", error=str(group[0].result.error))
                return
            # Whose fault it is can't be told from here, so each is tried alone.
            for waiter in group:
                waiter.result = None
                self._write([waiter])

    def _write_together(self, group: Sequence[_Waiter]) -> None:
        with self._engine.begin() as connection:
            first = revision = read_revision(connection)
            for waiter in group:
                try:
                    apply_commit(connection, waiter.commit, revision + 1)
                except Conflict as error:
                    waiter.result = outcome.Error(error)
                    continue
                if waiter.commit.operations:
                    revision += 1
                waiter.result = outcome.Value(revision)
            if revision != first:
                write_revision(connection, revision)

    def _answer(self, group: Sequence[_Waiter]) -> None:
        for waiter in group:
            self._room.release()
            waiter.done.set()
