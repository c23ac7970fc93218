"""FileMD and the API as real processes, with volumes that the test makes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import pytest
import trio
from processes import Fleet

from bedrock.client import Client, open_client
from bedrock.model import LogsState, SessionId, StoredFile, new_session_id
from bedrock.volume import LOCK, MANIFEST, Manifest, describe_file

_MIB = 1 << 20


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def make_volume(fleet: Fleet, session_id: SessionId, sizes: dict[str, int], *, locked: bool = False) -> Path:
    path = fleet.data_dir / "volumes" / session_id
    path.mkdir(parents=True)
    if locked:
        (path / LOCK).write_text("alpha")
    (path / ".order.json").write_text("{}")
    for name, size in sizes.items():
        with (path / name).open("wb") as file:
            for _ in range(size // _MIB):
                file.write(os.urandom(_MIB))
            file.write(os.urandom(size % _MIB))
    files = [describe_file(path / name) for name in sorted(sizes)]
    (path / MANIFEST).write_bytes(msgspec.json.encode(Manifest(session_id=session_id, files=files)))
    return path


async def wait_home(client: Client, session_id: str) -> None:
    with trio.fail_after(100):
        while True:
            found = await client.get(session_id)
            if found.session.logs.state is LogsState.COMPLETE:
                return
            await trio.sleep(0.05)


async def wait_gone(path: Path) -> None:
    with trio.fail_after(20):
        while path.exists():
            await trio.sleep(0.02)


async def test_200_mb_go_up_and_down_in_constant_memory(fleet: Fleet) -> None:
    with fleet:
        api, filemd = fleet.api().start(), fleet.filemd().start()
        async with open_client(fleet.url) as client:
            # Whatever a process needs once, it has needed after a first small volume.
            for sizes in ({"stdout.log": 3 * _MIB}, {"stdout.log": 120 * _MIB, "trace.bdt": 80 * _MIB}):
                session = await client.create("busybox", "true", ttl="1s")
                path = make_volume(fleet, session.id, sizes)
                wanted = {item.filename: item for item in map(describe_file, path.glob("*.*")) if item.size > 1000}
                before = [(process, process.peak_rss_bytes()) for process in (api, filemd)]
                await wait_home(client, session.id)
                await wait_gone(path)
                for item in wanted.values():
                    digest = hashlib.sha256()
                    async with client.open_file(session.id, item.filename) as chunks:
                        async for chunk in chunks:
                            digest.update(chunk)
                    assert digest.hexdigest() == item.sha256
                total = 0
                async with client._http.stream("GET", f"/api/sessions/{session.id}/logs") as answer:
                    async for chunk in answer.aiter_bytes():
                        total += len(chunk)
                assert total > sum(sizes.values()) * 4 / 3
            for process, peak in before:
                grown = process.peak_rss_bytes() - peak
                assert grown <= 64 * _MIB, f"{process.module} grew by {grown / _MIB:.0f} MiB"


async def test_a_locked_volume_is_left_alone_until_it_is_unlocked(fleet: Fleet) -> None:
    with fleet:
        fleet.api().start()
        fleet.filemd().start()
        async with open_client(fleet.url) as client:
            session, other = [await client.create("busybox", "true", ttl="1s") for _ in range(2)]
            locked = make_volume(fleet, session.id, {"a.log": 10}, locked=True)
            make_volume(fleet, other.id, {"a.log": 10})
            await wait_home(client, other.id)
            assert await client.files(session.id) == []
            (locked / LOCK).unlink()
            # The kernel tells; the rescan of every ten seconds would be later than this.
            with trio.fail_after(5):
                await wait_home(client, session.id)
            await wait_gone(locked)


async def test_what_the_api_does_not_know_is_kept_aside(fleet: Fleet) -> None:
    with fleet:
        fleet.api().start()
        fleet.filemd().start()
        unknown = new_session_id()
        path = make_volume(fleet, unknown, {"a.log": 10})
        await wait_gone(path)
        assert (fleet.data_dir / "unclaimed" / unknown / "a.log").stat().st_size == 10


async def test_a_volume_waits_for_an_api_that_is_away_and_nothing_is_sent_twice(fleet: Fleet) -> None:
    with fleet:
        api = fleet.api().start()
        async with open_client(fleet.url) as client:
            session = await client.create("busybox", "true", ttl="1s")
            path = make_volume(fleet, session.id, {"a.log": 10, "b.log": 20})
            await client.upload(session.id, path / "a.log")
            api.kill()
            filemd = fleet.filemd().start()
            with trio.fail_after(20):
                while not [event for event in filemd.events() if "tried again" in str(event["event"])]:
                    await trio.sleep(0.05)
            assert path.exists()
            api.start()
            await wait_home(client, session.id)
            uploads = [event["file"] for event in api.events() if event["event"] == "file stored"]
            assert uploads == ["a.log", "b.log", MANIFEST]


async def test_a_file_that_is_not_as_the_manifest_has_it_is_not_deleted(fleet: Fleet) -> None:
    with fleet:
        fleet.api().start()
        async with open_client(fleet.url) as client:
            session = await client.create("busybox", "true", ttl="1s")
            path = make_volume(fleet, session.id, {"a.log": 10})
            wrong = Manifest(session_id=session.id, files=[StoredFile(filename="a.log", size=10, sha256="0" * 64)])
            (path / MANIFEST).write_bytes(msgspec.json.encode(wrong))
            filemd = fleet.filemd().start()
            with trio.fail_after(20):
                while not [event for event in filemd.events() if "arrived as" in str(event.get("error"))]:
                    await trio.sleep(0.05)
            assert (path / "a.log").exists()
