"""Threads that interrupt each other in the middle of calls: no record may have what belongs to another thread."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sessions import Traced

from bedrock.trace.events import Event

STRESS_ROUNDS = 300
_OWN = "/tmp/own"
_OPENED = re.compile(rf"{_OWN}/(?P<thread>\d\d)/(?P<again>\d\d)-\d{{4}}")
# By the first thread, for all others.
_MADE_FIRST = {_OWN, *(f"{number:02}" for number in range(12))}
_CHANGED = re.compile(r"(?P<thread>\d\d)/[rs]\d+")


def false_records(events: Iterable[Event]) -> list[str]:
    """What can't be true of the calls of programs/stress.c: a path of another thread, or one that nobody uses."""
    found, thread_of = [], {}
    for event in events:
        if event.op == "openat" and (event.raw or "").startswith(f"{_OWN}/"):
            match = _OPENED.fullmatch(event.raw or "")
            is_false = match is None or match["thread"] != match["again"] or event.path != event.raw
        elif event.op in {"mkdirat", "renameat", "renameat2", "unlinkat"} and event.raw not in _MADE_FIRST:
            match = _CHANGED.fullmatch(event.raw or "")
            is_false = match is None or event.path != f"{_OWN}/{event.raw}"
            if match and event.op.startswith("renameat"):
                is_false |= event.second_raw != (event.raw or "").replace("/r", "/s")
        else:
            continue
        # A call that no filter answered and that did not fail: the program makes no others.
        is_false |= event.denied or event.error is not None
        if match:
            is_false |= thread_of.setdefault(event.tid, match["thread"]) != match["thread"]
        if is_false:
            found.append(f"thread {event.tid}: {event.op} {event.raw!r} {event.path!r} {event.second_raw!r}"
                         f" {event.error or ''}{' denied' if event.denied else ''}")  # fmt: skip
    return found


async def test_records_of_threads_that_interrupt_each_other_are_never_mixed_up(traced: Traced) -> None:
    events = await traced("stress", str(STRESS_ROUNDS))
    assert false_records(events) == []
    # Six threads each open and close a file in every round, six make, rename and remove a directory.
    opened = [event for event in events if event.op == "openat" and (event.raw or "").startswith(f"{_OWN}/")]
    changed = [event for event in events if _CHANGED.fullmatch(event.raw or "")]
    assert (len(opened), len(changed)) == (6 * STRESS_ROUNDS, 18 * STRESS_ROUNDS)
