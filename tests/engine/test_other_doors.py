"""Calls that come to the kernel by other doors than a 64-bit program's own calls on files with a path."""

from __future__ import annotations

from pathlib import Path

import pytest
from sessions import PAGE, Traced, events_of, finished, of

from bedrock.client import Client
from bedrock.model import TraceState


async def test_requests_to_an_io_uring_are_told_like_calls(traced: Traced) -> None:
    events = await traced("/bin/uring", "/srv/big.bin")
    all_requests = [event for event in events if event.op.startswith("uring_")]
    requests = [(e.op, e.path, e.offset, e.result or e.error) for e in all_requests[:8]]
    opened = requests.pop(0)
    assert opened[:2] == ("uring_open", "/srv/big.bin")
    assert requests == [
        ("uring_read", "/srv/big.bin", 70, 200),
        ("uring_read", "/srv/big.bin", 500, 340),
        ("uring_write", "/tmp/by-ring", 4000, 120),
        ("uring_fsync", "/tmp/by-ring", None, None),
        ("uring_read", "/srv/big.bin", 9, 33),
        ("uring_open", "/srv/nothing", None, "ENOENT"),
        ("uring_close", "/tmp/by-ring", None, None),
    ]
    changes = [(e.op, e.path, e.second or e.offset, e.requested) for e in all_requests[8:]]
    assert changes == [
        ("uring_mkdir", "/tmp/dir", None, None),
        ("uring_link", "/tmp/by-ring", "/tmp/dir/linked", None),
        ("uring_symlink", "/tmp/symbolic", "by-ring", None),
        ("uring_rename", "/tmp/symbolic", "/tmp/dir/renamed", None),
        ("uring_unlink", "/tmp/dir/renamed", None, None),
        ("uring_fallocate", "/tmp/by-ring", 6000, 5000),
        ("uring_truncate", "/tmp/by-ring", None, 777),
        # Into a place of the ring's own table: there is no descriptor.
        ("uring_open", "/srv/big.bin", None, None),
        ("uring_read", "/srv/big.bin", 11, 44),
        ("uring_close", None, None, None),
    ]
    assert [event.fd for event in all_requests[-3:]] == [None, None, None]


# What programs/abi32.c does: call, path, offset, result (None where it is an address or varies), bytes asked for.
_MADE_BIG = 1 << 32
_CALLS_32 = [
    ("open", "/srv/big.bin", None, 3, None),
    ("read", "/srv/big.bin", 0, 100, 100),
    ("pread64", "/srv/big.bin", 300, 200, 200),
    ("pread64", "/srv/big.bin", 5 * _MADE_BIG + 7, 0, 200),
    ("lseek", "/srv/big.bin", -10, 90, None),
    ("readv", "/srv/big.bin", 90, 42, 42),
    ("preadv", "/srv/big.bin", 1000, 42, 42),
    ("openat", "/tmp/abi32", None, 4, None),
    ("ftruncate", "/tmp/abi32", None, 0, _MADE_BIG),
    ("lseek", "/tmp/abi32", _MADE_BIG + 50, _MADE_BIG + 50, None),
    ("pwrite64", "/tmp/abi32", _MADE_BIG + 9, 25, 25),
    ("fallocate", "/tmp/abi32", 4 * PAGE, 0, PAGE),
    ("sync_file_range", "/tmp/abi32", _MADE_BIG + 12, 0, 34),
    ("fadvise64", "/srv/big.bin", 56, 0, 78),
    ("sendfile", "/srv/big.bin", 500, 40, 40),
    ("sendfile", "/tmp/abi32", _MADE_BIG + 50, 40, 40),
    ("sendfile", "/srv/big.bin", 600, 41, 41),
    ("sendfile", "/tmp/abi32", _MADE_BIG + 90, 41, 41),
    ("mmap", "/srv/big.bin", 3 * PAGE, None, PAGE),
    ("munmap", "/srv/big.bin", None, 0, PAGE),
    ("mmap", "/srv/big.bin", 7 * PAGE, None, PAGE),
    ("munmap", "/srv/big.bin", None, 0, PAGE),
    ("stat", "/srv/big.bin", None, 0, None),
    ("open", "/tmp", None, 5, None),
    ("newfstatat", "/tmp/abi32", None, 0, None),
    ("renameat2", "/tmp/abi32", None, 0, None),
    ("open", "/srv", None, 6, None),
    ("getdents64", "/srv", None, None, 65536),
    ("close", "/srv", None, 0, None),
]


