"""Sessions on the key-value store, with the index keys that keep every question as small as its answer.

========================  =====================================================================
``session/<id>``          the session, as JSON
``status/<status>/<id>``  the sessions of one status
``label/<k>=<v>/<id>``    the sessions that carry one label (both parts percent-encoded)
``waiting/<id>``          pending sessions that no node has been given yet, oldest first
``work/<node>/<id>``      sessions that a node still owes the report of their end
``file/<id>/<filename>``  one stored file: size and sha256, as JSON
========================  =====================================================================

Ids are time-ordered, so every scan is in the order of creation. A session and its index keys change in one commit,
which expects the revision that the change was computed from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from bedrock.errors import BedrockError
from bedrock.kv import Conflict, Delete, KVStore, Put
from bedrock.model import NodeName, Session, SessionId, Status, StoredFile

_PAGE = 500  # what is decoded in one go, which holds up everybody else for some milliseconds


class UnknownSession(BedrockError):
    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is no session {session_id}")
        self.session_id = session_id


class Stored(NamedTuple):
    """A session and the store's revision of it."""

    session: Session
    revision: int


class SessionPage(NamedTuple):
    """``after`` continues the list behind the last session, None when there are no more."""

    sessions: list[Session]
    after: SessionId | None


def _session_key(session_id: SessionId) -> str:
    return f"session/{session_id}"


def _work_key(node: NodeName, session_id: SessionId) -> str:
    return f"work/{node}/{session_id}"


def _file_key(session_id: SessionId, filename: str) -> str:
    return f"file/{session_id}/{filename}"


def _encode(value: Session | StoredFile) -> bytes:
    return msgspec.json.encode(value)


def _label_prefix(name: str, value: str) -> str:
    return f"label/{quote(name, safe='')}={quote(value, safe='')}/"


def _index_keys(session: Session) -> set[str]:
    keys = {f"status/{session.status}/{session.id}"}
    keys |= {_label_prefix(name, value) + session.id for name, value in session.labels.items()}
    if session.status is Status.PENDING and session.dockerd_id is None:
        keys.add(f"waiting/{session.id}")
    return keys


