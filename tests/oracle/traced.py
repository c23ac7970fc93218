"""Our trace's account of a run, in the same terms as strace's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow.compute as pc

from bedrock.trace.events import Event, events_of, format_event, read_batches
from oracle.calls import MOVES, NAMES, Call, Fact


def calls_of_trace(path: Path, theirs: Mapping[int, Sequence[Call]]) -> dict[int, list[Call]]:
    """The calls in a trace that strace could see too: by thread, in the container's numbers, as they began.

    ``theirs`` is strace's account. Calls of strace itself, and of what has started it, are left out: those processes
    were there before the command, so the numbers of their threads are smaller.
    """
    first = min(theirs)
    return without_witness(
        calls_by_thread(
            event
            for batch in read_batches(path)
            for event in events_of(batch.filter(pc.greater_equal(batch["tid"], first)))
        ),
        theirs,
    )


def calls_by_thread(events: Iterable[Event]) -> dict[int, list[Call]]:
    """The calls that strace knows, by thread in the container's numbers, in the order in which they began."""
    threads: dict[int, list[Event]] = {}
    for event in events:
        if event.op in NAMES:
            threads.setdefault(event.tid, []).append(event)
    return {
        tid: list(_calls(sorted(thread, key=lambda event: (event.t_ns, event.to_file))))
        for tid, thread in threads.items()
    }


def without_witness(ours: Mapping[int, list[Call]], theirs: Mapping[int, Sequence[Call]]) -> dict[int, list[Call]]:
    """Our account without what the first thread of the command did before its first exec: it was strace's child."""
    first = min(theirs)
    begun = theirs[first][0].facts.get("raw")
    mine = ours.get(first, [])
    start = next((n for n, call in enumerate(mine) if call.facts.get("raw") == begun), 0)
    return {**ours, first: mine[start:]}


def _calls(events: list[Event]) -> Iterator[Call]:
    source: Event | None = None
    for event in events:
        if event.op not in MOVES:
            yield Call(event.op, _facts(event), format_event(event))
        elif not event.to_file:
            source = event
        elif source is not None and (source.op, source.t_ns) == (event.op, event.t_ns):
            yield Call(event.op, _moved(source, event), f"{format_event(source)} to {format_event(event)}")
            source = None
        else:
            yield Call(event.op, {}, f"{format_event(event)} (without its other half)")


# One number may have several names: these are the ones that strace knows.
_ALIASES = {"ENOTSUP": "EOPNOTSUPP", "EDEADLOCK": "EDEADLK", "EWOULDBLOCK": "EAGAIN"}


def _facts(event: Event) -> dict[str, Fact]:
    return {
        "result": event.result,
        "error": _ALIASES.get(event.error or "", event.error),
        "fd": -1 if event.fd is None else event.fd,
        "path": _plain(event.path),
        "raw": event.raw or "",
        "second": event.second,
        "second_raw": event.second_raw,
        "argv": None if event.argv is None else tuple(event.argv),
        "offset": event.offset,
        "requested": event.requested,
        "arg": event.arg or 0,
        "program": event.program,
    }


def _moved(source: Event, target: Event) -> dict[str, Fact]:
    """The two halves of a call that moves bytes from one file to another."""
    return {
        "result": source.result if source.result == target.result else None,
        "error": source.error if source.error == target.error else "the halves differ",
        "requested": source.requested,
        "from": _plain(source.path),
        "to": _plain(target.path),
        "from_offset": source.offset,
        "to_offset": target.offset,
        "program": source.program,
    }


def _plain(path: str | None) -> str | None:
    """A path without the mark that it was deleted already when the trace named it: strace looks at another moment."""
    return None if path is None else path.removesuffix(" (deleted)")
