"""The layout of a trace: the one source from which the C header and the decoder's types are made.

A trace is a file header, then records. Every record begins with its size in bytes and its type, so that a reader can
step over what it does not know; sizes are multiples of 8 and numbers are little-endian. Times are nanoseconds of
CLOCK_MONOTONIC, device numbers are the kernel's own encoding (major << 20 | minor), thread and process ids are the
host's; PROCESS records translate them to those of the container.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

MAGIC = b"BEDROCKT"
VERSION = 1


class RecordType(enum.IntEnum):
    CALL = 1  # one system call, or one event of a process's life
    FILE = 2  # which path an inode has, seen from the container's root; precedes the calls that refer to it
    STRING = 3  # the raw path argument of the CALL of the same thread and time
    ARGV = 4  # the argument vector of the exec of the same thread, NUL-separated
    PROCESS = 5  # a thread that has not been seen before
    START = 6  # the head of the trace: written before the target may run
    END = 7  # the tail: written after the last record has been drained


class Op(enum.IntEnum):
    """What a CALL did. One number for each system call, so that nothing is merged that a reader may want apart."""

    OPEN = 1
    OPENAT = 2
    OPENAT2 = 3
    CREAT = 4
    CLOSE = 5
    READ = 6
    PREAD64 = 7
    READV = 8
    PREADV = 9
    PREADV2 = 10
    WRITE = 11
    PWRITE64 = 12
    WRITEV = 13
    PWRITEV = 14
    PWRITEV2 = 15
    LSEEK = 16
    MMAP = 17
    DUP = 18
    DUP2 = 19
    DUP3 = 20
    FCNTL_DUPFD = 21
    EXECVE = 22
    EXECVEAT = 23
    FORK = 24
    EXIT = 25
    SENDFILE = 26  # this and the next two are two records each: what was read, and with TO_FILE what was written
    COPY_FILE_RANGE = 27
    SPLICE = 28
    # From here on the loader's table says which argument is which: see fill_shapes in bdtrace.c.
    STAT = 29
    LSTAT = 30
    FSTAT = 31
    NEWFSTATAT = 32
    STATX = 33
    ACCESS = 34
    FACCESSAT = 35
    FACCESSAT2 = 36
    READLINK = 37
    READLINKAT = 38
    GETDENTS = 39
    GETDENTS64 = 40
    TRUNCATE = 41
    FTRUNCATE = 42
    FALLOCATE = 43
    FSYNC = 44
    FDATASYNC = 45
    RENAME = 46
    RENAMEAT = 47
    RENAMEAT2 = 48
    UNLINK = 49
    UNLINKAT = 50
    LINK = 51
    LINKAT = 52
    SYMLINK = 53
    SYMLINKAT = 54
    MKDIR = 55
    MKDIRAT = 56
    RMDIR = 57
    CHMOD = 58
    FCHMOD = 59
    FCHMODAT = 60
    CHOWN = 61
    LCHOWN = 62
    FCHOWN = 63
    FCHOWNAT = 64
    CHDIR = 65
    FCHDIR = 66


class CallFlag(enum.IntFlag):
    HAS_FILE = 1  # device and inode are set
    HAS_OFFSET = 2  # offset is set: the file has positions
    OFFSET_SHARED = 4  # the position was moved by somebody else during the call: offset is the kernel's after it
    APPEND = 8
    GROUP_DEAD = 16  # of EXIT: the last thread of its process
    TO_FILE = 64  # of SENDFILE, COPY_FILE_RANGE, SPLICE: the file that was written to
    FROM_BASE = 128  # device and inode are those of the directory from which the raw path counts
    REQUEST_CUT = 32  # a vector with more entries than are added up: requested is a lower bound


class TextFlag(enum.IntFlag):
    CUT = 1  # longer than is kept
    DELETED = 2  # of FILE: the name was gone already
    UNREADABLE = 4  # of STRING and ARGV: the memory could not be read
    OUTSIDE = 8  # of FILE: not below the container's root
    SECOND = 16  # of STRING: the second path of a call that has two


class Cause(enum.IntEnum):
    """Why a record is missing, or not whole. ``lost`` of a verdict uses the names in lower case."""

    RING_FULL = 0
    MAP_FULL = 1
    WRITE_ERROR = 2
    STRING_CUT = 3
    READ_FAULT = 4


# The causes after which a record is not in the trace; after the others it is, with less in it.
DROPPING = (Cause.RING_FULL, Cause.MAP_FULL, Cause.WRITE_ERROR)


class Field(NamedTuple):
    name: str
    kind: str  # u16, u32, u64, i32 or i64
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
        Field("inode", "u64", "of the file, with HAS_FILE"),
        Field("offset", "i64", "in bytes, with HAS_OFFSET; of MMAP and LSEEK the argument"),
        Field("requested", "u64", "bytes asked for"),
        Field("arg", "u64", "open flags; lseek whence; prot | flags << 32; the other descriptor; child's process"),
        Field("device", "u32", "of the file, with HAS_FILE"),
        Field("fd", "i32", "descriptor, or -1"),
        Field("tgid", "u32", "process on the host"),
        Field("op", "u16", "Op"),
        Field("flags", "u16", "CallFlag"),
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
    ],
    RecordType.STRING: [
        *_HEAD,
        Field("text_size", "u32", "bytes of text behind this"),
        Field("flags", "u32", "TextFlag"),
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
    ],
    RecordType.START: [
        *_HEAD,
        Field("namespace", "u32", "inode of the target's PID namespace"),
        Field("level", "u32", ""),
    ],
    RecordType.END: [
        *_HEAD,
        Field("seen", "u64", "records that the probes made or tried to make"),
        Field("written", "u64", ""),
    ],
}

FILE_HEADER = [
    Field("magic", "u64", "BEDROCKT"),
    Field("version", "u32", ""),
    Field("header_size", "u32", "bytes; the first record follows"),
    Field("realtime_offset_ns", "i64", "CLOCK_REALTIME minus CLOCK_MONOTONIC"),
]

_SHAPE = ("path", "second", "base", "fd", "size", "arg")

_NUMPY = {"u16": "<u2", "u32": "<u4", "u64": "<u8", "i32": "<i4", "i64": "<i8"}
_C = {"u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t", "i32": "int32_t", "i64": "int64_t"}


def dtype_of(fields: list[Field]) -> np.dtype[np.void]:
    """The numpy type of a record's fixed part."""
    spec: DTypeLike = [(field.name, _NUMPY[field.kind]) for field in fields]
    return np.dtype(spec)


