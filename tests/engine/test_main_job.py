"""From a request to files that can be read when everything is gone: each way in which a session can end."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
import trio
from engine_facts import VERSE, containers_of, host_tracers_of
from processes import Fleet
from sessions import content, events_of, finished, running

from bedrock.client import ApiError, Client, open_client
from bedrock.model import LogsState, Reason, Status, TraceState
from bedrock.volume import MANIFEST, STDERR, STDOUT, TRACE_FILE


def test_run_prints_both_streams_and_exits_with_the_commands_code(running_fleet: Fleet, image: str) -> None:
    done = running_fleet.command("run", "-q", image, "--", "sh", "-c", "echo hi; echo oops >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"hi\n", b"oops\n")


def test_run_exits_with_124_when_the_ttl_ends_it(running_fleet: Fleet, image: str) -> None:
    done = running_fleet.command("run", "--ttl", "1s", image, "sleep", "60")
    assert done.returncode == 124
    assert b"time to live of 1s is over" in done.stderr


async def test_a_session_that_succeeds_is_finished_and_its_trace_is_complete(client: Client, image: str) -> None:
    session = await client.create(image, ["cat", "/srv/verse.txt"], ttl="30s")
    assert session.status is Status.PENDING
    session = await finished(client, session)
    assert (session.status, session.reason, session.exit_code) == (Status.FINISHED, Reason.EXIT, 0)
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE
    assert session.logs.state is LogsState.COMPLETE
    assert session.created_at < session.started_at <= session.finished_at  # type: ignore[operator]
    assert await content(client, session, STDOUT) == VERSE
    manifest = json.loads(await content(client, session, MANIFEST))
    assert {item["filename"] for item in manifest["files"]} >= {STDOUT, STDERR, TRACE_FILE, "session.json"}
    assert containers_of("alpha") == []


async def test_the_ttl_ends_a_session_and_it_reads_as_finished(client: Client, image: str) -> None:
    session = await client.create(image, "sleep 60", ttl="2s")
    await running(client, session)
    begun = time.monotonic()
    session = await finished(client, session)
    # The ttl and the grace of 2 s each, and room for a slow machine: far from the 60 s of the command.
    assert time.monotonic() - begun < 20
    assert (session.status, session.reason) == (Status.FINISHED, Reason.TTL)
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE
    assert containers_of("alpha") == []


async def test_a_stop_request_ends_a_session_whose_files_are_collected_all_the_same(
    client: Client, image: str, tmp_path: Path
) -> None:
    session = await client.create(image, ["sh", "-c", "cat /srv/verse.txt; sleep 60"], ttl="5m")
    await running(client, session)
    assert (await client.stop(session.id)).status is Status.STOPPED
    session = await finished(client, session)
    assert (session.status, session.reason) == (Status.STOPPED, Reason.STOP_REQUEST)
    assert await content(client, session, STDOUT) == VERSE
    assert any(event.path == "/srv/verse.txt" for event in await events_of(client, session, tmp_path))
    assert containers_of("alpha") == []
    with pytest.raises(ApiError, match="an ended session never changes"):
        await client.stop(session.id)


async def test_a_program_that_handles_sigterm_ends_within_the_grace(client: Client, image: str) -> None:
    command = ["sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"]
    session = await client.create(image, command, ttl="5m")
    await running(client, session)
    await trio.sleep(0.5)  # the shell must have set its trap; nothing outside shows when it has
    await client.stop(session.id)
    session = await finished(client, session)
    assert session.exit_code == 3
    assert await content(client, session, STDOUT) == b"up\nbye\n"


async def test_an_unknown_image_fails_with_its_reason(client: Client) -> None:
    session = await finished(client, await client.create("bedrock-test/no-such-image:1", "true", ttl="30s"))
    assert (session.status, session.reason) == (Status.FAILED, Reason.IMAGE_NOT_FOUND)
    assert "bedrock-test/no-such-image:1" in session.message
    assert session.trace is not None
    assert session.trace.state is TraceState.UNTRACED


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        (["no-such-program"], 127, 'exec: "no-such-program": executable file not found in $PATH'),
        (["/srv/nothing"], 127, 'exec: "/srv/nothing": no such file or directory'),
        (["/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
        (["/srv/not-a-program"], 126, 'exec: "/srv/not-a-program": exec format error'),
        (["/srv"], 126, 'exec: "/srv": is a directory'),
    ],
)
async def test_a_bad_command_fails_and_says_what_is_wrong(
    client: Client, image: str, command: list[str], code: int, sentence: str
) -> None:
    session = await finished(client, await client.create(image, command, ttl="30s"))
    assert (session.status, session.reason, session.exit_code) == (Status.FAILED, Reason.CREATE_ERROR, code)
    assert session.message == sentence


async def test_a_non_zero_exit_is_a_failure_with_its_code(client: Client, image: str) -> None:
    session = await finished(client, await client.create(image, ["sh", "-c", "exit 41"], ttl="30s"))
    assert (session.status, session.reason, session.exit_code) == (Status.FAILED, Reason.EXIT, 41)


async def test_a_death_by_signal_names_the_signal(client: Client, image: str) -> None:
    session = await finished(client, await client.create(image, ["sh", "-c", "kill -SEGV $$"], init=True, ttl="30s"))
    assert session.exit_code == 139
    assert "SIGSEGV" in session.message


async def test_an_empty_command_means_the_images_own_and_the_entrypoint_stays(
    client: Client, image: str, scratch_image: str
) -> None:
    session = await finished(client, await client.create(image, ttl="30s"))
    assert (session.status, session.exit_code) == (Status.FINISHED, 0)  # a shell whose input is empty
    session = await finished(client, await client.create(scratch_image, ["7", "5"], ttl="30s"))
    # There is no /tmp in the image but the one that the maker puts there, and the program writes its truth to stdout.
    assert session.exit_code == 0
    assert len((await content(client, session, STDOUT)).splitlines()) == 15


async def test_fifty_times_the_first_exec_the_open_and_the_read_are_there_and_nothing_foreign(
    client: Client, image: str, tmp_path: Path
) -> None:
    noise = await client.create(image, ["sh", "-c", "while :; do cat /etc/passwd >/dev/null; done"], ttl="10m")
    await running(client, noise)
    limiter = trio.CapacityLimiter(4)

    async def one() -> None:
        async with limiter:
            session = await finished(client, await client.create(image, ["cat", "/srv/verse.txt"], ttl="60s"))
            assert session.trace is not None
            assert session.trace.state is TraceState.COMPLETE, session.trace
            events = await events_of(client, session, tmp_path)
        assert events[0].op == "execve"
        assert events[0].argv == ["cat", "/srv/verse.txt"]
        opened = [event for event in events if event.op in {"open", "openat"} and event.raw == "/srv/verse.txt"]
        assert [event.path for event in opened] == ["/srv/verse.txt"]
        reads = [event for event in events if event.path == "/srv/verse.txt" and event.op in {"read", "sendfile"}]
        assert [(event.offset, event.result) for event in reads] == [(0, len(VERSE)), (len(VERSE), 0)]
        assert not [event for event in events if event.path == "/etc/passwd"]

    with trio.fail_after(110):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one)
    await client.stop(noise.id)
    await finished(client, noise)


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_trace_of_known_io_equals_what_the_program_did(
    client: Client, image: str, tmp_path: Path, seed: int
) -> None:
    session = await finished(client, await client.create(image, ["known_io", str(seed), "600"], ttl="60s"))
    assert session.exit_code == 0
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE
    truth = sorted((await content(client, session, STDOUT)).decode().splitlines())
    kinds = {line.split()[1] for line in truth}
    assert kinds == {"read", "pread64", "readv", "preadv", "write", "pwrite64", "writev", "pwritev", "mmap"}
    traced = [
        f"{event.path} {event.op} {event.offset} {event.requested if event.op == 'mmap' else event.result}"
        for event in await events_of(client, session, tmp_path)
        if event.op in kinds and event.path in {"/tmp/a", "/tmp/b", "/tmp/c"}
    ]
    assert sorted(traced) == truth


async def test_a_ring_that_is_too_small_reads_as_lossy_and_the_counts_add_up(fleet: Fleet, image: str) -> None:
    fleet.environment["BEDROCK_DOCKERD_TRACER_RING"] = "4KiB"
    fleet.start("tiny")
    async with open_client(fleet.url) as client:
        command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=100000"]
        session = await finished(client, await client.create(image, command, ttl="60s"))
        assert session.trace is not None
        assert session.trace.state is TraceState.LOSSY
        report = json.loads(await content(client, session, "tracer.json"))
        assert report["written"] + report["lost"]["ring_full"] == report["seen"]
        assert report["seen"] >= 200_000


async def test_a_tracer_that_is_killed_makes_the_session_fail_and_the_trace_partial(client: Client, image: str) -> None:
    session = await client.create(image, ["sh", "-c", "cat /srv/verse.txt; sleep 60"], ttl="5m")
    await running(client, session)
    subprocess.run(["docker", "kill", *host_tracers_of("alpha")], check=True, capture_output=True)
    session = await finished(client, session)
    assert (session.status, session.reason) == (Status.FAILED, Reason.TRACER_ERROR)
    assert session.trace is not None
    assert session.trace.state is TraceState.PARTIAL


async def test_with_an_init_the_command_is_its_child_and_traced_alike(
    client: Client, image: str, tmp_path: Path
) -> None:
    session = await client.create(image, ["cat", "/srv/verse.txt"], ttl="30s", init=True)
    session = await finished(client, session)
    assert session.exit_code == 0
    events = await events_of(client, session, tmp_path)
    assert events[0].op == "execve"
    assert events[0].pid != 1


async def test_a_user_without_rights_in_a_directory_of_its_own_is_traced_alike(
    client: Client, nobodys_image: str, tmp_path: Path
) -> None:
    session = await finished(client, await client.create(nobodys_image, ["cat", "verse.txt"], ttl="30s"))
    assert session.exit_code == 0, session.message
    assert await content(client, session, STDOUT) == VERSE
    events = await events_of(client, session, tmp_path)
    # The search along PATH is the gate's, as it would have been the runtime's: the trace begins with the exec itself.
    assert (events[0].op, events[0].raw, events[0].result) == ("execve", "/bin/cat", 0)
    assert [event.path for event in events if event.raw == "verse.txt"] == ["/srv/verse.txt"]


async def test_more_sessions_than_slots_take_turns_and_all_end(client: Client, image: str) -> None:
    sessions = [await client.create(image, ["sh", "-c", f"exit {number}"], ttl="60s") for number in range(24)]
    used = []
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:

            async def watch_slots() -> None:
                while True:
                    used.append((await client.nodes())[0].used)
                    await trio.sleep(0.05)

            nursery.start_soon(watch_slots)
            ended = [await finished(client, session) for session in sessions]
            nursery.cancel_scope.cancel()
    assert [session.exit_code for session in ended] == list(range(24))
    assert {session.trace.state for session in ended if session.trace} == {TraceState.COMPLETE}
    assert max(used) == 8
    assert containers_of("alpha") == []


async def test_the_trace_table_lists_bytes_and_calls(running_fleet: Fleet, client: Client, image: str) -> None:
    session = await finished(client, await client.create(image, ["cat", "/srv/verse.txt", "/srv/nothing"], ttl="30s"))
    table = running_fleet.command("trace", session.id).stdout.decode()
    row = next(line for line in table.splitlines() if line.startswith("/srv/verse.txt"))
    assert re.split(r"\s+", row)[1:5] == ["1", "2", str(len(VERSE)), "B"]
    assert "could not be opened: /srv/nothing (ENOENT, 1 times)" in table
    lines = running_fleet.command("trace", session.id, "--events").stdout.decode().splitlines()
    assert any("openat /srv/verse.txt" in line for line in lines)