@pytest.mark.parametrize("program", ["abi32", "abi64"])
async def test_calls_through_the_interface_of_32_bits_are_told_like_all_others(traced: Traced, program: str) -> None:
    """Their numbers and arguments mean something else: whoever does not look takes a write for a stat."""
    events = await traced(f"/bin/{program}")
    faults = [event for event in events if event.op == "fault" and event.path == "/srv/big.bin"]
    assert [event.offset for event in faults] == [3 * PAGE]
    calls = [event for event in events if event.op not in {"execve", "exit", "fault", "page_in"}]
    told = [(e.op, e.path, e.offset, e.result, e.requested) for e in calls]
    assert [
        (*call[:3], None if expected[3] is None else call[3], call[4])
        for call, expected in zip(told, _CALLS_32, strict=True)
    ] == _CALLS_32
    assert [event.second for event in calls if event.op == "renameat2"] == ["/tmp/abi32-2"]


async def test_calls_that_make_no_sense_are_told_as_they_are(client: Client, image: str, tmp_path: Path) -> None:
    session = await finished(client, await client.create(image, ["pitfalls", "nonsense"], ttl="30s"))
    assert session.exit_code == 0
    assert session.trace is not None
    # A string that the kernel could not read either is no loss. A call that we can't read is one.
    assert session.trace.state is TraceState.LOSSY
    assert session.trace.lost == {"foreign_abi": 1}
    events = await events_of(client, session, tmp_path)
    failed = [(event.op, event.path, event.raw, event.error) for event in events if event.error is not None]
    assert failed[-4:] == [
        ("openat", None, None, "EFAULT"),
        ("rename", None, None, "EFAULT"),
        ("openat", None, "relative", "EBADF"),
        ("read", None, None, "EBADF"),
    ]


async def test_calls_that_a_seccomp_filter_refuses_are_told_too(traced: Traced) -> None:
    events = await traced("/bin/pitfalls", "denied", "/srv/verse.txt")
    # The container's own filter may answer clone3, for which the C library then calls clone.
    events = [event for event in events if event.denied and event.op != "fork"]
    assert [(event.op, event.path, event.result, event.error) for event in events] == [
        ("unlink", "/srv/verse.txt", None, "EACCES"),
        ("unlink", "/srv/verse.txt", None, "EACCES"),
        ("rmdir", "/srv", 0, None),
        ("open", "/srv/verse.txt", None, "ENOSYS"),
    ]
    assert events[0].tid != events[1].tid


async def test_what_is_asked_for_and_never_seen_to_end_is_told_as_such(
    client: Client, image: str, tmp_path: Path
) -> None:
    expected = {
        ("pitfalls", "aio", "/srv/big.bin"): [
            ("aio_read", "/srv/big.bin", 5, 100),
            ("aio_write", "/tmp/by-aio", 9, 42),
            ("aio_sync", "/tmp/by-aio", None, None),
        ],
        ("uring", "/srv/big.bin", "silent"): [("uring_write", "/tmp/silent", 12, 55)],
    }
    for command, requests in expected.items():
        session = await finished(client, await client.create(image, list(command), ttl="30s"))
        assert session.exit_code == 0
        assert session.trace is not None
        assert (session.trace.state, session.trace.lost) == (TraceState.LOSSY, {"end_unseen": len(requests)})
        events = [event for event in await events_of(client, session, tmp_path) if event.unfinished]
        assert [(event.op, event.path, event.offset, event.requested) for event in events] == requests
        assert {event.result for event in events} == {None}


async def test_what_never_had_a_path_has_its_name(traced: Traced) -> None:
    events = await traced("/bin/pitfalls", "pathless")
    assert [event.path for event in of(events, "write")] == ["anon:memfd:thing", "anon:[eventfd]"]
    assert [event.path for event in of(events, "fault") if event.for_write][-1] == "anon:dev/zero"
