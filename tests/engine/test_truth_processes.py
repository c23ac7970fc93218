"""What a trace says of processes, of their numbers, and of calls that are about no ordinary path."""

from __future__ import annotations

from sessions import Traced, of

from bedrock.trace.events import Event


async def test_a_call_that_a_signal_interrupts_has_the_kernels_name_for_that_and_no_bare_number(
    traced: Traced,
) -> None:
    reads = [event for event in of(await traced("/bin/lives", "interrupted"), "read") if event.fd is not None]
    outcomes = [(event.requested, event.result, event.error) for event in reads if (event.requested or 0) in {10, 20}]
    assert outcomes == [
        (10, None, "ERESTARTSYS"),
        # The kernel makes this one again.
        (20, None, "ERESTARTSYS"),
        (20, 5, None),
    ]


def _said(events: list[Event], who: str) -> tuple[int, int]:
    """The numbers that a process knows itself by, having made sure that the trace has the same."""
    (event,) = [event for event in events if (event.raw or "").startswith(f"/{who}/")]
    _, _, pid, tid = (event.raw or "").split("/")
    assert (event.pid, event.tid) == (int(pid), int(tid))
    return int(pid), int(tid)


async def test_a_fork_has_the_numbers_that_the_processes_know_themselves_by_and_a_failed_one_is_there(
    traced: Traced,
) -> None:
    events = await traced("/bin/lives", "forks")
    child, grandchild, thread = (_said(events, who) for who in ("child", "grandchild", "thread"))
    # A container's seccomp filter may answer clone3, whereupon the C library calls clone.
    made = [event for event in of(events, "fork") if not event.denied]
    forks = [(event.pid, event.result, event.arg, event.error) for event in made]
    (last,) = {event.pid for event in events} - {1, child[0], grandchild[0]}
    assert forks == [
        (1, child[1], child[0], None),
        (child[0], grandchild[1], grandchild[0], None),
        (1, thread[1], 1, None),
        (1, None, None, "EINVAL"),
        (1, last, last, None),
        (last, None, None, "EAGAIN"),
    ]


async def test_paths_that_count_from_another_root_or_from_a_descriptor_are_those_of_the_container(
    traced: Traced,
) -> None:
    events = await traced("/bin/lives", "names")
    assert [(event.raw, event.path, event.error) for event in of(events, "openat2")] == [
        ("/sub/file", "/tmp/top/sub/file", None),
        ("../../sub/file", "/tmp/top/sub/file", None),
        ("/sub/nothing", "/tmp/top/sub/nothing", "ENOENT"),
        ("sub/nothing", "/tmp/top/sub/nothing", "ENOENT"),
        ("/../nothing", "/tmp/top/nothing", "ENOENT"),
        ("../../sub/nothing", "/tmp/top/sub/nothing", "ENOENT"),
    ]
    assert "anon:[pidfd]" in {event.path for event in of(events, "close")}
    # In a child that was forked just now, the page that a constant is in is often not in memory.
    assert [(event.raw, event.path, event.error) for event in of(events, "execveat")] == [
        ("nothing", "/bin/nothing", "ENOENT"),
        ("", "/bin/lives", None),
        ("../bin/lives", "/bin/lives", None),
        ("./lives", "/bin/lives", None),
    ]
