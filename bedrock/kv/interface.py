"""The key-value store's contract: ordered keys, revisions, atomic compare-and-set of several keys.

Keys are text of up to 512 bytes in UTF-8 and are ordered by those bytes; values are up to 1 MiB. Each commit gets the
next revision of the whole store, a number that never goes back and is never used twice; an entry's revision is that of
the commit that wrote it last.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bedrock.errors import BedrockError, InvalidInput

MAX_KEY_BYTES = 512
MAX_VALUE_BYTES = 1 << 20
MAX_OPERATIONS = 1_000


class StoreError(BedrockError):
    """The store could not do what was asked."""


class Conflict(StoreError):
    """A key was not at the revision that a commit expected; nothing of that commit was written. 0 means absent."""

    def __init__(self, key: str, expected: int, actual: int) -> None:
        super().__init__(f"{key} is at revision {actual}, not at {expected}")
        self.key = key
        self.expected = expected
        self.actual = actual


class StoreUnavailable(StoreError):
    """The disk is full or failing, or another process holds the database. Nothing of the commit was written."""


class StoreClosed(StoreError):
    """The store has been closed; nothing was written."""

    def __init__(self) -> None:
        super().__init__("the store is closed")


class Entry(NamedTuple):
    key: str
    value: bytes
    revision: int


class Page(NamedTuple):
    """A part of a scan. ``cursor`` continues it behind the last entry; None when there is nothing behind."""

    entries: list[Entry]
    cursor: str | None


class Put(NamedTuple):
    key: str
    value: bytes


class Delete(NamedTuple):
    """Deleting an absent key is not an error; ``expect`` is there for those to whom it matters."""

    key: str


class Commit(NamedTuple):
    """A checked commit, as the drivers take it."""

    operations: Sequence[Put | Delete]
    expect: Mapping[str, int]


class Scan(NamedTuple):
    """A checked scan, as the drivers take it."""

    prefix: str
    after: str | None
    limit: int
    reverse: bool


class KVStore(ABC):
    """What every driver promises. Keys and values that break the limits raise :class:`InvalidInput`.

    A caller that is cancelled while it waits for a commit does not learn whether it was done; everybody else does.
    """

    @abstractmethod
    async def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        """Return the entries of ``keys``, in their order, from one snapshot; None for those that are absent."""

    @abstractmethod
    async def _scan(self, scan: Scan) -> list[Entry]: ...

    @abstractmethod
    async def _commit(self, commit: Commit) -> int: ...

    @abstractmethod
    async def revision(self) -> int:
        """Return the revision of the last commit, 0 for a store that was never written to."""

    async def get(self, key: str) -> Entry | None:
        """Return the entry of ``key``, None when it is absent."""
        return (await self.get_many([key]))[0]

    async def scan(self, prefix: str, *, after: str | None = None, limit: int = 1_000, reverse: bool = False) -> Page:
        """Return up to ``limit`` entries whose keys begin with ``prefix``, in key order or in ``reverse``.

        ``after`` is a key to go on behind, usually the last page's cursor. One range of the index is read, whatever
        else the store holds.
        """
        if limit < 1:
            raise InvalidInput("limit", f"must be at least 1, not {limit}")
        entries = await self._scan(Scan(prefix, after, limit + 1, reverse))
        if len(entries) > limit:
            return Page(entries[:limit], entries[limit - 1].key)
        return Page(entries, None)

    async def commit(self, *operations: Put | Delete, expect: Mapping[str, int] | None = None) -> int:
        """Do all ``operations`` or none, and return the new revision.

        ``expect`` maps keys to the revisions at which they must be, 0 for absent; otherwise :class:`Conflict` is
        raised. Without operations this only checks, and returns the present revision. Raises :class:`StoreUnavailable`
        when the commit could not be written and :class:`StoreClosed`.
        """
        expect = dict(expect or {})
        keys = [operation.key for operation in operations]
        if len(set(keys)) != len(keys):
            raise InvalidInput("operations", "a commit may write each key once")
        if len(keys) > MAX_OPERATIONS:
            raise InvalidInput("operations", f"there are {len(keys)}, the limit is {MAX_OPERATIONS}")
        for key in (*keys, *expect):
            check_key(key)
        for operation in operations:
            if isinstance(operation, Put) and len(operation.value) > MAX_VALUE_BYTES:
                size = len(operation.value)
                raise InvalidInput("value", f"of {operation.key} has {size} bytes, the limit is {MAX_VALUE_BYTES}")
        return await self._commit(Commit(operations, expect))

    async def put(self, key: str, value: bytes) -> int:
        return await self.commit(Put(key, value))

    async def delete(self, key: str) -> int:
        return await self.commit(Delete(key))


def check_key(key: str) -> None:
    """Raise :class:`InvalidInput` unless ``key`` may be one."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidInput("key", f"{key[:80]!r} is not text that UTF-8 can hold") from None
    if not 1 <= size <= MAX_KEY_BYTES:
        raise InvalidInput("key", f"{key[:80]!r} has {size} bytes, a key has 1 to {MAX_KEY_BYTES}")
    if "\0" in key:
        raise InvalidInput("key", f"{key[:80]!r} contains a NUL character")
