"""The columns of a trace's calls in every export: name, type and meaning."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from bedrock.tracer.format import CallFlag

TEXT = pa.dictionary(pa.int32(), pa.string())


class Column(NamedTuple):
    name: str
    kind: pa.DataType
    meaning: str


# What a call can be marked with; docs/reference/trace-marks.md says what each proves.
MARKS: dict[CallFlag, Column] = {
    flag: Column(name, pa.bool_(), meaning)
    for flag, name, meaning in (
        (CallFlag.APPEND, "append", "the file was open to append: a write went to its end, whatever offset was given"),
        (CallFlag.OFFSET_SHARED, "offset_shared", "somebody else moved the file's position during the call"),
        (CallFlag.TO_FILE, "to_file", "of sendfile, copy_file_range, splice: this is the side that was written to"),
        (
            CallFlag.DEVICE,
            "from_device",
            "of a read: the page cache alone did not serve it; pages were brought in while it ran",
        ),
        (CallFlag.FOR_WRITE, "for_write", "of a fault: the page was written to, and the file with it unless private"),
        (
            CallFlag.PRIVATE,
            "private",
            "of a fault: the mapping is private, so what is written changes a copy",
        ),
        (CallFlag.DENIED, "denied", "a seccomp filter has answered it instead of the kernel, whatever the result says"),
        (CallFlag.UNFINISHED, "unfinished", "of a request: how it ended was not seen, so there is no result"),
        (
            CallFlag.ARGUMENT_CHANGED,
            "argument_changed",
            "a path argument read differently when the call returned than when it began",
        ),
        (
            CallFlag.ARGUMENT_LATE,
            "argument_late",
            "a path argument was not in memory when the call began; it was read when the call returned",
        ),
    )
}

COLUMNS = [
    Column("t_ns", pa.int64(), "when the call began, in ns since the target was let go"),
    Column(
        "duration_ns", pa.int64(), "until it returned, in ns; 0 for what has no duration (fork, exit, fault, core_dump)"
    ),
    Column("pid", pa.int32(), "process, in the container's own numbers"),
    Column("tid", pa.int32(), "thread, in the container's own numbers"),
    Column("process", pa.int32(), "number of the process in this trace: tells apart processes that had one pid"),
    Column("program", TEXT, "what the process runs, as it was given to exec"),
    Column("op", TEXT, "the system call, or fork, exit, fault, page_in, uring_..."),
    Column(
        "result",
        pa.int64(),
        "what it returned; null when it failed or is not known. Of exit the status as in wait(2), of fork the child's "
        "thread",
    ),
    Column("error", TEXT, "why it failed, as in errno(3); ERESTART...: a signal interrupted it"),
    Column("fd", pa.int32(), "descriptor"),
    Column(
        "file",
        pa.int64(),
        "number of the file in this trace: the same for two calls exactly when they are on the same file",
    ),
    Column("path", TEXT, "the file, as the container sees it; where there is none what raw names, links not followed"),
    Column("raw", pa.string(), "the path argument as it was given"),
    Column(
        "second", pa.string(), "the second path of a call that has two; what a symlink says; the name of an attribute"
    ),
    Column("second_raw", pa.string(), "the same as it was given"),
    Column("argv", pa.list_(pa.string()), "of execve: the argument vector"),
    Column("offset", pa.int64(), "where in the file it began, in bytes; of lseek and mmap the argument"),
    Column("requested", pa.int64(), "bytes asked for"),
    *MARKS.values(),
    Column("device", pa.uint32(), "of the file: major << 20 | minor"),
    Column("inode", pa.uint64(), "of the file"),
    Column(
        "arg",
        pa.uint64(),
        "open flags; mode, owner, flags or advice; lseek whence; mmap prot | flags << 32; other descriptor; of fork "
        "the child's process; address; opcode",
    ),
]
SCHEMA = pa.schema([pa.field(name, kind, metadata={"description": text}) for name, kind, text in COLUMNS])