def c_header() -> str:
    """The text of ``bdt_format.h``."""
    lines = ["/* Generated from bedrock/tracer/format.py; see there for what each field means. */", "#pragma once", ""]
    lines += [f"#define BDT_MAGIC 0x{int.from_bytes(MAGIC, 'little'):x}ULL", f"#define BDT_VERSION {VERSION}", ""]
    for kind in (RecordType, Op, CallFlag, TextFlag, Cause):
        prefix = {"RecordType": "REC", "Op": "OP", "CallFlag": "CALL", "TextFlag": "TEXT", "Cause": "CAUSE"}[
            kind.__name__
        ]
        lines += ["enum {", *(f"\tBDT_{prefix}_{item.name} = {item.value}," for item in kind), "};", ""]
    lines += [f"#define BDT_CAUSES {len(Cause)}", f"#define BDT_OPS {max(Op) + 1}", ""]
    for name, fields in [
        ("file_header", FILE_HEADER),
        *((kind.name.lower(), fields) for kind, fields in LAYOUT.items()),
    ]:
        lines += [f"struct bdt_{name} {{", *(f"\t{_C[field.kind]} {field.name};" for field in fields), "};"]
        size = dtype_of(fields).itemsize
        lines += [f'_Static_assert(sizeof(struct bdt_{name}) == {size}, "layout of bdt_{name}");', ""]
    lines += ["/* Which argument of a call is what, counted from 1; 0 for none. */", "struct bdt_shape {"]
    lines += [*(f"\tuint8_t {name};" for name in _SHAPE), "};", ""]
    return "\n".join(lines)
