"""A trace call by call: as Arrow batches for programs, as values and lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bedrock.printable import printable
from bedrock.trace.columns import NONE
from bedrock.trace.decode import Trace
from bedrock.trace.errnos import error_name
from bedrock.trace.names import Names, Rows, read_rows
from bedrock.trace.schema import MARKS, SCHEMA
from bedrock.tracer.format import CallFlag
from bedrock.tracer.operations import MAX_OPS, Op, name_of


class Event(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One call; :data:`bedrock.trace.schema.COLUMNS` says what each field means. What does not apply is left out."""

    t_ns: int
    duration_ns: int = 0
    pid: int = 0
    tid: int = 0
    process: int | None = None
    program: str | None = None
    op: str
    result: int | None = None
    error: str | None = None
    fd: int | None = None
    file: int | None = None
    path: str | None = None
    raw: str | None = None
    second: str | None = None
    second_raw: str | None = None
    argv: list[str] | None = None
    offset: int | None = None
    requested: int | None = None
    append: bool = False
    offset_shared: bool = False
    to_file: bool = False
    from_device: bool = False
    for_write: bool = False
    private: bool = False
    denied: bool = False
    unfinished: bool = False
    argument_changed: bool = False
    argument_late: bool = False
    device: int | None = None
    inode: int | None = None
    arg: int | None = None


_WITH_SIZE = np.zeros(256, bool)
_WITH_SIZE[
    [
        *range(Op.READ, Op.PWRITEV2 + 1), Op.MMAP, Op.MUNMAP, Op.MSYNC, Op.FAULT, Op.SENDFILE, Op.COPY_FILE_RANGE,
        Op.SPLICE, Op.READLINK, Op.READLINKAT, Op.GETDENTS, Op.GETDENTS64, Op.TRUNCATE, Op.FTRUNCATE, Op.FALLOCATE,
        Op.URING_READ, Op.URING_WRITE, Op.URING_FALLOCATE, Op.URING_TRUNCATE, *range(Op.GETXATTR, Op.FSETXATTR + 1),
        Op.READAHEAD, Op.FADVISE64, Op.SYNC_FILE_RANGE, Op.LISTXATTRAT, Op.AIO_READ, Op.AIO_WRITE,
    ]
] = True  # fmt: skip
_OP_NAMES = pa.array([name_of(number) for number in range(MAX_OPS)])
_ERRORS = [error_name(number) for number in range(4096)]


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield a trace as batches of :data:`bedrock.trace.schema.SCHEMA`, in the order in which the calls returned.

    Memory is bounded by the largest block and the number of names. Raises :class:`bedrock.trace.layouts.TraceError`.
    """
    names = Names()
    for rows in read_rows(Trace(path), names):
        if len(rows.calls):
            yield batch_of(rows, names)


def batch_of(rows: Rows, names: Names) -> pa.RecordBatch:
    """The calls of one block as a batch of :data:`bedrock.trace.schema.SCHEMA`."""
    calls, count = rows.calls, len(rows.calls)
    op, flags, result = calls["op"], calls["flags"], calls["result"]
    has_error = (result < 0) & (result > -4096) & (op != Op.EXIT)
    unknown = has_error | ((flags & CallFlag.UNFINISHED) != 0)
    has_file = (flags & CallFlag.HAS_FILE) != 0
    has_offset = ((flags & CallFlag.HAS_OFFSET) != 0) | (op == Op.LSEEK) | (op == Op.MMAP)
    t0_ns = names.start.time_ns if names.start is not None else 0
    tasks = _Tasks(rows.task, names)
    vectors: list[list[str] | None] | None = None
    if rows.argv:
        vectors = [None] * count
        for row, words in rows.argv.items():
            vectors[row] = words

    def number(values: NDArray[Any], kind: pa.DataType, absent: NDArray[np.bool_] | None = None) -> pa.Array:
        return pa.array(values, mask=absent).cast(kind, safe=False)

    # Most blocks have no call with most of the marks.
    used, unmarked = int(np.bitwise_or.reduce(flags)), pa.array(np.zeros(count, bool))

    def mark(bit: CallFlag) -> pa.Array:
        return pa.array((flags & bit) != 0) if used & bit else unmarked

    return pa.RecordBatch.from_arrays(
        [
            number(calls["time_ns"] - t0_ns, pa.int64()),
            number(calls["duration_ns"], pa.int64()),
            number(tasks.pid, pa.int32()),
            number(tasks.tid, pa.int32()),
            number(rows.process, pa.int32(), rows.process == NONE),
            _texts(tasks.program, names),
            pa.DictionaryArray.from_arrays(pa.array(op.astype(np.int32)), _OP_NAMES),
            number(result, pa.int64(), unknown),
            _errors(result, has_error),
            number(calls["fd"], pa.int32(), calls["fd"] < 0),
            number(rows.file, pa.int64(), rows.file == NONE),
            _texts(rows.path, names),
            _texts(rows.raw, names).dictionary_decode(),
            _texts(rows.second, names).dictionary_decode(),
            _texts(rows.second_raw, names).dictionary_decode(),
            pa.nulls(count, pa.list_(pa.string())) if vectors is None else pa.array(vectors, pa.list_(pa.string())),
            number(calls["offset"], pa.int64(), ~has_offset),
            number(calls["requested"], pa.int64(), ~_WITH_SIZE[op]),
            *(mark(bit) for bit in MARKS),
            number(calls["device"], pa.uint32(), ~has_file),
            number(calls["inode"], pa.uint64(), ~has_file),
            number(calls["arg"], pa.uint64(), calls["arg"] == 0),
        ],
        schema=SCHEMA,
    )


class _Tasks:
    """Of the rows' tasks what each row shows of its own."""

    def __init__(self, numbers: NDArray[np.int64], names: Names) -> None:
        tasks = names.tasks
        # The last row of these tables answers for NONE, which is -1.
        self.pid = np.array([*(task.pid for task in tasks), 0], np.int64)[numbers]
        self.tid = np.array([*(task.tid for task in tasks), 0], np.int64)[numbers]
        self.program = np.array([*(task.program for task in tasks), NONE], np.int64)[numbers]


def _texts(numbers: NDArray[np.int64], names: Names) -> pa.DictionaryArray:
    used, codes = np.unique(numbers, return_inverse=True)
    shift = 1 if len(used) and used[0] == NONE else 0
    texts = pa.array([names.texts[number] for number in used[shift:].tolist()], pa.string())
    indices = codes.astype(np.int32) - shift
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=indices < 0), texts)


def _errors(result: NDArray[np.int64], failed: NDArray[np.bool_]) -> pa.DictionaryArray:
    used, codes = np.unique(np.where(failed, -result, 0), return_inverse=True)
    texts = pa.array([_ERRORS[number] for number in used.tolist()], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=~failed), texts)


def read_events(path: Path) -> Iterator[Event]:
    """Yield the calls one by one. Raises :class:`bedrock.trace.layouts.TraceError`."""
    for batch in read_batches(path):
        yield from events_of(batch)


def events_of(batch: pa.RecordBatch) -> Iterator[Event]:
    """The rows of a batch as values."""
    for row in batch.to_pylist():
        yield Event(**row)


def marks_of(event: Event) -> list[str]:
    """The names of the marks that a call has."""
    return [mark.name for mark in MARKS.values() if getattr(event, mark.name)]


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
    words += marks_of(event)
    words.append(f"= {'?' if event.result is None else event.result}" if event.error is None else f"= {event.error}")
    return printable(" ".join(words))
