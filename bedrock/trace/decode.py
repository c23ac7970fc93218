"""From the bytes of a trace to columns and notes, block by block: memory is bounded by the largest block.

Everything that there is much of is handled by numpy as whole columns. A trace that breaks off (its tracer was killed)
is read up to where it is whole.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

from bedrock.errors import BedrockError
from bedrock.tracer.format import (
    BLOCK_HEADER,
    COLUMNS,
    FILE_HEADER,
    LAYOUT,
    MAGIC,
    NOTE_ENTRY,
    SKIPPABLE,
    VERSION,
    CallFlag,
    Mode,
    RecordType,
    TextFlag,
    dtype_of,
)
from bedrock.tracer.operations import Op

_TYPES = {kind: dtype_of(fields) for kind, fields in LAYOUT.items()}
_HEADER = dtype_of(FILE_HEADER)
_BLOCK = dtype_of(BLOCK_HEADER)
_ENTRY = dtype_of(NOTE_ENTRY)
_COLUMNS = [(field.name, dtype_of([field])[0]) for field in COLUMNS]
_HEAD = np.dtype([("size", "<u2"), ("type", "<u2"), ("tid", "<u4"), ("time_ns", "<u8")])
# What a block may need when it is unpacked. The tracer's own are a tenth of this; a damaged size must not be believed.
_MAX_UNPACKED = 256 << 20


class TraceError(BedrockError):
    """The file is no trace, or of another version, or damaged."""


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
    generation: int


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
    mode: Mode
    is_filtered: bool


class End(NamedTuple):
    time_ns: int
    seen: int
    written: int


class FileTotal(NamedTuple):
    """A FILE_TOTAL record; ``counts`` has its numbers by name, histograms as lists."""

    identity: FileIdentity
    generation: int
    tgid: int
    counts: dict[str, int]
    latency: dict[str, list[int]]


class OpTotal(NamedTuple):
    """An OP_TOTAL record."""

    tgid: int
    op: Op
    calls: int
    errors: int
    duration_ns: int
    latency: list[int]


Note = FileText | Text | Argv | Process | Start | End | FileTotal | OpTotal


class Notes:
    """The records of one block that are no calls. The arrays go together: one element for each note.

    ``position`` counts the calls of the whole trace that came before a note.
    """

    def __init__(self, entries: NDArray[np.void], content: bytes, first_call: int) -> None:
        self._content = content
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
        """The fixed parts of notes of one kind, as a structured array."""
        return self._rows(self.offset[indices], _TYPES[kind])

    def text(self, index: int, kind: RecordType, size: int) -> bytes:
        """The text of a note that has one, of ``size`` bytes."""
        begin = int(self.offset[index]) + _TYPES[kind].itemsize
        return self._content[begin : begin + size]

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
        if number not in _TYPES or number == RecordType.CALL:
            return None
        kind = RecordType(number)
        row = self._rows(self.offset[index : index + 1], _TYPES[kind])[0]
        tid, time_ns = int(row["tid"]), int(row["time_ns"])
        match kind:
            case RecordType.PROCESS:
                comm = row["comm_low"].tobytes() + row["comm_high"].tobytes()
                tgid, parent, container_tid, container_pid = (
                    int(row[name]) for name in ("tgid", "parent", "container_tid", "container_pid")
                )
                name = comm.split(b"\0", 1)[0]
                return Process(tid, time_ns, tgid, parent, container_tid, container_pid, name)
            case RecordType.START:
                return Start(time_ns, Mode(int(row["mode"])), bool(row["is_filtered"]))
            case RecordType.END:
                return End(time_ns, int(row["seen"]), int(row["written"]))
            case RecordType.FILE_TOTAL:
                identity = FileIdentity(int(row["device"]), int(row["inode"]))
                plain = [field.name for field in LAYOUT[kind] if field.kind == "u64"]
                histograms = {name: row[f"{name}_latency"].tolist() for name in ("read", "write")}
                return FileTotal(
                    identity,
                    int(row["generation"]),
                    int(row["tgid"]),
                    {name: int(row[name]) for name in plain},
                    histograms,
                )
            case RecordType.OP_TOTAL:
                calls, errors, duration_ns = (int(row[name]) for name in ("calls", "errors", "duration_ns"))
                latency = row["latency"].tolist()
                return OpTotal(int(row["tgid"]), Op(int(row["op"])), calls, errors, duration_ns, latency)
        text = self.text(index, kind, int(row["text_size"]))
        flags = TextFlag(int(row["flags"]))
        if kind is RecordType.STRING:
            base = FileIdentity(int(row["device"]), int(row["inode"])) if row["inode"] else None
            return Text(tid, time_ns, text, flags, base)
        if kind is RecordType.ARGV:
            return Argv(tid, time_ns, text, flags)
        identity = FileIdentity(int(row["device"]), int(row["inode"]))
        mode = int(row["mode"])
        path, generation = path_of(text, identity, mode, flags), int(row["generation"])
        return FileText(tid, time_ns, identity, path, mode, flags, generation)


class Calls:
    """The calls of one block as columns: ``calls["time_ns"]`` is an array, as is every other field of CALL."""

    def __init__(self, columns: dict[str, NDArray[np.generic]]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns["op"])

    def __getitem__(self, name: str) -> NDArray[np.int64]:
        # All columns are whole numbers; those of 64 bits without a sign are identities, which nobody adds up.
        return self._columns[name]  # type: ignore[return-value]

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which calls did nothing: those that returned an error, and those that the kernel was never asked."""
        result = self["result"]
        has_error = (result < 0) & (result > -4096) & (self["op"] != Op.EXIT)
        failed: NDArray[np.bool_] = has_error | ((self["flags"] & CallFlag.DENIED) != 0)
        return failed

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Calls:
        """The calls that a mask, or an array of indices, chooses."""
        return Calls({name: column[chosen] for name, column in self._columns.items()})


