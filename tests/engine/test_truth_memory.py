"""What a trace says of memory that a file is mapped to."""

from __future__ import annotations

from pathlib import Path

from sessions import PAGE, events_of, finished, of

from bedrock.client import Client
from bedrock.model import TraceState
from bedrock.trace.summary import summarise


async def test_a_page_that_could_not_be_had_is_no_success_and_a_private_write_changes_no_file(
    client: Client, image: str, tmp_path: Path
) -> None:
    session = await finished(client, await client.create(image, ["memory"], ttl="30s"))
    assert session.exit_code == 0, session.message
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE, session.trace
    events = [event for event in await events_of(client, session, tmp_path) if event.path == "/tmp/short"]
    touched = [
        (event.op, (event.offset or 0) // PAGE, event.error, event.for_write, event.private)
        for event in of(events, "fault", "fault_failed")
    ]
    assert touched == [
        ("fault", 20, None, False, False),
        ("fault_failed", 20, "EFAULT", False, False),
        ("fault", 21, None, True, False),
        ("fault_failed", 21, "EFAULT", True, False),
        ("fault", 1, None, False, False),
        ("fault_failed", 1, "EFAULT", False, False),
        ("fault", 2, None, True, False),
        ("fault_failed", 2, "EFAULT", True, False),
        # The kernel touched it, for the program's read of another file.
        ("fault", 22, None, True, False),
        ("fault_failed", 22, "EFAULT", True, False),
        ("fault", 3, None, True, True),
        ("fault", 4, None, True, False),
    ]
    (use,) = [use for use in summarise(tmp_path / f"{session.id}.bdt").files if use.path == "/tmp/short"]
    assert use.faults == 2
    # The memory before the file's and behind it is not the file's.
    placed = of(events, "mmap")[-1]
    assert placed.requested == 3 * PAGE
    assert [(event.requested, event.arg) for event in of(events, "munmap")] == [(3 * PAGE, placed.result)]
