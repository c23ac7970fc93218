"""Our trace's account of a run, in the same terms as strace's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from oracle.calls import MOVES, NAMES, Call, Fact

from bedrock.trace.events import Event, format_event


def calls_by_thread(events: Iterable[Event]) -> dict[int, list[Call]]:
    """The calls that strace sees too, by thread in the container's numbers, in the order in which they began."""
    threads: dict[int, list[Event]] = {}
    for event in events:
        if event.op in NAMES:
            threads.setdefault(event.tid, []).append(event)
    return {
        tid: list(_calls(sorted(thread, key=lambda event: (event.t_ns, event.to_file))))
        for tid, thread in threads.items()
    }


def without_witness(ours: Mapping[int, list[Call]], theirs: Mapping[int, Sequence[Call]]) -> dict[int, list[Call]]:
    """Our account without strace and what has started it, in whose threads strace sees nothing.

    Those were there before the command, so their numbers are smaller; and the first thread of the command was one of
    theirs until its first exec.
    """
    first = min(theirs)
    found = {tid: calls for tid, calls in ours.items() if tid >= first}
    begun = theirs[first][0].facts.get("raw")
    start = next((n for n, call in enumerate(found.get(first, [])) if call.facts.get("raw") == begun), 0)
    return found | {first: found.get(first, [])[start:]}


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
