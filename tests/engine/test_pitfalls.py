"""What tracers get wrong, one test each. Every one of these sessions must be whole besides."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import docker
import pytest
import trio
from engine_facts import host_tracers_of
from sessions import PAGE, Traced, events_of, finished, of, running

from bedrock.client import Client
from bedrock.model import TraceState
from bedrock.trace.decode import Trace
from bedrock.trace.summary import summarise


async def test_a_target_that_lives_for_a_millisecond_is_seen_from_its_first_exec_to_its_exit(traced: Traced) -> None:
    events = await traced("true")
    assert (events[0].op, events[0].path, events[0].argv) == ("execve", "/bin/busybox", ["true"])
    assert events[-1].op == "exit"


async def test_a_chain_of_programs_that_change_their_user_is_followed(traced: Traced) -> None:
    events = await traced("/bin/pitfalls", "chain", "6")
    assert [event.argv for event in of(events, "execve")] == [
        ["/bin/pitfalls", "chain", str(left)] for left in (6, 5, 4, 3, 2, 1, 0)
    ]
    assert {(event.pid, event.error) for event in of(events, "execve")} == {(1, None)}


async def test_a_storm_of_forks_loses_no_child(traced: Traced) -> None:
    events = await traced("/bin/pitfalls", "storm", "500")
    assert len(of(events, "fork")) == 500
    opened = of(events, "openat", path="/etc/passwd")
    assert len({event.pid for event in opened}) == len(opened) == 500
    assert len(of(events, "read", path="/etc/passwd")) == 500
    ends = Counter(event.result for event in of(events, "exit") if event.pid != 1)
    assert ends == Counter((number % 7) << 8 for number in range(500))


async def test_descriptors_that_were_open_before_the_first_instruction_have_their_file(traced: Traced) -> None:
    events = await traced("sh", "-c", "cat; echo out; echo err >&2")
    assert {event.path for event in of(events, "read", "sendfile") if event.fd == 0} == {"/dev/null"}
    # The shell points descriptor 1 elsewhere for a command; the two pipes are those of the engine.
    pipes = [event.path or "" for event in of(events, "write")]
    assert len(set(pipes)) == 2
    assert all(path.startswith("pipe:") for path in pipes)


async def test_a_position_that_two_processes_share_gives_true_offsets_or_says_so(traced: Traced) -> None:
    events = of(await traced("/bin/pitfalls", "share", "2000"), "write", path="/tmp/shared")
    assert len(events) == 4000
    # Whoever was alone in its call has the true offset, and no two have the same one.
    certain = [event.offset for event in events if not event.offset_shared]
    assert len(certain) == len(set(certain))
    assert set(certain) <= set(range(0, 400_000, 100))
    assert all(0 <= (event.offset or 0) <= 399_900 for event in events)
    assert len(certain) > 400


async def test_appending_gives_offsets_that_fill_the_file(traced: Traced) -> None:
    events = of(await traced("/bin/pitfalls", "append", "100"), "write", path="/tmp/appended")
    assert sorted(event.offset or 0 for event in events if not event.offset_shared) == list(range(0, 20_000, 100))


async def test_a_file_that_is_only_mapped_shows_which_pages_were_touched(traced: Traced) -> None:
    events = await traced("/bin/pitfalls", "map", "/srv/big.bin")
    assert of(events, "read", path="/srv/big.bin") == []
    assert {event.offset for event in of(events, "fault", path="/srv/big.bin")} == {n * PAGE for n in (0, 64, 128, 192)}
    assert [event.requested for event in of(events, "munmap", "msync", path="/srv/big.bin")] == [256 * PAGE] * 2
    (written,) = of(events, "fault", path="/tmp/mapped")
    assert (written.offset, written.for_write) == (32 * PAGE, True)


async def test_what_is_mapped_where_something_else_was_is_not_taken_for_that(traced: Traced) -> None:
    events = await traced("/bin/pitfalls", "remap", "/srv/big.bin", "/srv/verse.txt")
    touched = [(event.path, event.offset) for event in of(events, "fault") if (event.path or "").startswith("/srv")]
    assert touched == [
        place for page in range(3) for place in (("/srv/big.bin", page * PAGE), ("/srv/verse.txt", 0))
    ]  # fmt: skip


async def test_faults_are_told_exactly_among_thousands_of_mappings_that_change_all_the_time(traced: Traced) -> None:
    events = await traced("/bin/pitfalls", "patchwork", "/srv/big.bin")
    touched = Counter(event.offset for event in of(events, "fault", path="/srv/big.bin"))
    assert touched == Counter(n * 7 % 256 * PAGE for n in range(3000))


async def test_bytes_that_never_pass_through_the_process_are_told_on_both_sides(traced: Traced) -> None:
    events = await traced("/bin/pitfalls", "moves", "/srv/big.bin")
    moves = [(e.op, e.path, e.offset, e.result, e.to_file) for e in events if e.op in {"sendfile", "copy_file_range"}]
    assert moves == [
        ("sendfile", "/srv/big.bin", 100, 50, False),
        ("sendfile", "/tmp/moved", 0, 50, True),
        ("sendfile", "/srv/big.bin", 0, 60, False),
        ("sendfile", "/tmp/moved", 50, 60, True),
        ("copy_file_range", "/srv/big.bin", 1000, 70, False),
        ("copy_file_range", "/tmp/moved", 5000, 70, True),
    ]
    spliced = [(e.offset, e.result, e.to_file) for e in of(events, "splice") if not (e.path or "").startswith("pipe:")]
    assert spliced == [(2000, 80, False), (9000, 80, True)]


async def test_a_file_keeps_its_identity_and_has_its_new_name_when_it_is_renamed_while_open(traced: Traced) -> None:
    events = of(await traced("/bin/pitfalls", "rename"), "write", "pwrite64")
    first, *_, last = events
    assert [(event.result, event.path) for event in events] == [
        (11, "/tmp/before"),
        (12, "/tmp/after"),
        (13, "/tmp/after"),
        (14, "/tmp/before"),
    ]
    assert {(event.inode, event.file) for event in events[:3]} == {(first.inode, first.file)}
    assert last.file != first.file
    # The last one is another file of the old name; a number that has become free may be used for it.
    assert last.device == first.device


async def test_a_number_that_is_given_to_the_next_file_does_not_make_them_one(
    client: Client, image: str, tmp_path: Path
) -> None:
    expected = {f"/tmp/reused-{n}": (1, 1, 100 + n) for n in range(5)}
    for mode in ("events", "summary"):
        session = await finished(client, await client.create(image, ["pitfalls", "reuse"], ttl="30s", trace=mode))
        assert session.exit_code == 0
        events = await events_of(client, session, tmp_path)
        used = [use for use in summarise(tmp_path / f"{session.id}.bdt").files if use.path.startswith("/tmp/reused")]
        assert {use.path: (use.opens, use.writes, use.written_bytes) for use in used} == expected
        assert all(use.aliases == [] for use in used)
        if mode == "events":
            # Some numbers were used again, or else this proves nothing.
            assert len({use.inode for use in used}) < len(used)
            written = [(event.path, event.result) for event in of(events, "write")]
            assert written == [(f"/tmp/reused-{n}", 100 + n) for n in range(5)]
    # Also where the calls that open them are not asked for.
    only = {"classes": ["data"]}
    session = await finished(client, await client.create(image, ["pitfalls", "reuse"], ttl="30s", trace=only))
    written = [(event.path, event.result) for event in of(await events_of(client, session, tmp_path), "write")]
    assert written == [(f"/tmp/reused-{n}", 100 + n) for n in range(5)]


async def test_directories_that_are_renamed_or_made_anew_have_their_new_paths(
    client: Client, image: str, tmp_path: Path
) -> None:
    # Also where the calls that did it are not asked for.
    for trace in ("events", {"classes": ["stat"]}):
        session = await finished(client, await client.create(image, ["pitfalls", "reuse"], ttl="30s", trace=trace))
        assert session.exit_code == 0
        events = await events_of(client, session, tmp_path)
        failed = [event.path for event in events if event.raw == "nothing"]
        assert failed == [f"/tmp/{name}/nothing" for name in ("first", "second", "third")]
        assert bool(of(events, "rename", "renameat")) == (trace == "events")
        changed = [event.path for event in of(events, "chdir")]
        assert changed == ["/tmp/first", "/tmp", "/tmp/third"]


async def test_paths_may_be_longer_than_a_kilobyte_and_need_not_be_text(traced: Traced, tmp_path: Path) -> None:
    events = of(await traced("/bin/pitfalls", "long"), "write")
    deep, odd, many = events
    components = (deep.path or "").split("/")
    assert [len(component) for component in components] == [0, 3, *[200] * 15, 4]
    assert components[-1] == "deep"
    assert odd.path == "/tmp/\\xff\\xfe{\n}"
    assert many.path == "/tmp" + 1000 * "/x" + "/many"


async def test_a_file_that_is_copied_up_when_it_is_written_stays_one_path(traced: Traced) -> None:
    events = of(await traced("/bin/pitfalls", "copyup", "/srv/big.bin"), "pread64", "pwrite64")
    assert [(event.path, event.offset, event.result) for event in events] == [
        ("/srv/big.bin", 0, 10),
        ("/srv/big.bin", 5, 20),
        ("/srv/big.bin", 0, 30),
    ]


async def test_files_of_bind_mounts_and_of_the_kernels_own_file_systems_have_the_containers_path(
    traced: Traced,
) -> None:
    script = "cat /etc/hostname /proc/self/status /sys/kernel/mm/transparent_hugepage/enabled; echo x >/dev/shm/y"
    events = await traced("sh", "-c", script)
    paths = {event.path for event in of(events, "read", "write", "sendfile")}
    assert {"/etc/hostname", "/sys/kernel/mm/transparent_hugepage/enabled", "/dev/shm/y"} <= paths
    assert any((path or "").startswith("/proc/") and (path or "").endswith("/status") for path in paths)


async def test_paths_of_a_process_in_a_jail_are_those_of_the_container(traced: Traced) -> None:
    events = await traced("/bin/pitfalls", "jail", "/srv", "verse.txt")
    assert of(events, "read", path="/srv/verse.txt")
    assert [(event.op, event.path) for event in of(events, "chroot", "chdir")] == [
        ("chroot", "/srv"),
        ("chdir", "/srv"),
    ]
    assert [event.path for event in events if event.error == "ENOENT"][-2:] == ["/srv/nothing/here", "/srv/nor/here"]


async def test_a_program_that_is_run_by_a_second_thread_is_the_same_process(traced: Traced) -> None:
    events = await traced("/bin/pitfalls", "threadexec", "/bin/true")
    assert {event.pid for event in events} == {1}
    assert of(events, "execve")[-1].path == "/bin/busybox"
    assert events[-1].program == "/bin/true"


async def test_an_argument_vector_of_many_kilobytes_is_whole(traced: Traced) -> None:
    events = of(await traced("/bin/pitfalls", "arguments", "6000"), "execve")
    assert events[-1].argv == ["/bin/pitfalls", "none", *["0123456789abcdef"] * 6000]


async def test_only_the_targets_own_processes_are_in_its_trace(traced: Traced) -> None:
    events = await traced("sh", "-c", "cat /srv/verse.txt; true")
    # busybox runs its applets as itself.
    assert {event.program for event in events} <= {"/bin/sh", "/bin/cat", "/bin/true", "/proc/self/exe"}
    assert not any("gate" in (event.path or "") or "trace.bdt" in (event.path or "") for event in events)


async def test_times_are_those_of_the_wall_clock(client: Client, image: str, tmp_path: Path) -> None:
    session = await finished(client, await client.create(image, ["sleep", "0.3"], ttl="30s"))
    events = await events_of(client, session, tmp_path)
    assert session.started_at is not None
    assert session.finished_at is not None
    assert 0.3 <= events[-1].t_ns / 1e9 <= (session.finished_at - session.started_at).total_seconds() + 0.05
    trace = Trace(tmp_path / f"{session.id}.bdt")
    first = next(trace.blocks()).calls["time_ns"][0] + trace.realtime_offset_ns
    assert abs(first / 1e9 - session.started_at.timestamp()) < 0.05


async def test_two_sessions_at_once_never_see_each_others_calls(client: Client, image: str, tmp_path: Path) -> None:
    def command(mark: str) -> list[str]:
        return ["sh", "-c", f"while :; do for i in $(seq 50); do echo {mark} > /tmp/{mark}$i; done; done"]

    sessions = [await client.create(image, command(mark), ttl="60s") for mark in ("left", "right")]
    for session in sessions:
        await running(client, session)
    await trio.sleep(0.5)  # during which both are at work
    for session in sessions:
        await client.stop(session.id)
    seen: dict[str, set[str]] = {}
    for mark, session in zip(("left", "right"), sessions, strict=True):
        ended = await finished(client, session)
        assert ended.trace is not None
        assert ended.trace.state is TraceState.COMPLETE
        events = await events_of(client, ended, tmp_path)
        seen[mark] = {event.path or "" for event in events if (event.path or "").startswith("/tmp/")}
    assert all(path.startswith("/tmp/left") for path in seen["left"])
    assert all(path.startswith("/tmp/right") for path in seen["right"])
    assert (len(seen["left"]), len(seen["right"])) == (50, 50)


# Makes a PID namespace inside the one before, so often, and reads a file as number 1 of the innermost.
_NEST = """
import ctypes, os, sys
for depth in range(int(sys.argv[2])):
    assert ctypes.CDLL(None, use_errno=True).unshare(0x20000000) == 0
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
descriptor = os.open(sys.argv[1], os.O_RDONLY)
os.read(descriptor, 7)
os._exit(0 if os.getpid() == 1 else 9)
"""


@pytest.mark.parametrize("depth", [1, 25])
async def test_a_container_inside_the_container_is_seen_and_a_visitor_is_not(
    client: Client, image: str, tmp_path: Path, depth: int
) -> None:
    session = await running(client, await client.create(image, ["sleep", "60"], ttl="60s"))
    api = docker.from_env()
    try:
        pid = api.containers.get(f"bedrock-target-{session.id}").attrs["State"]["Pid"]
    finally:
        api.close()
    # nsenter itself stays in the host's namespace, only its children live in the target's; the inner one further down.
    enter = [
        "nsenter",
        "-t",
        str(pid),
        "-p",
        "--",
        sys.executable,
        "-S",
        "-c",
        _NEST,
        f"/proc/{pid}/root/srv/verse.txt",
        str(depth),
    ]
    done = await trio.run_process(enter, check=False, capture_stderr=True)
    assert done.returncode == 0, done.stderr
    await client.stop(session.id)
    events = await events_of(client, await finished(client, session), tmp_path)
    (read,) = [event for event in events if event.op == "read" and event.requested == 7]
    # It has a number of the target's own namespace, whatever it calls itself.
    assert (read.result, read.path) == (7, "/srv/verse.txt")
    assert read.pid > 1
    inside = {event.pid for event in events if event.program is None or "nsenter" in event.program}
    assert inside <= set(range(read.pid - depth, read.pid))


async def test_a_tracer_that_outlives_its_target_sees_nothing_of_who_comes_after(
    client: Client, image: str, tmp_path: Path
) -> None:
    session = await running(client, await client.create(image, ["sleep", "1"], ttl="60s"))
    api = docker.from_env()
    tracer = 0
    try:
        tracer = api.containers.get(host_tracers_of("alpha")[0]).attrs["State"]["Pid"]
        os.kill(tracer, signal.SIGSTOP)
        target = api.containers.get(f"bedrock-target-{session.id}")
        await trio.to_thread.run_sync(target.wait)
        # The kernel numbers namespaces with the lowest number that is free: the first of these would get the target's.
        for _ in range(2):
            await trio.to_thread.run_sync(partial(api.containers.run, image, ["cat", "/srv/verse.txt"], remove=True))
    finally:
        if tracer:
            os.kill(tracer, signal.SIGCONT)
        api.close()
    session = await finished(client, session)
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE, session.trace
    events = await events_of(client, session, tmp_path)
    assert [event.op for event in events if event.op in {"execve", "exit"}] == ["execve", "exit"]
    assert events[-1].op == "exit"


async def test_a_tracer_that_is_killed_leaves_a_trace_that_says_so(client: Client, image: str, tmp_path: Path) -> None:
    command = ["sh", "-c", "cat /srv/verse.txt; sleep 3; cat /srv/big.bin >/dev/null; sleep 60"]
    session = await running(client, await client.create(image, command, ttl="60s"))
    await trio.sleep(2.5)  # more than the second after which what was recorded is in the file
    api = docker.from_env()
    try:
        api.containers.get(host_tracers_of("alpha")[0]).kill("SIGKILL")
    finally:
        api.close()
    session = await finished(client, session)
    assert session.trace is not None
    assert session.trace.state is TraceState.PARTIAL
    events = await events_of(client, session, tmp_path)
    assert any(event.path == "/srv/verse.txt" for event in events)
    assert session.trace.events >= len(events) > 0
