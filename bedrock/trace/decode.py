"""From the bytes of a trace to records, in bounded memory.

The file is read in chunks. In each, the fixed-size calls are picked out by numpy and everything else is read one by
one: there is little of it. A trace that breaks off (its tracer was killed) is read up to where it is whole.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bedrock.errors import BedrockError
from bedrock.tracer.format import FILE_HEADER, LAYOUT, MAGIC, VERSION, RecordType, TextFlag, dtype_of

_CHUNK_BYTES = 16 << 20
_TYPES = {kind: dtype_of(fields) for kind, fields in LAYOUT.items()}
_HEADER = dtype_of(FILE_HEADER)
CALL_TYPE = _TYPES[RecordType.CALL]
_CALL_BYTES = CALL_TYPE.itemsize
_CALL_HEAD = _CALL_BYTES | RecordType.CALL << 16


class TraceError(BedrockError):
    """The file is no trace, or of a later version."""


class FileIdentity(NamedTuple):
    """What a file is, whatever it is called."""

    device: int
    inode: int


class FileText(NamedTuple):
    """A FILE record: ``path`` as the container sees it, in bytes."""

    tid: int
    time_ns: int
    identity: FileIdentity
    path: bytes
    mode: int
    flags: TextFlag


class Text(NamedTuple):
    """A STRING record: the raw path argument of the call of the same thread and time."""

    tid: int
    time_ns: int
    text: bytes
    flags: TextFlag


class Argv(NamedTuple):
    tid: int
    time_ns: int
    argv: list[bytes]
    flags: TextFlag


class Process(NamedTuple):
    """A PROCESS record: a thread in the host's numbers and in the container's."""

    tid: int
    time_ns: int
    tgid: int
    parent: int
    container_tid: int
    container_pid: int
    comm: bytes


class Start(NamedTuple):
    time_ns: int


class End(NamedTuple):
    time_ns: int
    seen: int
    written: int


Note = FileText | Text | Argv | Process | Start | End


class Chunk(NamedTuple):
    """A stretch of the trace. ``positions`` and ``calls`` go together; so do the notes and their positions in
    ``notes``.

    A position is a byte offset in the file, so it tells the order of records of both kinds.
    """

    positions: NDArray[np.int64]
    calls: NDArray[np.void]
    notes: list[tuple[int, Note]]


class Trace:
    """One trace file. Iterate :meth:`chunks`; afterwards ``is_truncated`` says whether it broke off in a record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                head = file.read(_HEADER.itemsize)
        except OSError as error:
            raise TraceError(f"{path} can't be read: {error.strerror}") from None
        if len(head) < _HEADER.itemsize or head[:8] != MAGIC:
            raise TraceError(f"{path} is no trace of Bedrock's")
        header = np.frombuffer(head, _HEADER)[0]
        if header["version"] > VERSION:
            raise TraceError(f"{path} has version {header['version']}, this Bedrock reads up to {VERSION}")
        self._header_bytes = int(header["header_size"])
        self.realtime_offset_ns = int(header["realtime_offset_ns"])
        self.is_truncated = False

    def chunks(self) -> Iterator[Chunk]:
        """Yield the trace from its head to its tail."""
        with self._path.open("rb") as file:
            file.seek(self._header_bytes)
            position, rest = self._header_bytes, b""
            while block := file.read(_CHUNK_BYTES):
                data = rest + block
                chunk, used = _split(data, position)
                yield chunk
                rest = data[used:]
                position += used
            self.is_truncated = bool(rest)


