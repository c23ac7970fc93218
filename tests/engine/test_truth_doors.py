"""Calls that make, mark, watch or hand over files by other doors than open and write."""

from __future__ import annotations

from sessions import Traced, of

_IN_MODIFY, _LOCK_EX, _LOCK_UN, _FS_NODUMP = 2, 2, 8, 0x40
_CORE_DUMPED = 0x80


async def test_what_is_made_or_marked_without_being_opened_is_in_the_trace(traced: Traced) -> None:
    events = await traced("/bin/doors")
    assert [(event.raw, event.path, event.error) for event in of(events, "bind")] == [
        ("/tmp/run/absolute", "/tmp/run/absolute", None),
        ("relative", "/tmp/run/relative", None),
        ("unended", "/tmp/run/unended", None),
        ("relative", "/tmp/run/relative", "EADDRINUSE"),
        ("/nowhere/socket", "/nowhere/socket", "ENOENT"),
    ]
    assert [(event.path, event.arg, event.error) for event in of(events, "inotify_add_watch")] == [
        ("/srv", _IN_MODIFY, None),
        ("/tmp/run/nothing", 0x100, "ENOENT"),
    ]
    (marked,) = of(events, "ioctl_setflags")
    assert (marked.path, marked.arg) == ("/dev/shm/flags", _FS_NODUMP)
    assert [(event.path, event.arg) for event in of(events, "flock")] == [
        ("/dev/shm/flags", _LOCK_EX),
        ("/dev/shm/flags", _LOCK_UN),
    ]
    assert len(of(events, "sync")) == 1


async def test_descriptors_that_arrive_in_a_message_have_their_files(traced: Traced) -> None:
    events = await traced("/bin/doors")
    received = of(events, "receive_fd")
    assert [event.path for event in received] == ["/srv/verse.txt", "/srv/big.bin"]
    reads = [(event.fd, event.path, event.requested) for event in of(events, "pread64")]
    assert reads == [(received[0].fd, "/srv/verse.txt", 3), (received[1].fd, "/srv/big.bin", 4)]


async def test_a_core_dump_is_in_the_trace_of_the_process_that_it_is_of(traced: Traced) -> None:
    events = await traced("/bin/doors")
    ended = [event for event in of(events, "exit") if event.pid != 1]
    assert [bool((event.result or 0) & _CORE_DUMPED) for event in ended] == [True]
    assert [event.pid for event in of(events, "core_dump")] == [ended[0].pid]