class BlockHeader(NamedTuple):
    """What can be known of a block without unpacking it. ``offset`` is where its frames begin, in bytes."""

    offset: int
    calls: int
    notes: int
    note_bytes: int
    packed_notes: int
    packed_calls: int
    reserved: int
    first_call: int
    first_ns: int
    last_ns: int


class Block(NamedTuple):
    """A stretch of the trace. ``calls`` is empty where only the notes were asked for."""

    header: BlockHeader
    calls: Calls
    notes: Notes


class Trace:
    """One trace file. Iterate :meth:`blocks`; afterwards ``is_truncated`` says whether it broke off in a block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                head = file.read(_HEADER.itemsize)
        except OSError as error:
            raise TraceError(f"{path} can't be read: {error.strerror}") from None
        if head[:8] == MAGIC:
            raise TraceError(f"{path} has version 1, which this Bedrock does not read any more")
        if len(head) < _HEADER.itemsize or head[8:16] != MAGIC:
            raise TraceError(f"{path} is no trace of Bedrock's")
        header = np.frombuffer(head, _HEADER)[0]
        if header["version"] != VERSION:
            raise TraceError(f"{path} has version {header['version']}, this Bedrock reads version {VERSION}")
        self._first_block = 8 + int(header["frame_size"])
        self.page_size = int(header["page_size"])
        self.realtime_offset_ns = int(header["realtime_offset_ns"])
        self.is_truncated = False

    def headers(self) -> Iterator[BlockHeader]:
        """Hop from block to block without unpacking any."""
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            at, calls = self._first_block, 0
            while at < size:
                file.seek(at)
                raw = file.read(_BLOCK.itemsize)
                if len(raw) < _BLOCK.itemsize:
                    break
                row = np.frombuffer(raw, _BLOCK)[0]
                if row["frame"] != SKIPPABLE or row["frame_size"] != _BLOCK.itemsize - 8:
                    raise TraceError(f"{self._path} is damaged: no block begins at byte {at}")
                at += _BLOCK.itemsize
                numbers = (int(row[field.name]) for field in BLOCK_HEADER[2:])
                header = BlockHeader(at, *numbers)
                if header.first_call != calls or not header.first_ns <= header.last_ns < 1 << 63:
                    raise TraceError(f"{self._path} is damaged: the head of the block at byte {at} makes no sense")
                calls += header.calls
                at += header.packed_notes + header.packed_calls
                if at > size:
                    break
                yield header
            else:
                self.is_truncated = False
                return
        self.is_truncated = True

    def blocks(self, *, since_ns: int = 0, until_ns: int | None = None) -> Iterator[Block]:
        """Yield the trace from its head to its tail.

        Of blocks whose calls all lie outside ``since_ns`` and ``until_ns`` (on the trace's clock) only the notes are
        unpacked: names that are given there hold further on.
        """
        with self._path.open("rb") as file:
            for header in self.headers():
                is_outside = header.last_ns < since_ns or (until_ns is not None and header.first_ns > until_ns)
                yield self._read(file, header, with_calls=not is_outside)

    def _read(self, file: BinaryIO, header: BlockHeader, *, with_calls: bool) -> Block:
        entry_bytes = header.notes * _ENTRY.itemsize
        file.seek(header.offset)
        raw = self._unpack(file.read(header.packed_notes), entry_bytes + header.note_bytes)
        entries = np.frombuffer(raw, _ENTRY, header.notes)
        notes = Notes(entries, raw[entry_bytes:], header.first_call)
        count = header.calls if with_calls else 0
        columns: dict[str, NDArray[np.generic]] = {}
        raw = b""
        if count:
            raw = self._unpack(file.read(header.packed_calls), count * sum(dtype.itemsize for _, dtype in _COLUMNS))
        at = 0
        for name, dtype in _COLUMNS:
            column: NDArray[np.generic] = np.frombuffer(raw, dtype, count, at) if count else np.empty(0, dtype)
            at += count * dtype.itemsize
            # Times are written as differences, since those are small.
            columns[name] = np.cumsum(column.view(np.int64)) if name == "time_ns" else column
        return Block(header, Calls(columns), notes)

    def _unpack(self, packed: bytes, size: int) -> bytes:
        if size > _MAX_UNPACKED:
            raise TraceError(f"{self._path} is damaged: a block claims to have {size} bytes")
        if not size:
            return b""
        try:
            # What a frame says of itself is allocated without being asked for.
            claimed = zstandard.frame_content_size(packed)
            if claimed not in {-1, size}:
                raise TraceError(f"{self._path} is damaged: a block of {size} bytes claims to have {claimed}")
            raw = zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
        except zstandard.ZstdError as error:
            raise TraceError(f"{self._path} is damaged: {error}") from None
        if len(raw) != size:
            raise TraceError(f"{self._path} is damaged: a block has {len(raw)} bytes instead of {size}")
        return raw


def resolve(base: bytes | None, raw: bytes) -> bytes | None:
    """The path that a raw argument names, counted from the directory ``base``; None when that is not known.

    An absolute argument counts from ``base`` too where there is one: that of a process that has changed its root. Dots
    are taken out as text: a symbolic link on the way is not followed, since the kernel's look-up was not recorded.
    """
    if not raw:
        return base
    if not raw.startswith(b"/") and base is None:
        return None
    path = posixpath.normpath(raw if base is None else base + b"/" + raw)
    return b"/" + path.lstrip(b"/")


_NUMBERED = {0o010000: b"pipe", 0o140000: b"socket"}


def path_of(text: bytes, identity: FileIdentity, mode: int, flags: TextFlag) -> bytes:
    """The path in the text of a FILE record: its components turned round, since the kernel gives the last one first."""
    if flags & TextFlag.PATHLESS:
        kind = _NUMBERED.get(mode & 0o170000)
        return b"anon:" + text.removesuffix(b"/") if kind is None else kind + b":[%d]" % identity.inode
    components = text.removesuffix(b"/").split(b"/") if text else []
    path = b"/" + b"/".join(reversed(components))
    return b"(outside)" + path if flags & TextFlag.OUTSIDE and components else path


def text_of(raw: bytes) -> str:
    """Bytes from the kernel as text: what is no UTF-8 is shown as escapes (``\\xff``)."""
    return raw.decode("utf-8", "backslashreplace")
