"""A trace call by call, for people and programs that read one line after the other."""

from __future__ import annotations

import errno as errno_names
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bedrock.trace.decode import Argv, FileIdentity, FileText, Note, Process, Text, Trace, resolve
from bedrock.trace.summary import text_of
from bedrock.tracer.format import CallFlag, Op, TextFlag


class Event(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One call. ``t_ns`` counts from the first call; ``pid`` and ``tid`` are the container's own.

    ``path`` is the file's path as the container sees it (of a call that gave no file: what ``raw`` names, symbolic
    links not followed), ``raw`` the argument as it was given, ``second`` that of a call with two. ``offset`` and the
    sizes are in bytes; a failed call has ``error`` instead of ``result``.
    """

    t_ns: int
    duration_ns: int
    pid: int
    tid: int
    op: str
    result: int | None = None
    error: str | None = None
    fd: int | None = None
    path: str | None = None
    raw: str | None = None
    second: str | None = None
    argv: list[str] | None = None
    offset: int | None = None
    offset_shared: bool = False
    requested: int | None = None
    to_file: bool = False
    device: int | None = None
    inode: int | None = None
    arg: int | None = None


_SIZED = {Op.READLINK, Op.READLINKAT, Op.GETDENTS, Op.GETDENTS64, Op.TRUNCATE, Op.FTRUNCATE, Op.FALLOCATE}
_WITH_SIZE = {*range(Op.READ, Op.PWRITEV2 + 1), Op.MMAP, Op.SENDFILE, Op.COPY_FILE_RANGE, Op.SPLICE, *_SIZED}
_WITH_OFFSET = {Op.LSEEK, Op.MMAP}


class _Notes:
    """What has been learnt so far of files, processes and arguments."""

    def __init__(self) -> None:
        self.paths: dict[FileIdentity, bytes] = {}
        self.processes: dict[int, Process] = {}
        self.raw: dict[tuple[int, int], bytes] = {}
        self.second: dict[tuple[int, int], bytes] = {}
        self.argv: dict[tuple[int, int], list[str]] = {}

    def take(self, note: Note) -> None:
        if isinstance(note, FileText):
            self.paths[note.identity] = note.path
        elif isinstance(note, Process):
            self.processes[note.tid] = note
        elif isinstance(note, Text):
            strings = self.second if note.flags & TextFlag.SECOND else self.raw
            strings[note.tid, note.time_ns] = note.text
        elif isinstance(note, Argv):
            self.argv[note.tid, note.time_ns] = [text_of(word) for word in note.argv]


def read_events(path: Path) -> Iterator[Event]:
    """Yield the calls in the order in which they returned. Raises :class:`bedrock.trace.decode.TraceError`."""
    notes = _Notes()
    t0_ns: int | None = None
    for chunk in Trace(path).chunks():
        upcoming = iter(chunk.notes)
        pending = next(upcoming, None)
        for position, row in zip(chunk.positions, chunk.calls, strict=True):
            while pending is not None and pending[0] < position:
                notes.take(pending[1])
                pending = next(upcoming, None)
            tid, time_ns, op = int(row["tid"]), int(row["time_ns"]), int(row["op"])
            flags, result = int(row["flags"]), int(row["result"])
            t0_ns = time_ns if t0_ns is None else t0_ns
            process = notes.processes.get(tid)
            event = Event(
                t_ns=time_ns - t0_ns,
                duration_ns=int(row["duration_ns"]),
                pid=process.container_pid if process is not None else 0,
                tid=process.container_tid if process is not None else 0,
                op=Op(op).name.lower(),
                argv=notes.argv.pop((tid, time_ns), None),
                to_file=bool(flags & CallFlag.TO_FILE),
                offset_shared=bool(flags & CallFlag.OFFSET_SHARED),
                arg=int(row["arg"]) or None,
            )
            if -4096 < result < 0 and op != Op.EXIT:
                event.error = errno_names.errorcode.get(-result, str(-result))
            else:
                event.result = result
            if row["fd"] >= 0:
                event.fd = int(row["fd"])
            known: bytes | None = None
            if flags & (CallFlag.HAS_FILE | CallFlag.FROM_BASE):
                identity = FileIdentity(int(row["device"]), int(row["inode"]))
                known = notes.paths.get(identity)
                if flags & CallFlag.HAS_FILE:
                    event.device, event.inode = identity
            raw = notes.raw.pop((tid, time_ns), None)
            second = notes.second.pop((tid, time_ns), None)
            named = known if raw is None or flags & CallFlag.HAS_FILE else resolve(known, raw)
            event.path, event.raw, event.second = (
                None if text is None else text_of(text) for text in (named, raw, second)
            )
            if flags & CallFlag.HAS_OFFSET or op in _WITH_OFFSET:
                event.offset = int(row["offset"])
            if op in _WITH_SIZE:
                event.requested = int(row["requested"])
            yield event
        # What stands behind the last call of this stretch belongs to the calls of the next one.
        while pending is not None:
            notes.take(pending[1])
            pending = next(upcoming, None)


def format_event(event: Event) -> str:
    """One call in one line."""
    words = [f"{event.t_ns / 1e9:12.6f}", f"{event.duration_ns / 1e3:9.1f}us", f"{event.pid}/{event.tid}", event.op]
    if event.argv is not None:
        words.append(" ".join(event.argv))
    elif event.path is not None:
        words.append(event.path)
    if event.raw is not None and event.raw != event.path:
        words.append(f"({event.raw})")
    if event.second is not None:
        words.append(f"({event.second})")
    for name, value in (("fd", event.fd), ("offset", event.offset), ("requested", event.requested)):
        if value is not None:
            words.append(f"{name}={value}")
    if event.to_file:
        words.append("to_file")
    words.append(f"= {event.result}" if event.error is None else f"= {event.error}")
    return " ".join(words)
