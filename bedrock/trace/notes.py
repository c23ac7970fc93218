"""The records of a trace that are no calls, as values and, where there are many, as columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bedrock.trace.blocks import TraceError
from bedrock.trace.layouts import PRESENT, Layout
from bedrock.trace.paths import path_of
from bedrock.tracer.causes import Feature
from bedrock.tracer.format import LAYOUT, Mode, RecordType, TextFlag
from bedrock.tracer.operations import MAX_OPS

_MAX_COUNT = 2**63 - 1
_HEAD = np.dtype([("size", "<u2"), ("type", "<u2"), ("tid", "<u4"), ("time_ns", "<u8")])


class FileIdentity(NamedTuple):
    """What a file is, whatever it is called."""

    device: int
    inode: int


class FileText(NamedTuple):
    """A FILE record: ``path`` as the container sees it, in bytes. ``link`` tells apart the names of one file."""

    tid: int
    time_ns: int
    identity: FileIdentity
    path: bytes
    mode: int
    flags: TextFlag
    generation: int
    link: int


class Text(NamedTuple):
    """A STRING record: a text argument of the call of the same thread and time.

    ``base`` is the directory from which a second path counts; None for one that counts from the root or is no path.
    """

    tid: int
    time_ns: int
    text: bytes
    flags: TextFlag
    base: FileIdentity | None


class Argv(NamedTuple):
    """An ARGV record: the argument vector, or a part of it, each argument with a NUL behind."""

    tid: int
    time_ns: int
    text: bytes
    flags: TextFlag


class Process(NamedTuple):
    """A PROCESS record: a thread in the host's numbers and in the container's.

    ``started_ns`` is when its process began; with ``tgid`` it tells all processes apart. 0 in traces of version 2.
    """

    tid: int
    time_ns: int
    tgid: int
    parent: int
    container_tid: int
    container_pid: int
    comm: bytes
    started_ns: int


class Start(NamedTuple):
    """The START record. ``unsupported`` names the kinds of events that the kernel did not let the tracer see."""

    time_ns: int
    mode: Mode
    is_filtered: bool
    unsupported: list[str]


class End(NamedTuple):
    time_ns: int
    seen: int
    written: int


class FileTotal(NamedTuple):
    """A FILE_TOTAL record; ``counts`` has its numbers by name, histograms as lists."""

    identity: FileIdentity
    generation: int
    link: int
    tgid: int
    started_ns: int
    counts: dict[str, int]
    latency: dict[str, list[int]]


class OpTotal(NamedTuple):
    """An OP_TOTAL record."""

    tgid: int
    started_ns: int
    op: int
    calls: int
    errors: int
    duration_ns: int
    latency: list[int]


Note = FileText | Text | Argv | Process | Start | End | FileTotal | OpTotal


class Notes:
    """The records of one block that are no calls. The arrays go together: one element for each note.

    ``position`` counts the calls of the whole trace that came before a note.
    """

    def __init__(self, entries: NDArray[np.void], content: bytes, first_call: int, layout: Layout = PRESENT) -> None:
        self._content = content
        self._layout = layout
        self._view = np.frombuffer(content, np.uint8)
        self.offset = entries["offset"].astype(np.int64)
        self.position = entries["calls_before"].astype(np.int64) + first_call
        heads = self._rows(self.offset, _HEAD)
        self.type, self.tid, self.time_ns = heads["type"], heads["tid"], heads["time_ns"].astype(np.int64)

    def __len__(self) -> int:
        return len(self.offset)

    def of(self, *kinds: RecordType) -> NDArray[np.int64]:
        """The indices of the notes of some kinds, in order."""
        return np.flatnonzero(np.isin(self.type, kinds))

    def fixed(self, indices: NDArray[np.int64], kind: RecordType) -> NDArray[np.void]:
        """The fixed parts of notes of one kind, as a structured array with the present version's fields."""
        found = self._rows(self.offset[indices], self._layout.records[kind])
        wanted = PRESENT.records[kind]
        if found.dtype == wanted:
            return found
        rows = np.zeros(len(found), wanted)
        for name in set(found.dtype.names or ()) & set(wanted.names or ()):
            rows[name] = found[name]
        return rows

    def texts(self, indices: NDArray[np.int64], kind: RecordType, sizes: NDArray[np.int64]) -> list[bytes]:
        """The texts of notes of one kind that has them; ``sizes`` are in bytes."""
        content, begins = self._content, self.offset[indices] + self._layout.records[kind].itemsize
        ends = begins + sizes
        return [content[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]

    def _rows(self, offsets: NDArray[np.int64], dtype: np.dtype[np.void]) -> NDArray[np.void]:
        if not len(offsets):
            return np.empty(0, dtype)
        if int(offsets.max()) + dtype.itemsize > len(self._view):
            raise TraceError("the trace is damaged: a note does not end where its block does")
        index = offsets[:, None] + np.arange(dtype.itemsize)
        rows: NDArray[np.void] = self._view[index].reshape(-1).view(dtype)
        return rows

    def __iter__(self) -> Iterator[Note]:
        for index in range(len(self)):
            note = self.note(index)
            if note is not None:
                yield note

    def note(self, index: int) -> Note | None:
        """One note as a value; None where its kind is not known."""
        number = int(self.type[index])
        if number not in PRESENT.records or number == RecordType.CALL:
            return None
        kind = RecordType(number)
        indices = np.array([index])
        rows = self.fixed(indices, kind)
        row = rows[0]
        tid, time_ns = int(row["tid"]), int(row["time_ns"])
        match kind:
            case RecordType.PROCESS:
                comm = row["comm_low"].tobytes() + row["comm_high"].tobytes()
                tgid, parent, container_tid, container_pid, started_ns = (
                    int(row[name]) for name in ("tgid", "parent", "container_tid", "container_pid", "started_ns")
                )
                name = comm.split(b"\0", 1)[0]
                return Process(tid, time_ns, tgid, parent, container_tid, container_pid, name, started_ns)
            case RecordType.START:
                unsupported = [(feature.name or "").lower() for feature in Feature(int(row["unsupported"]))]
                if row["mode"] not in set(Mode):
                    raise TraceError(f"the trace is damaged, or of a later Bedrock: it has mode {row['mode']}")
                return Start(time_ns, Mode(int(row["mode"])), bool(row["is_filtered"]), unsupported)
            case RecordType.END:
                return End(time_ns, int(row["seen"]), int(row["written"]))
            case RecordType.FILE_TOTAL:
                identity = FileIdentity(int(row["device"]), int(row["inode"]))
                plain = [field.name for field in LAYOUT[kind] if field.kind == "u64" and field.name != "started_ns"]
                histograms = {name: row[f"{name}_latency"].tolist() for name in ("read", "write")}
                return FileTotal(
                    identity,
                    int(row["generation"]),
                    int(row["link"]),
                    int(row["tgid"]),
                    int(row["started_ns"]),
                    {name: int(row[name]) for name in plain},
                    histograms,
                )
            case RecordType.OP_TOTAL:
                calls, errors, duration_ns = (int(row[name]) for name in ("calls", "errors", "duration_ns"))
                latency = row["latency"].tolist()
                tgid, started_ns = int(row["tgid"]), int(row["started_ns"])
                if row["op"] >= MAX_OPS or max(calls, errors, duration_ns) > _MAX_COUNT:
                    raise TraceError("the trace is damaged: it counts calls that there are not")
                return OpTotal(tgid, started_ns, int(row["op"]), calls, errors, duration_ns, latency)
        (text,) = self.texts(indices, kind, rows["text_size"])
        flags = TextFlag(int(row["flags"]))
        if kind is RecordType.STRING:
            base = FileIdentity(int(row["device"]), int(row["inode"])) if row["inode"] else None
            return Text(tid, time_ns, text, flags, base)
        if kind is RecordType.ARGV:
            return Argv(tid, time_ns, text, flags)
        identity = FileIdentity(int(row["device"]), int(row["inode"]))
        mode = int(row["mode"])
        path = path_of(text, identity.inode, mode, flags)
        return FileText(tid, time_ns, identity, path, mode, flags, int(row["generation"]), int(row["link"]))
