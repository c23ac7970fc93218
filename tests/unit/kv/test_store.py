"""Both drivers of the key-value store against one contract, and against a model."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pysqlite3
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, insert

from bedrock.errors import InvalidInput
from bedrock.kv import Conflict, Delete, KVStore, Put, StoreClosed, StoreError, StoreUnavailable, open_store
from bedrock.kv.interface import Scan
from bedrock.kv.schema import MIGRATIONS, metadata, migrate, read_scan, upper_bound

DRIVERS = ["sqlite", "sqlite+aiosqlite"]


def url(driver: str, directory: Path) -> str:
    return f"{driver}:///{directory}/store.db"


@pytest.fixture(params=DRIVERS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KVStore]:
    async with open_store(url(request.param, tmp_path)) as opened:
        yield opened


async def test_what_is_put_can_be_read_at_its_revision(store: KVStore) -> None:
    assert await store.revision() == 0
    first, second = await store.put("a", b"1"), await store.put("b", b"\x00\xff")
    assert second > first > 0
    assert await store.get("a") == ("a", b"1", first)
    assert await store.get("c") is None
    assert await store.get_many(["c", "b", "a"]) == [None, ("b", b"\x00\xff", second), ("a", b"1", first)]
    assert await store.revision() == second


async def test_a_commit_is_all_or_nothing(store: KVStore) -> None:
    revision = await store.commit(Put("a", b"1"), Put("b", b"1"), expect={"a": 0, "b": 0})
    with pytest.raises(Conflict) as conflict:
        await store.commit(Put("a", b"2"), Delete("b"), Put("c", b"2"), expect={"a": revision, "b": 0})
    assert (conflict.value.key, conflict.value.expected, conflict.value.actual) == ("b", 0, revision)
    assert [entry.value for entry in (await store.scan("")).entries] == [b"1", b"1"]
    assert await store.commit(expect={"a": revision}) == revision
    newer = await store.commit(Put("a", b"3"), Delete("b"), expect={"a": revision})
    assert [(entry.key, entry.revision) for entry in (await store.scan("")).entries] == [("a", newer)]


async def test_a_scan_pages_through_one_prefix_in_both_directions(store: KVStore) -> None:
    keys = ["a", "b/", "b/1", "b/2", "b/\U0001f600", "b/\uffff", "b0", "c"]
    await store.commit(*(Put(key, b"") for key in keys))
    ordered = sorted((key for key in keys if key.startswith("b/")), key=str.encode)
    for reverse in (False, True):
        found, cursor = [], None
        while True:
            page = await store.scan("b/", after=cursor, limit=2, reverse=reverse)
            assert len(page.entries) <= 2
            found += [entry.key for entry in page.entries]
            cursor = page.cursor
            if cursor is None:
                break
        assert found == (ordered[::-1] if reverse else ordered)


@pytest.mark.parametrize("key", ["", "x" * 513, "a\0b", "\ud800"])
async def test_a_bad_key_is_refused_by_name(store: KVStore, key: str) -> None:
    with pytest.raises(InvalidInput, match="key"):
        await store.put(key, b"")


async def test_a_value_that_is_too_large_and_a_key_written_twice_are_refused(store: KVStore) -> None:
    with pytest.raises(InvalidInput, match="value"):
        await store.put("a", bytes((1 << 20) + 1))
    with pytest.raises(InvalidInput, match="once"):
        await store.commit(Put("a", b"1"), Delete("a"))


async def test_concurrent_increments_lose_nothing_and_conflicts_harm_only_their_own(store: KVStore) -> None:
    async def increment() -> None:
        while True:
            entry = await store.get("n")
            value, revision = (int(entry.value), entry.revision) if entry else (0, 0)
            with contextlib.suppress(Conflict):
                await store.commit(Put("n", b"%d" % (value + 1)), expect={"n": revision})
                return

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(increment)
                nursery.start_soon(store.put, f"other/{number}", b"")
    entry = await store.get("n")
    assert entry is not None
    assert entry.value == b"20"
    assert len((await store.scan("other/")).entries) == 20


_KEYS = st.sampled_from(["a", "a/1", "a/2", "b", "b/\u00e9", "b/\U0001f600"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _KEYS, st.binary(max_size=4)),
        st.tuples(st.just("delete"), _KEYS, st.none()),
        st.tuples(st.just("swap"), _KEYS, st.sampled_from(["right", "absent", "wrong"])),
        st.tuples(
            st.just("scan"), st.sampled_from(["", "a", "a/", "b/", "c"]), st.tuples(st.booleans(), st.integers(1, 3))
        ),
    ),
    max_size=25,
)


@pytest.mark.parametrize("driver", DRIVERS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
async def test_a_store_behaves_as_a_sorted_dictionary(
    driver: str, steps: list[tuple[str, str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model: dict[str, tuple[bytes, int]] = {}
    async with open_store(url(driver, tmp_path_factory.mktemp("model"))) as store:
        last = 0
        for kind, key, extra in steps:
            if kind == "put":
                assert isinstance(extra, bytes)
                revision = await store.put(key, extra)
                model[key] = (extra, revision)
            elif kind == "delete":
                revision = await store.delete(key)
                model.pop(key, None)
            elif kind == "swap":
                actual = model[key][1] if key in model else 0
                expected = {"right": actual, "absent": 0, "wrong": actual + 1}[str(extra)]
                if expected != actual:
                    with pytest.raises(Conflict):
                        await store.commit(Put(key, b"swapped"), expect={key: expected})
                    continue
                revision = await store.commit(Put(key, b"swapped"), expect={key: expected})
                model[key] = (b"swapped", revision)
            else:
                reverse, limit = extra  # type: ignore[misc]
                found, cursor = [], None
                while True:
                    page = await store.scan(key, after=cursor, limit=limit, reverse=reverse)
                    found += [(entry.key, (entry.value, entry.revision)) for entry in page.entries]
                    cursor = page.cursor
                    if cursor is None:
                        break
                wanted = sorted(
                    ((name, value) for name, value in model.items() if name.startswith(key)),
                    key=lambda item: item[0].encode(),
                    reverse=reverse,
                )
                assert found == wanted
                continue
            assert revision > last
            last = revision
        assert await store.revision() == last


@pytest.mark.parametrize("reverse", [False, True])
def test_a_page_costs_the_same_wherever_in_the_list_it_lies(reverse: bool) -> None:
    """Counted in steps of SQLite's own machine, which are the same on every machine."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def cost(connection: Connection, after: str | None) -> int:
        nonlocal steps
        steps = 0
        assert len(read_scan(connection, Scan("a/", after, 10, reverse))) == 10
        return steps

    with create_engine("sqlite://", module=pysqlite3).begin() as connection:
        migrate(connection)
        rows = [{"key": f"{prefix}/{number:05}", "value": b"", "revision": 1}
                for prefix in "0ab" for number in range(5_000)]  # fmt: skip
        connection.execute(insert(metadata.tables["entries"]), rows)
        connection.connection.driver_connection.set_progress_handler(step, 1)  # type: ignore[union-attr]
        costs = [cost(connection, after) for after in (None, "a/00020", "a/02500", "a/04980")]
    assert max(costs) < 1.5 * min(costs)


