"""The layout of a trace: the one source from which the C header and the decoder's types are made.

A trace is a file header and blocks, all of them frames of the zstd format (RFC 8878), so that ``zstd -dc`` reads it.
The header is a skippable frame. A block is a skippable frame that says what is in the block and how long it is, so that
a reader can hop from block to block, and two compressed frames, of which one may be empty and left out:

1. the notes: all records but calls. First for each of them two 32-bit numbers (at which byte of the notes it begins,
   how many calls of the block came before it), then the notes themselves. Each begins with its size in bytes and its
   type, so that a reader can step over what it does not know; sizes are multiples of 8;
2. the calls, as columns: for each field of CALL but size and type, in order, its value for all calls. Of ``time_ns``
   the first value is whole and each further one is the difference to the one before (signed, 64 bits).

Numbers are little-endian. Times are nanoseconds of CLOCK_MONOTONIC, device numbers are the kernel's own encoding
(major << 20 | minor), thread and process ids are the host's; PROCESS records translate them to those of the container.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

MAGIC = b"BEDROCKT"
VERSION = 3
SKIPPABLE = 0x184D2A50  # the magic number of a skippable frame, RFC 8878 3.1.2
HISTOGRAM_BUCKETS = 32  # bucket n counts durations of 2**n up to 2**(n + 1) nanoseconds; the last one all above, too
MAX_PREFIXES = 8  # paths that a session may ask for
MAX_PREFIX_BYTES = 256  # a power of two, for the verifier's sake


class Mode(enum.IntEnum):
    """What a trace holds."""

    EVENTS = 1  # each call
    SUMMARY = 2  # calls counted in the kernel: FILE_TOTAL and OP_TOTAL


class RecordType(enum.IntEnum):
    CALL = 1  # one system call, or one event of a process's life
    FILE = 2  # which path an inode has, seen from the container's root; precedes the calls that refer to it
    STRING = 3  # the raw path argument of the CALL of the same thread and time
    ARGV = 4  # the argument vector of the exec of the same thread, NUL-separated
    PROCESS = 5  # a thread that has not been seen before
    START = 6  # the head of the trace: written before the target may run
    END = 7  # the tail: written after the last record has been drained
    FILE_TOTAL = 8  # in mode SUMMARY: what one process did with one file
    OP_TOTAL = 9  # in mode SUMMARY: how often one process made one system call


class CallFlag(enum.IntFlag):
    HAS_FILE = 1  # device and inode are set
    HAS_OFFSET = 2  # offset is set: the file has positions
    OFFSET_SHARED = 4  # the position was moved by somebody else during the call: offset is the kernel's after it
    APPEND = 8
    GROUP_DEAD = 16  # of EXIT: the last thread of its process
    TO_FILE = 64  # of SENDFILE, COPY_FILE_RANGE, SPLICE: the file that was written to
    FROM_BASE = 128  # device and inode are those of the directory from which the raw path counts
    REQUEST_CUT = 32  # a vector with more entries than are added up: requested is a lower bound
    DEVICE = 256  # of a read: the page cache did not have it all; what it lacked came from the device, but for holes
    FOR_WRITE = 512  # of FAULT: the page was written to, and the file with it unless PRIVATE
    DENIED = 1024  # a seccomp filter has answered it instead of the kernel, whatever the result says
    UNFINISHED = 2048  # of a request: how it ended was not seen, so result and duration mean nothing
    PRIVATE = 4096  # of FAULT: the mapping is private, so what is written changes a copy and not the file
    ARGUMENT_CHANGED = 8192  # a path argument read differently when the call returned than when it began
    ARGUMENT_LATE = 16384  # a path argument was not in memory when the call began; it was read when the call returned
    IN_ROOT = 32768  # of OPENAT2 with RESOLVE_IN_ROOT: no path leads above the directory from which it counts


class TextFlag(enum.IntFlag):
    CUT = 1  # longer than is kept
    DELETED = 2  # of FILE: the name was gone already
    UNREADABLE = 4  # of STRING and ARGV: the memory could not be read
    OUTSIDE = 8  # of FILE: not below the container's root
    PATHLESS = 64  # of FILE: it has no path, but perhaps a name: a pipe, a socket, shared memory, an eventfd
    SECOND = 16  # of STRING: the second path of a call that has two, or the name of an extended attribute
    MORE = 32  # of ARGV: the next ARGV of the same thread and time goes on where this one ends


class Field(NamedTuple):
    name: str
    kind: str  # u16, u32, u64, i32 or i64; with [N] behind it, N of them
    meaning: str


_HEAD = [
    Field("size", "u16", "bytes of the whole record"),
    Field("type", "u16", "RecordType"),
    Field("tid", "u32", "thread on the host"),
    Field("time_ns", "u64", "when the call began"),
]

LAYOUT: dict[RecordType, list[Field]] = {
    RecordType.CALL: [
        *_HEAD,
        Field("duration_ns", "u64", "until it returned"),
        Field("result", "i64", "what it returned, or minus the errno"),
        Field("inode", "u64", "of the file, with HAS_FILE; of one without a path some bits of its name are in it, too"),
        Field("offset", "i64", "in bytes, with HAS_OFFSET; of MMAP and LSEEK the argument"),
        Field("requested", "u64", "bytes asked for"),
        Field(
            "arg",
            "u64",
            "open flags; mode, owner, flags or advice; lseek whence; prot | flags << 32; the other descriptor; "
            "child's process; address; opcode",
        ),
        Field("device", "u32", "of the file, with HAS_FILE"),
        Field("link", "u32", "tells apart the names (hard links) of one inode; the FILE of the name has the same"),
        Field("fd", "i32", "descriptor, or -1"),
        Field("tgid", "u32", "process on the host"),
        Field("flags", "u32", "CallFlag"),
        Field("op", "u16", "Op"),
        Field("reserved", "u16", ""),
    ],
    RecordType.FILE: [
        *_HEAD,
        Field("inode", "u64", ""),
        Field("device", "u32", ""),
        Field("mode", "u32", "st_mode"),
        Field(
            "text_size", "u32", "bytes of text behind this: path components, the last one first, each with a / behind"
        ),
        Field("flags", "u32", "TextFlag"),
        Field("generation", "u32", "another one, but not 0: another file to which the number of the inode was given"),
        Field("link", "u32", "of the name; see CALL"),
    ],
    RecordType.STRING: [
        *_HEAD,
        Field("text_size", "u32", "bytes of text behind this"),
        Field("flags", "u32", "TextFlag"),
        Field("inode", "u64", "with SECOND, of the directory from which the path counts; 0: from the root"),
        Field("device", "u32", "of that directory"),
        Field("link", "u32", "of that directory"),
    ],
    RecordType.ARGV: [
        *_HEAD,
        Field("text_size", "u32", "bytes of text behind this"),
        Field("flags", "u32", "TextFlag"),
    ],
    RecordType.PROCESS: [
        *_HEAD,
        Field("tgid", "u32", "process on the host"),
        Field("parent", "u32", "process on the host that made this one"),
        Field("container_tid", "u32", "thread as the container sees it"),
        Field("container_pid", "u32", "process as the container sees it"),
        Field("comm_low", "u64", "name, first 8 bytes"),
        Field("comm_high", "u64", "name, last 8 bytes"),
        Field("started_ns", "u64", "when the process began; tells apart processes that had the same number"),
    ],
    RecordType.START: [
        *_HEAD,
        Field("namespace", "u32", "inode of the target's PID namespace"),
        Field("level", "u32", ""),
        Field("mode", "u32", "Mode"),
        Field("is_filtered", "u32", "1: not all files, or not all classes of events, were asked for"),
        Field("unsupported", "u32", "Feature: what the probes can't see on this kernel"),
        Field("reserved", "u32", ""),
    ],
    RecordType.END: [
        *_HEAD,
        Field("seen", "u64", "records that the probes made or tried to make"),
        Field("written", "u64", ""),
    ],
    RecordType.FILE_TOTAL: [
        *_HEAD,
        Field("inode", "u64", ""),
        Field("device", "u32", ""),
        Field("tgid", "u32", "process on the host"),
        Field("generation", "u32", "as of FILE"),
        Field("link", "u32", "as of FILE"),
        Field("started_ns", "u64", "when the process began"),
        Field("opens", "u64", ""),
        Field("reads", "u64", "that succeeded, as all of these"),
        Field("read_bytes", "u64", ""),
        Field("read_ns", "u64", "time spent in them"),
        Field("writes", "u64", ""),
        Field("written_bytes", "u64", ""),
        Field("write_ns", "u64", ""),
        Field("maps", "u64", ""),
        Field("faults", "u64", ""),
        Field("others", "u64", "calls of every other kind"),
        Field("first_ns", "u64", "when the first of them began"),
        Field("last_ns", "u64", "when the last of them began"),
        Field("read_latency", f"u32[{HISTOGRAM_BUCKETS}]", "calls by duration"),
        Field("write_latency", f"u32[{HISTOGRAM_BUCKETS}]", "calls by duration"),
    ],
    RecordType.OP_TOTAL: [
        *_HEAD,
        Field("tgid", "u32", "process on the host"),
        Field("op", "u32", "Op"),
        Field("started_ns", "u64", "when the process began"),
        Field("calls", "u64", ""),
        Field("errors", "u64", "of them"),
        Field("duration_ns", "u64", ""),
        Field("latency", f"u32[{HISTOGRAM_BUCKETS}]", "calls by duration"),
    ],
}

# The columns of a block's calls.
COLUMNS = [field for field in LAYOUT[RecordType.CALL][2:] if field.name != "reserved"]

_FRAME = [Field("frame", "u32", f"0x{SKIPPABLE:x}"), Field("frame_size", "u32", "bytes behind this field")]

FILE_HEADER = [
    *_FRAME,
    Field("magic", "u64", "BEDROCKT"),
    Field("version", "u32", ""),
    Field("page_size", "u32", "bytes"),
    Field("realtime_offset_ns", "i64", "CLOCK_REALTIME minus CLOCK_MONOTONIC"),
]

BLOCK_HEADER = [
    *_FRAME,
    Field("calls", "u32", ""),
    Field("notes", "u32", ""),
    Field("note_bytes", "u32", ""),
    Field("packed_notes", "u32", "bytes of the first compressed frame"),
    Field("packed_calls", "u32", "bytes of the second"),
    Field("reserved", "u32", ""),
    Field("first_call", "u64", "how many calls the blocks before this one have"),
    Field("first_ns", "u64", "time of the earliest call; of the first note where there is none"),
    Field("last_ns", "u64", "time of the latest call; the same where there is none"),
]

NOTE_ENTRY = [Field("offset", "u32", "in the notes"), Field("calls_before", "u32", "in this block")]

_NUMPY = {"u16": "<u2", "u32": "<u4", "u64": "<u8", "i32": "<i4", "i64": "<i8"}


def split_kind(kind: str) -> tuple[str, int]:
    """A field's element type and how many of them there are, 0 for a plain number."""
    name, _, count = kind.partition("[")
    return name, int(count[:-1] or 0) if count else 0


def size_of(fields: list[Field]) -> int:
    """The bytes of a record's fixed part."""
    size = 0
    for field in fields:
        name, count = split_kind(field.kind)
        size += int(name[1:]) // 8 * max(count, 1)
    return size


def dtype_of(fields: list[Field]) -> np.dtype[np.void]:
    """The numpy type of a record's fixed part."""
    # Nodes use this module, and none of them needs numpy, which takes 30 MB and a third of a second.
    import numpy as np

    spec: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
    for field in fields:
        name, count = split_kind(field.kind)
        spec.append((field.name, _NUMPY[name], (count,)) if count else (field.name, _NUMPY[name]))
    return np.dtype(cast("DTypeLike", spec))
