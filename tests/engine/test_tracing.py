"""What a session may ask of its tracing, and what becomes of a trace for which there is no room."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from engine_facts import VERSE, containers_of
from make_image import make_image, remove_image
from processes import Fleet
from sessions import content, events_of, finished, running

from bedrock.client import ApiError, Client, open_client
from bedrock.model import LogsState, Reason, Session, Status, TraceState
from bedrock.trace.summary import TraceSummary, summarise
from bedrock.volume import MANIFEST, NESTED_OUTPUT, STDOUT, TRACE_FILE

_COPY = ["dd", "if=/srv/big.bin", "of=/tmp/copy", "bs=1k"]


async def run(client: Client, image: str, command: list[str], trace: str | Mapping[str, Any] | None = None) -> Session:
    return await finished(client, await client.create(image, command, ttl="60s", trace=trace))


async def summary_of(client: Client, session: Session, directory: Path) -> TraceSummary:
    path = directory / f"{session.id}.bdt"
    await client.download(session.id, TRACE_FILE, path)
    return summarise(path)


async def test_counting_in_the_kernel_gives_the_sums_of_the_single_calls(
    client: Client, image: str, tmp_path: Path
) -> None:
    single = await summary_of(client, await run(client, image, _COPY), tmp_path)
    session = await run(client, image, _COPY, "summary")
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE
    assert session.trace.events < 200
    counted = await summary_of(client, session, tmp_path)
    assert (single.mode, counted.mode) == ("events", "summary")

    def files(summary: TraceSummary) -> dict[str, tuple[int, ...]]:
        wanted = ("/srv/big.bin", "/tmp/copy", "/bin/busybox")
        return {
            use.path: (use.opens, use.reads, use.read_bytes, use.writes, use.written_bytes, use.maps)
            for use in summary.files
            if use.path in wanted
        }

    assert files(counted) == files(single)
    assert files(counted)["/srv/big.bin"][1:3] == (1025, 1 << 20)

    def ops(summary: TraceSummary) -> dict[str, tuple[int, int]]:
        moving = {"fault", "page_in"}  # how many pages are mapped along with one that faults depends on the page cache
        return {op.op: (op.calls, op.errors) for op in summary.ops if op.op not in moving}

    assert ops(counted) == ops(single)
    assert all(sum(op.latency) == op.calls for op in counted.ops)
    assert [process.argv for process in counted.processes] == [_COPY]
    assert sum(process.read_bytes for process in counted.processes) == sum(use.read_bytes for use in counted.files)


async def test_without_tracing_a_session_runs_all_the_same(client: Client, image: str) -> None:
    session = await run(client, image, ["sh", "-c", "cat /srv/verse.txt; exit 3"], "off")
    assert (session.status, session.reason, session.exit_code) == (Status.FAILED, Reason.EXIT, 3)
    assert session.trace is not None
    assert (session.trace.state, session.logs.state) == (TraceState.UNTRACED, LogsState.COMPLETE)
    assert "turned off" in session.trace.message
    assert session.started_at is not None
    assert await content(client, session, STDOUT) == VERSE
    assert TRACE_FILE not in {item.filename for item in await client.files(session.id)}
    session = await run(client, image, ["no-such-program"], "off")
    assert (session.status, session.reason) == (Status.FAILED, Reason.CREATE_ERROR)
    session = await running(client, await client.create(image, ["sleep", "60"], ttl="2s", trace="off"))
    session = await finished(client, session)
    assert session.reason is Reason.TTL
    assert containers_of("alpha") == []


async def test_only_the_files_that_were_asked_for_are_traced(client: Client, image: str, tmp_path: Path) -> None:
    script = "cat /srv/verse.txt /etc/passwd; echo 1 >/tmp/x; mkdir /tmp/srv; echo 2 >/tmp/srv/verse.txt; cat /srv/no"
    session = await run(client, image, ["sh", "-c", script], {"paths": ["/srv", "/tmp/x"]})
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE
    assert "not asked for" in session.trace.message
    assert session.tracing.paths == ["/srv", "/tmp/x"]
    events = await events_of(client, session, tmp_path)
    with_file = {event.path for event in events if event.inode is not None}
    assert with_file == {"/srv/verse.txt", "/tmp/x"}
    # A path that leads to no file may lead anywhere, so it is kept; so is the tree of processes.
    assert any(event.path == "/srv/no" and event.error == "ENOENT" for event in events)
    assert next(event.raw for event in events if event.op == "execve") == "/bin/sh"


async def test_only_the_events_that_were_asked_for_are_traced(client: Client, image: str, tmp_path: Path) -> None:
    session = await run(client, image, ["cat", "/srv/verse.txt"], {"classes": ["data", "stat"]})
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE
    ops = Counter(event.op for event in await events_of(client, session, tmp_path))
    assert set(ops) <= {
        "execve",
        "fork",
        "exit",
        "read",
        "sendfile",
        "write",
        "readlink",
        "readlinkat",
        "newfstatat",
        "fstat",
        "stat",
    }
    assert ops["execve"] == 1
    assert ops["read"] + ops["sendfile"] >= 2


async def test_a_trace_that_reaches_its_size_says_so_and_its_counts_add_up(client: Client, image: str) -> None:
    command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=300000"]
    session = await run(client, image, command, {"max_size": "64KiB"})
    assert session.exit_code == 0
    assert session.trace is not None
    assert session.trace.state is TraceState.LOSSY
    assert "upper size" in session.trace.message
    report = json.loads(await content(client, session, "tracer.json"))
    assert report["lost"].keys() == {"size_limit"}
    assert report["written"] + report["lost"]["size_limit"] == report["seen"]


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        ("everything", "events, summary, off"),
        ({"mode": 3}, "Expected"),
        ({"classes": ["reads"]}, "open, data, seek"),
        ({"paths": ["srv"]}, "not absolute"),
        ({"paths": [f"/{number}" for number in range(9)]}, "limit is 8"),
        ({"max_size": "a lot"}, "not a size"),
        ({"max_size": -1}, "is not from 0"),
        ({"colour": "red"}, "unknown field"),
    ],
)
async def test_a_bad_wish_is_refused_with_what_would_be_right(
    client: Client, image: str, trace: Any, message: str
) -> None:
    with pytest.raises(ApiError, match=message):
        await client.create(image, ["true"], ttl="10s", trace=trace)


async def test_captured_and_lost_together_are_the_calls_that_were_made(fleet: Fleet, image: str) -> None:
    command, trace = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=100000"], {"classes": ["data"]}
    seen = {}
    fleet.api().start()
    fleet.filemd().start()
    for ring in ("32MiB", "4KiB"):
        fleet.environment["BEDROCK_DOCKERD_TRACER_RING"] = ring
        dockerd = fleet.dockerd("ring").start()
        async with open_client(fleet.url) as client:
            session = await run(client, image, command, trace)
            report = json.loads(await content(client, session, "tracer.json"))
            assert session.trace is not None
            assert session.trace.state is (TraceState.COMPLETE if ring == "32MiB" else TraceState.LOSSY)
            assert report["written"] + report["lost"].get("ring_full", 0) == report["seen"]
            seen[ring] = report["seen"]
        dockerd.stop()
    assert seen["4KiB"] == seen["32MiB"]


@pytest.fixture
def small_disk(fleet: Fleet) -> Iterator[Path]:
    """The volumes of a fleet are on a disk of 3 MiB."""
    volumes = fleet.data_dir / "volumes"
    volumes.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(volumes)], check=True)
    try:
        yield volumes
    finally:
        subprocess.run(["umount", "-l", str(volumes)], check=True)


async def test_a_full_disk_costs_the_trace_but_neither_the_target_nor_other_sessions(
    small_disk: Path, fleet: Fleet, image: str
) -> None:
    fleet.api().start()
    fleet.dockerd("full").start()
    async with open_client(fleet.url) as client:
        other = await running(client, await client.create(image, ["sleep", "8"], ttl="60s"))
        # Unlike each other, so that they take room.
        command = ["known_io", "7", "150000", "/tmp/truth"]
        session = await client.create(image, ["sh", "-c", f"{' '.join(command)}; exit 4"], ttl="60s")
        with trio.fail_after(60):
            async for state in client.watch(session.id):
                session = state
        assert (session.status, session.exit_code) == (Status.FAILED, 4), session.message
        assert session.trace is not None
        assert session.trace.state is TraceState.LOSSY, session.trace
        assert session.trace.lost["write_error"] > 0
        assert "No space left on device" in session.trace.message
        with trio.fail_after(60):
            async for state in client.watch(other.id):
                other = state
        assert other.exit_code == 0
        fleet.filemd().start()
        session, other = await finished(client, session), await finished(client, other)
        assert (session.logs.state, other.logs.state) == (LogsState.COMPLETE, LogsState.COMPLETE)
        assert MANIFEST in {item.filename for item in await client.files(session.id)}
        # There is room again, and the next one is whole.
        again = await run(client, image, ["true"])
        assert again.trace is not None
        assert again.trace.state is TraceState.COMPLETE
    assert containers_of("full") == []


_FOREIGN = """#!/bin/sh
[ "$1 $3" = "--container -o" ] || exit 9
echo "tracing $2"
mkdir -p "$4/deep/er"
echo "$2" > "$4/deep/er/name.txt"
echo plain > "$4/plain.txt"
trap 'echo end >> "$4/plain.txt"; exit 0' TERM
sleep 1
echo > "$4/ready"
while :; do sleep 0.1; done
"""


@pytest.fixture
def foreign_image() -> Iterator[str]:
    name = "bedrock-test/foreign:1"
    make_image(name, {"bin/bdtrace": _FOREIGN.encode()}, ["ENV PATH=/bin"])
    yield name
    remove_image(name)


async def test_a_tracer_of_another_make_is_run_and_all_its_output_comes_home(
    fleet: Fleet, image: str, foreign_image: str
) -> None:
    fleet.environment["BEDROCK_DOCKERD_BEDROCK_TRACER_IMAGE"] = foreign_image
    fleet.start("other")
    async with open_client(fleet.url) as client:
        session = await run(client, image, ["cat", "/srv/verse.txt"])
        assert (session.status, session.exit_code) == (Status.FINISHED, 0), session.message
        assert await content(client, session, STDOUT) == VERSE
        assert session.trace is not None
        assert session.trace.state is TraceState.PARTIAL
        assert "another make" in session.trace.message
        assert await content(client, session, "plain.txt") == b"plain\nend\n"
        with tarfile.open(fileobj=io.BytesIO(await content(client, session, NESTED_OUTPUT))) as archive:
            member = archive.extractfile("deep/er/name.txt")
            assert member is not None
            assert member.read().decode().strip() == f"bedrock-target-{session.id}"
        failed = await run(client, image, ["no-such-program"])
        assert (failed.status, failed.reason, failed.exit_code) == (Status.FAILED, Reason.CREATE_ERROR, 127)
    assert containers_of("other") == []