def _split(data: bytes, base: int) -> tuple[Chunk, int]:
    """Cut whole records out of ``data``; return them and how many bytes they take."""
    view = np.frombuffer(data, np.uint8)
    runs: list[NDArray[np.int64]] = []
    notes: list[tuple[int, Note]] = []
    at, size = 0, len(data)
    while at + 16 <= size:
        # A stretch of calls is found by looking at where the heads of the next calls would be.
        count = _run_of_calls(view, at)
        if count:
            runs.append(at + np.arange(count, dtype=np.int64) * _CALL_BYTES)
            at += count * _CALL_BYTES
            continue
        record_size = int.from_bytes(data[at : at + 2], "little")
        if record_size < 16 or at + record_size > size:
            break
        note = _note(data, at, int.from_bytes(data[at + 2 : at + 4], "little"))
        if note is not None:
            notes.append((base + at, note))
        at += record_size
    offsets = np.concatenate(runs) if runs else np.empty(0, np.int64)
    if len(offsets):
        index = (offsets[:, None] + np.arange(_CALL_BYTES)).astype(np.intp)
        calls = view[index].reshape(-1).view(CALL_TYPE)
    else:
        calls = np.empty(0, CALL_TYPE)
    return Chunk(offsets + base, calls, notes), at


def _run_of_calls(view: NDArray[np.uint8], at: int) -> int:
    """How many CALL records stand one behind the other at ``at``."""
    room = (len(view) - at) // _CALL_BYTES
    found, step = 0, 1
    while found < room:
        step = min(step, room - found)
        start = at + found * _CALL_BYTES
        heads = view[start : start + step * _CALL_BYTES].reshape(step, _CALL_BYTES)[:, :4].copy().view("<u4").ravel()
        wrong = np.flatnonzero(heads != _CALL_HEAD)
        if len(wrong):
            return found + int(wrong[0])
        found += step
        step *= 8
    return found


def _note(data: bytes, at: int, kind: int) -> Note | None:
    if kind not in _TYPES or kind == RecordType.CALL:
        return None
    dtype = _TYPES[RecordType(kind)]
    row = np.frombuffer(data, dtype, 1, at)[0]
    tid, time_ns = int(row["tid"]), int(row["time_ns"])
    if kind == RecordType.PROCESS:
        comm = row["comm_low"].tobytes() + row["comm_high"].tobytes()
        tgid, parent, container_tid, container_pid = (
            int(row[name]) for name in ("tgid", "parent", "container_tid", "container_pid")
        )
        return Process(tid, time_ns, tgid, parent, container_tid, container_pid, comm.split(b"\0", 1)[0])
    if kind == RecordType.START:
        return Start(time_ns)
    if kind == RecordType.END:
        return End(time_ns, int(row["seen"]), int(row["written"]))
    begin = at + dtype.itemsize
    text = data[begin : begin + int(row["text_size"])]
    flags = TextFlag(int(row["flags"]))
    if kind == RecordType.STRING:
        return Text(tid, time_ns, text, flags)
    if kind == RecordType.ARGV:
        return Argv(tid, time_ns, text.removesuffix(b"\0").split(b"\0"), flags)
    identity = FileIdentity(int(row["device"]), int(row["inode"]))
    mode = int(row["mode"])
    return FileText(tid, time_ns, identity, _path_of(text, identity, mode, flags), mode, flags)


def resolve(base: bytes | None, raw: bytes) -> bytes | None:
    """The path that a raw argument names, counted from the directory ``base``; None when that is not known.

    Dots are taken out as text: a symbolic link on the way is not followed, since the kernel's look-up was not recorded.
    """
    if not raw:
        return base
    if not raw.startswith(b"/") and base is None:
        return None
    path = posixpath.normpath(raw if raw.startswith(b"/") or base is None else base + b"/" + raw)
    return b"/" + path.lstrip(b"/")


_NAMELESS = {0o010000: b"pipe", 0o140000: b"socket"}


def _path_of(text: bytes, identity: FileIdentity, mode: int, flags: TextFlag) -> bytes:
    """Turn the components round: the kernel gives the last one first."""
    kind = _NAMELESS.get(mode & 0o170000)
    if kind is not None and flags & TextFlag.OUTSIDE:
        return kind + b":[%d]" % identity.inode
    if not mode & 0o170000:
        return b"anon:" + text.removesuffix(b"/")
    components = text.removesuffix(b"/").split(b"/") if text else []
    path = b"/" + b"/".join(reversed(components))
    return b"(outside)" + path if flags & TextFlag.OUTSIDE and components else path