@given(st.text(max_size=5), st.text(max_size=5))
def test_the_upper_bound_is_behind_everything_with_the_prefix_and_nothing_else(prefix: str, rest: str) -> None:
    bound = upper_bound(prefix)
    try:
        whole = (prefix + rest).encode()
    except UnicodeEncodeError:
        return
    if bound is not None:
        assert whole < bound.encode()
        assert not bound.startswith(prefix) or not prefix


@pytest.mark.parametrize("driver", DRIVERS)
async def test_revisions_go_on_after_a_restart_even_when_everything_was_deleted(driver: str, tmp_path: Path) -> None:
    async with open_store(url(driver, tmp_path)) as store:
        await store.put("a", b"")
        last = await store.delete("a")
    async with open_store(url(driver, tmp_path)) as store:
        assert await store.put("b", b"") > last


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_closed_store_leaves_no_thread_and_no_descriptor(driver: str, tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with open_store(url(driver, tmp_path)) as store:
        await store.put("warm", b"")
    before = count()
    for _ in range(5):
        async with open_store(url(driver, tmp_path)) as store:
            await store.put("a", b"")
    assert count() <= before
    with pytest.raises(StoreClosed):
        await store.put("a", b"")
    with pytest.raises(StoreClosed):
        await store.get("a")
    assert not [thread for thread in threading.enumerate() if thread.name == "store writer"]


async def test_a_caller_that_goes_away_does_not_stop_the_others(tmp_path: Path) -> None:
    async with open_store(url("sqlite", tmp_path)) as store:
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(store.put, f"a/{number}", b"")
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await store.put("b", b"")
        assert await store.get("b") is not None


async def test_a_second_process_is_refused_and_told_why(tmp_path: Path) -> None:
    async with open_store(url("sqlite", tmp_path)):
        with pytest.raises(Exception, match="in use by another process"):
            async with open_store(url("sqlite", tmp_path)):
                pass


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_full_disk_is_told_to_the_caller_and_the_store_goes_on(driver: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    try:
        async with open_store(url(driver, disk)) as store:

            async def fill() -> None:
                for number in range(100):
                    await store.put(f"a/{number}", os.urandom(50_000))

            with pytest.raises(StoreUnavailable, match="full"):
                await fill()
            ballast.unlink()
            await store.put("after", b"")
            assert await store.get("after") is not None
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(StoreError, match="no database"):
        async with open_store(url("sqlite", tmp_path)):
            pass


@pytest.mark.parametrize("bad", ["", "mysql://x/y", "sqlite://", "sqlite:///relative.db", "sqlite:///:memory:"])
async def test_a_bad_url_names_the_setting(bad: str) -> None:
    with pytest.raises(InvalidInput, match="store_url"):
        async with open_store(bad):
            pass


async def test_a_store_of_a_later_version_is_refused_and_an_older_one_is_brought_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(url("sqlite", tmp_path)) as store:
        await store.put("a", b"1")

    def second_version(connection: object) -> None:
        connection.exec_driver_sql("ALTER TABLE entries ADD COLUMN note TEXT")  # type: ignore[attr-defined]

    monkeypatch.setattr("bedrock.kv.schema.migrate.__defaults__", ((*MIGRATIONS, second_version),))
    async with open_store(url("sqlite", tmp_path)) as store:
        assert await store.get("a") == ("a", b"1", 1)
    columns = sqlite3.connect(tmp_path / "store.db").execute("PRAGMA table_info(entries)").fetchall()
    assert [column[1] for column in columns] == ["key", "value", "revision", "note"]
    monkeypatch.undo()
    with pytest.raises(StoreError, match="newer Bedrock"):
        async with open_store(url("sqlite", tmp_path)):
            pass
    assert {table.name for table in metadata.sorted_tables} == {"entries", "counters"}


_WRITER = """
import sys, trio
from bedrock.kv import open_store
async def main():
    async with open_store(sys.argv[1]) as store:
        async with trio.open_nursery() as nursery:
            async def write(task):
                for number in range(10**6):
                    await store.put(f"{task}/{number:07}", b"x" * 100)
                    print(f"{task}/{number:07}", flush=True)
            for task in range(8):
                nursery.start_soon(write, task)
trio.run(main)
"""


@pytest.mark.parametrize("driver", DRIVERS)
async def test_what_was_acknowledged_is_there_after_sigkill(driver: str, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _WRITER, url(driver, tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline() for _ in range(300)]
    process.send_signal(signal.SIGKILL)
    acknowledged += process.stdout.readlines()[:-1]  # the last line may be half a line
    process.wait()
    keys = [line.decode().strip() for line in acknowledged]
    async with open_store(url(driver, tmp_path)) as store:
        assert None not in await store.get_many(keys)
