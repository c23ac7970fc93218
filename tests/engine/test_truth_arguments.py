"""Paths that another thread overwrites while a call uses them: a trace names what was given, or says that it can't."""

from __future__ import annotations

from pathlib import Path

import pytest
from sessions import content, events_of, finished, of

from bedrock.client import Client
from bedrock.model import Session, TraceState
from bedrock.trace.events import Event
from bedrock.volume import STDOUT


async def _forged(client: Client, image: str, directory: Path, *command: str) -> tuple[Session, list[Event]]:
    session = await finished(client, await client.create(image, ["forger", *command], ttl="60s"))
    assert session.exit_code == 0, session.message
    return session, await events_of(client, session, directory)


async def test_a_path_that_is_overwritten_during_its_call_is_told_as_it_was_given_and_marked(
    client: Client, image: str, tmp_path: Path
) -> None:
    session, events = await _forged(client, image, tmp_path, "blocked")
    assert session.trace is not None
    assert (session.trace.state, session.trace.lost) == (TraceState.LOSSY, {"string_changed": 2}), session.trace
    changed = [(event.op, event.path, event.raw, event.error) for event in events if event.argument_changed]
    # A file that was opened has its path from the kernel, one that was truncated by its name has it from the argument.
    assert changed in (
        [
            (opens, "/tmp/secret", "/tmp/secret", None),
            ("truncate", "/dev/shm/secret", "/dev/shm/secret", None),
        ]
        for opens in ("open", "openat")
    )
    assert all("/tmp/public" not in (event.path, event.raw) for event in events)


async def test_no_unlink_is_told_under_a_path_that_another_thread_put_there_unless_it_is_marked(
    client: Client, image: str, tmp_path: Path
) -> None:
    session, events = await _forged(client, image, tmp_path, "race", "2000")
    unlinks, gone = of(events, "unlink", "unlinkat"), (await content(client, session, STDOUT)).decode().split()
    assert len(unlinks) == len(gone) == 2000
    assert gone.count("secret") > 0
    told = [(event.path or "").removeprefix("/tmp/") if event.error is None else "none" for event in unlinks]
    forged = [
        (ours, theirs)
        for event, ours, theirs in zip(unlinks, told, gone, strict=True)
        if ours != theirs and not event.argument_changed
    ]
    assert forged == []
    marked = sum(event.argument_changed for event in unlinks)
    assert session.trace is not None
    assert session.trace.lost == ({"string_changed": marked} if marked else {})
    assert session.trace.state is (TraceState.LOSSY if marked else TraceState.COMPLETE)
    # The buffer had one of these texts at any time, or a part of each.
    assert {event.raw for event in unlinks} <= _GIVEN


_GIVEN = {
    f"/tmp/{one[:size]}{other[size:]}"
    for one, other in (("public", "secret"), ("secret", "public"))
    for size in range(7)
}


@pytest.mark.parametrize("how", ["calls", "ring"])
async def test_what_is_appended_has_the_offset_to_which_it_went(
    client: Client, image: str, tmp_path: Path, how: str
) -> None:
    session = await finished(client, await client.create(image, ["appends", how], ttl="60s"))
    if session.exit_code == 3:
        pytest.skip("this kernel has no io_uring")
    if session.exit_code == 5:
        pytest.skip("this kernel's overlay leaves RWF_APPEND out")
    # The program ends with another code when it does not find its bytes where the test expects them.
    assert session.exit_code == 0, session.message
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE, session.trace
    events = await events_of(client, session, tmp_path)
    told = {
        path: [
            (event.op, event.offset, event.result, event.append)
            for event in events
            if event.path == path and "write" in event.op
        ]
        for path in ("/tmp/always", "/tmp/sometimes")
    }
    assert told == _APPENDED[how]
    assert not any(event.offset_shared for event in events)


_APPENDED = {
    "calls": {
        "/tmp/always": [
            ("write", 0, 5000, True),
            ("pwrite64", 5000, 30, True),
            ("pwritev", 5030, 30, True),
            ("pwritev2", 5060, 30, True),
            ("write", 5090, 40, True),
            ("writev", 5130, 30, True),
        ],
        "/tmp/sometimes": [
            ("pwrite64", 0, 100, False),
            ("pwritev2", 100, 30, True),
            ("pwritev2", 130, 30, True),
            ("write", 160, 50, False),
            ("pwritev", 20, 30, False),
        ],
    },
    "ring": {
        "/tmp/always": [
            ("uring_write", 0, 5000, True),
            ("uring_write", 5000, 60, True),
            ("uring_write", 5060, 70, True),
            ("uring_write", 5130, 30, True),
        ],
        "/tmp/sometimes": [
            ("uring_write", 0, 100, False),
            ("uring_write", 100, 80, True),
            ("uring_write", 50, 80, False),
        ],
    },
}