class Sessions:
    """Typed access to the sessions of one store. Every method may raise the store's errors."""

    def __init__(self, store: KVStore) -> None:
        self._store = store

    async def insert(self, session: Session) -> Stored:
        """Store a new session; one that is already given to a node becomes that node's work in the same commit."""
        operations = [Put(_session_key(session.id), _encode(session))]
        operations += [Put(key, b"") for key in sorted(_index_keys(session))]
        if session.dockerd_id is not None:
            operations.append(Put(_work_key(session.dockerd_id, session.id), b""))
        revision = await self._store.commit(*operations, expect={_session_key(session.id): 0})
        return Stored(session, revision)

    async def get(self, session_id: SessionId) -> Stored:
        """Return a session; raise :class:`UnknownSession`."""
        entry = await self._store.get(_session_key(session_id))
        if entry is None:
            raise UnknownSession(session_id)
        return Stored(msgspec.json.decode(entry.value, type=Session), entry.revision)

    async def update(
        self,
        session_id: SessionId,
        change: Callable[[Session], Session],
        *,
        settle: bool = False,
        files: Iterable[StoredFile] = (),
    ) -> tuple[Stored, Session]:
        """Apply a pure change atomically; return what is stored now, and what was before.

        ``change`` is called again with what another writer has left when that writer was faster, so it must judge the
        session it is given; what it raises is passed on, with nothing written. ``settle`` removes the session from
        its node's work; ``files`` are recorded in the same commit, so none is ever recorded for a session that was
        removed meanwhile. A change that changes nothing writes nothing.
        """
        while True:
            before, revision = await self.get(session_id)
            after = change(before)
            key = _session_key(session_id)
            operations: list[Put | Delete] = [
                Put(_file_key(session_id, item.filename), _encode(item)) for item in files
            ]
            if after != before:
                operations.append(Put(key, _encode(after)))
                old, new = _index_keys(before), _index_keys(after)
                operations += [Put(index, b"") for index in sorted(new - old)]
                operations += [Delete(index) for index in sorted(old - new)]
            if after.dockerd_id is not None:
                work = _work_key(after.dockerd_id, session_id)
                if before.dockerd_id is None:
                    operations.append(Put(work, b""))
                if settle and await self._store.get(work) is not None:
                    operations.append(Delete(work))
            if not operations:
                return Stored(before, revision), before
            try:
                committed = await self._store.commit(*operations, expect={key: revision})
            except Conflict:
                continue
            return Stored(after, committed if after != before else revision), before

    async def remove(self, session_id: SessionId, check: Callable[[Session], None]) -> Session:
        """Remove a session and everything the store has of it; ``check`` may refuse by raising."""
        while True:
            session, revision = await self.get(session_id)
            check(session)
            files = await self.files(session_id)
            operations = [Delete(_session_key(session_id))]
            operations += [Delete(key) for key in sorted(_index_keys(session))]
            operations += [Delete(_file_key(session_id, item.filename)) for item in files]
            try:
                await self._store.commit(*operations, expect={_session_key(session_id): revision})
            except Conflict:
                continue
            return session

    async def page(
        self,
        *,
        limit: int,
        after: SessionId | None = None,
        statuses: Iterable[Status] = (),
        labels: Iterable[tuple[str, str]] = (),
        newest_first: bool = False,
    ) -> SessionPage:
        """Return up to ``limit`` sessions behind ``after``, oldest first unless ``newest_first``.

        The narrowest index is scanned; a second condition is checked on what that one gives. One page costs what
        another does, wherever in the list it lies.
        """
        wanted, conditions = frozenset(statuses), list(labels)
        if conditions:
            prefix = _label_prefix(*conditions[0])
        elif len(wanted) == 1:
            prefix = f"status/{next(iter(wanted))}/"
        else:
            prefix = "session/"
        # Where the index answers the whole question no more is read than is wanted.
        is_whole = len(conditions) + len(wanted) <= 1
        found: list[Session] = []
        cursor = prefix + after if after else None
        while True:
            size = min(_PAGE, limit - len(found)) if is_whole else _PAGE
            page = await self._store.scan(prefix, after=cursor, limit=size, reverse=newest_first)
            if prefix == "session/":
                batch = [msgspec.json.decode(entry.value, type=Session) for entry in page.entries]
            else:
                ids = [entry.key.removeprefix(prefix) for entry in page.entries]
                entries = await self._store.get_many([_session_key(SessionId(item)) for item in ids])
                batch = [msgspec.json.decode(entry.value, type=Session) for entry in entries if entry is not None]
            for session in batch:
                if wanted and session.status not in wanted:
                    continue
                if not all(session.labels.get(name) == value for name, value in conditions):
                    continue
                if len(found) == limit:
                    return SessionPage(found, found[-1].id)
                found.append(session)
            if page.cursor is None:
                return SessionPage(found, None)
            if is_whole and len(found) == limit:
                return SessionPage(found, found[-1].id)
            cursor = page.cursor

    async def check(self) -> None:
        """Return when the store could have written something; raises the store's error when it could not."""
        await self._store.commit()

    async def waiting(self, *, limit: int) -> list[SessionId]:
        """The oldest sessions that no node has been given yet."""
        page = await self._store.scan("waiting/", limit=limit)
        return [SessionId(entry.key.removeprefix("waiting/")) for entry in page.entries]

    async def work(self) -> AsyncIterator[tuple[NodeName, Session]]:
        """Everything that any node still owes an end, to build the fleet's working copy when the API starts."""
        cursor: str | None = None
        while True:
            page = await self._store.scan("work/", after=cursor, limit=_PAGE)
            owed = [(entry.key, *entry.key.split("/")[1:]) for entry in page.entries]
            stored = await self._store.get_many([_session_key(SessionId(session_id)) for _, _, session_id in owed])
            gone = [Delete(key) for (key, _, _), entry in zip(owed, stored, strict=True) if entry is None]
            if gone:
                await self._store.commit(*gone)
            for (_, node, _), entry in zip(owed, stored, strict=True):
                if entry is not None:
                    yield NodeName(node), msgspec.json.decode(entry.value, type=Session)
            if page.cursor is None:
                return
            cursor = page.cursor

    async def files(self, session_id: SessionId) -> list[StoredFile]:
        """The stored files of a session, by name."""
        found: list[StoredFile] = []
        cursor: str | None = None
        while True:
            page = await self._store.scan(f"file/{session_id}/", after=cursor, limit=_PAGE)
            found += [msgspec.json.decode(entry.value, type=StoredFile) for entry in page.entries]
            if page.cursor is None:
                return found
            cursor = page.cursor

    async def file(self, session_id: SessionId, filename: str) -> StoredFile | None:
        entry = await self._store.get(_file_key(session_id, filename))
        return None if entry is None else msgspec.json.decode(entry.value, type=StoredFile)
