"""The tables, how they came to be, and the statements on them. Both drivers run what is here.

Everything takes a synchronous SQLAlchemy connection with a transaction open: the asyncio driver brings one along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    inspect,
    select,
    true,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from bedrock.kv.interface import Commit, Conflict, Delete, Entry, Put, Scan, StoreError

metadata = MetaData()

# SQLite compares text by the bytes of its encoding, which is UTF-8: the order that the interface promises.
entries = Table(
    "entries",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("revision", Integer, nullable=False),
    sqlite_with_rowid=False,
)
counters = Table(
    "counters",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", Integer, nullable=False),
    sqlite_with_rowid=False,
)

_VERSION = "schema_version"
_REVISION = "revision"

_put = insert(entries)
_put = _put.on_conflict_do_update(
    index_elements=[entries.c.key], set_={"value": _put.excluded.value, "revision": _put.excluded.revision}
)


def _create_tables(connection: Connection) -> None:
    metadata.create_all(connection)
    connection.execute(insert(counters).values(name=_REVISION, value=0))


# Each entry brings a store from the version of its index to the next one; what has been released never changes.
MIGRATIONS: Sequence[Callable[[Connection], None]] = (_create_tables,)


def migrate(connection: Connection, migrations: Sequence[Callable[[Connection], None]] = MIGRATIONS) -> None:
    """Bring the store to the newest version. A store of a later version than ours is refused, not guessed at."""
    version = 0
    if inspect(connection).has_table(counters.name):
        version = _counter(connection, _VERSION)
    if version > len(migrations):
        raise StoreError(
            f"the store has schema version {version}, this Bedrock knows up to {len(migrations)}; use a newer Bedrock"
        )
    for step in migrations[version:]:
        step(connection)
    write = insert(counters).values(name=_VERSION, value=len(migrations))
    connection.execute(write.on_conflict_do_update(index_elements=[counters.c.name], set_={"value": len(migrations)}))


def _counter(connection: Connection, name: str) -> int:
    return connection.scalar(select(counters.c.value).where(counters.c.name == name)) or 0


def read_revision(connection: Connection) -> int:
    return _counter(connection, _REVISION)


def write_revision(connection: Connection, revision: int) -> None:
    connection.execute(update(counters).where(counters.c.name == _REVISION).values(value=revision))


def read_many(connection: Connection, keys: Sequence[str]) -> list[Entry | None]:
    found: dict[str, Entry] = {}
    for start in range(0, len(keys), 500):  # SQLite limits the parameters of one statement
        rows = connection.execute(select(entries).where(entries.c.key.in_(keys[start : start + 500])))
        found.update({row.key: Entry(row.key, row.value, row.revision) for row in rows})
    return [found.get(key) for key in keys]


def read_scan(connection: Connection, scan: Scan) -> list[Entry]:
    key, after, bound = entries.c.key, scan.after, upper_bound(scan.prefix)
    lower, upper = key >= scan.prefix, true() if bound is None else key < bound
    # One bound at each end: given two, SQLite begins at one of them and walks to the other.
    if after is not None and scan.reverse and (bound is None or after < bound):
        upper = key < after
    elif after is not None and not scan.reverse and after >= scan.prefix:
        lower = key > after
    query = select(entries).where(lower, upper).order_by(key.desc() if scan.reverse else key).limit(scan.limit)
    return [Entry(*row) for row in connection.execute(query)]


def apply_commit(connection: Connection, commit: Commit, revision: int) -> None:
    """Check what the commit expects, then write it at ``revision``. Raises :class:`Conflict` before any write."""
    if commit.expect:
        keys = list(commit.expect)
        for key, entry in zip(keys, read_many(connection, keys), strict=True):
            actual = entry.revision if entry is not None else 0
            if actual != commit.expect[key]:
                raise Conflict(key, commit.expect[key], actual)
    puts = [
        {"key": operation.key, "value": operation.value, "revision": revision}
        for operation in commit.operations
        if isinstance(operation, Put)
    ]
    if puts:
        connection.execute(_put, puts)
    gone = [operation.key for operation in commit.operations if isinstance(operation, Delete)]
    if gone:
        connection.execute(delete(entries).where(entries.c.key.in_(gone)))


def upper_bound(prefix: str) -> str | None:
    """The smallest text behind everything that begins with ``prefix``; None when there is no such bound."""
    text = prefix
    while text:
        last = ord(text[-1])
        if last < 0x10FFFF:
            # The surrogates, which UTF-8 has no bytes for, are stepped over.
            following = 0xE000 if last == 0xD7FF else last + 1
            return text[:-1] + chr(following)
        text = text[:-1]
    return None
