"""A trace in numbers: per file, per process, per system call. In memory that grows with the number of files only."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from bedrock.trace.columns import NONE
from bedrock.trace.decode import Trace
from bedrock.trace.names import Names, Rows, read_rows
from bedrock.trace.notes import FileTotal, OpTotal
from bedrock.tracer.format import HISTOGRAM_BUCKETS, CallFlag, RecordType
from bedrock.tracer.operations import Op, name_of

OPENS = (Op.OPEN, Op.OPENAT, Op.OPENAT2, Op.CREAT, Op.URING_OPEN)
READS = (Op.READ, Op.PREAD64, Op.READV, Op.PREADV, Op.PREADV2, Op.URING_READ, Op.AIO_READ)
WRITES = (Op.WRITE, Op.PWRITE64, Op.WRITEV, Op.PWRITEV, Op.PWRITEV2, Op.URING_WRITE, Op.AIO_WRITE)
MOVES = (Op.SENDFILE, Op.COPY_FILE_RANGE, Op.SPLICE)
EXECS = (Op.EXECVE, Op.EXECVEAT)


class FileUse(msgspec.Struct, kw_only=True):
    """What was done to one file. Bytes are bytes, uses are seconds since the target was let go.

    ``path`` is the last name of the file that is known, ``aliases`` are all others that it had; ``is_gone`` says that
    the last one was removed, or given to another file. ``file`` is the file's number in this trace, as in its exports:
    it tells apart what had the same path, or the same device and inode, one after the other.
    """

    file: int
    path: str
    device: int
    inode: int
    kind: str
    opens: int = 0
    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    written_bytes: int = 0
    maps: int = 0
    faults: int = 0
    device_reads: int = 0
    executions: int = 0
    others: int = 0
    first_use_s: float = 0.0
    last_use_s: float = 0.0
    aliases: list[str] = []
    is_gone: bool = False


class FailedOpen(msgspec.Struct, kw_only=True):
    """A path that could not be opened, as the container sees it, and how often."""

    path: str
    errno: int
    count: int


class OpUse(msgspec.Struct, kw_only=True):
    """One system call: how often it was made and how long it took. Bucket n of ``latency`` has 2**n to 2**(n+1) ns."""

    op: str
    calls: int = 0
    errors: int = 0
    duration_ns: int = 0
    latency: list[int] = []


class ProcessUse(msgspec.Struct, kw_only=True):
    """One process, in the container's own numbers. ``exit_status`` is as in wait(2).

    ``process`` is its number in this trace, as in its exports, which tells apart processes that had one ``pid``;
    ``parent_process`` is that of the process that made it, or None.
    """

    process: int
    pid: int
    parent: int
    parent_process: int | None = None
    name: str
    argv: list[str] = []
    exit_status: int | None = None
    calls: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


class TraceSummary(msgspec.Struct, kw_only=True):
    events: int
    is_whole: bool  # it has its end mark and does not break off
    mode: str  # events, or summary: counted in the kernel, without the single calls
    files: list[FileUse]
    failed_opens: list[FailedOpen]
    processes: list[ProcessUse]
    ops: list[OpUse]
    unsupported: list[str] = []  # what this kernel did not let the tracer see


_COUNTED = ("opens", "reads", "read_bytes", "writes", "written_bytes", "maps", "faults", "device_reads", "executions",
            "others")  # fmt: skip
_NEVER = np.iinfo(np.int64).max


class Adder:
    """Adds the blocks of a trace up, as they come."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.events = 0
        self._counts = {name: np.zeros(0, np.int64) for name in _COUNTED}
        self._first = np.full(0, _NEVER, np.int64)
        self._last = np.full(0, -1, np.int64)
        self._failed: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._argv: dict[int, list[str]] = {}
        self._exits: dict[int, int] = {}
        self._processes: dict[str, NDArray[np.int64]] = {
            name: np.zeros(0, np.int64) for name in ("calls", "read_bytes", "written_bytes")
        }
        self._ops = {name: np.zeros(256, np.int64) for name in ("calls", "errors", "duration_ns")}
        self._latency = np.zeros((256, HISTOGRAM_BUCKETS), np.int64)

    def add(self, rows: Rows) -> None:
        calls = rows.calls
        self.events += len(calls) + len(rows.notes)
        self._grow()
        self._add_totals(rows)
        if not len(calls):
            return
        op, result = calls["op"], calls["result"]
        failed = rows.failed
        to_file = (calls["flags"] & CallFlag.TO_FILE) != 0
        moved = is_one_of(op, MOVES)
        is_read, is_write = (is_one_of(op, READS) | moved & ~to_file), (is_one_of(op, WRITES) | moved & to_file)
        self._add_ops(rows, failed, to_file)
        self._add_files(rows, failed, is_read, is_write)
        self._add_processes(rows, failed, is_read, is_write)
        # These were added up as successes, with their own block.
        self._ops["errors"][Op.FAULT] += len(rows.failed_earlier)
        for number in rows.failed_earlier:
            self._counts["faults"][number] -= 1
            self._counts["others"][number] += 1
        for row in np.flatnonzero(is_one_of(op, OPENS) & failed & (rows.path != NONE)).tolist():
            self._failed[int(rows.path[row]), -int(result[row])] += 1
        for row, argv in rows.argv.items():
            if not failed[row]:
                self._argv[int(rows.process[row])] = argv
        for row in np.flatnonzero((op == Op.EXIT) & ((calls["flags"] & CallFlag.GROUP_DEAD) != 0)).tolist():
            self._exits[int(rows.process[row])] = int(result[row])

    def _grow(self) -> None:
        """Tables have a place for every file and process that is known by now."""
        files, processes = len(self._names.files), len(self._names.processes.starts)
        self._counts = {name: _longer(column, files, 0) for name, column in self._counts.items()}
        self._first, self._last = _longer(self._first, files, _NEVER), _longer(self._last, files, -1)
        self._processes = {name: _longer(column, processes, 0) for name, column in self._processes.items()}

    def _add_ops(self, rows: Rows, failed: NDArray[np.bool_], to_file: NDArray[np.bool_]) -> None:
        # A call with two sides is one call.
        chosen = ~to_file
        op, duration = rows.calls["op"][chosen], rows.calls["duration_ns"][chosen]
        self._ops["calls"] += np.bincount(op, minlength=256)
        self._ops["errors"] += np.bincount(op[failed[chosen]], minlength=256)
        self._ops["duration_ns"] += _sums(op, duration, 256)
        buckets = bucket_of(duration)
        flat = np.bincount(op.astype(np.int64) * HISTOGRAM_BUCKETS + buckets, minlength=256 * HISTOGRAM_BUCKETS)
        self._latency += flat.reshape(256, HISTOGRAM_BUCKETS)

    def _add_files(
        self, rows: Rows, failed: NDArray[np.bool_], is_read: NDArray[np.bool_], is_write: NDArray[np.bool_]
    ) -> None:
        calls, count = rows.calls, len(self._names.files)
        chosen = np.flatnonzero(rows.file != NONE)
        if not len(chosen):
            return
        file, op, result = rows.file[chosen], calls["op"][chosen], calls["result"][chosen]
        flags, times = calls["flags"][chosen], calls["time_ns"][chosen]
        succeeded = ~failed[chosen]
        kinds = {
            "opens": is_one_of(op, OPENS) & succeeded,
            "reads": is_read[chosen] & succeeded,
            "writes": is_write[chosen] & succeeded,
            "maps": (op == Op.MMAP) & succeeded,
            "faults": (op == Op.FAULT) & succeeded,
            "executions": is_one_of(op, EXECS) & succeeded,
        }
        kinds["others"] = ~np.logical_or.reduce(list(kinds.values()))
        kinds["device_reads"] = (op == Op.PAGE_IN) | ((flags & CallFlag.DEVICE) != 0) & is_read[chosen]
        for name, mask in kinds.items():
            self._counts[name] += np.bincount(file[mask], minlength=count)
        self._counts["read_bytes"] += _sums(file[kinds["reads"]], result[kinds["reads"]], count)
        self._counts["written_bytes"] += _sums(file[kinds["writes"]], result[kinds["writes"]], count)
        np.minimum.at(self._first, file, times)
        np.maximum.at(self._last, file, times)

    def _add_processes(
        self, rows: Rows, failed: NDArray[np.bool_], is_read: NDArray[np.bool_], is_write: NDArray[np.bool_]
    ) -> None:
        count, result = len(self._names.processes.starts), rows.calls["result"]
        known = rows.process != NONE
        self._processes["calls"] += np.bincount(rows.process[known], minlength=count)
        for name, mask in (("read_bytes", is_read), ("written_bytes", is_write)):
            some = mask & known & ~failed
            self._processes[name] += _sums(rows.process[some], result[some], count)

    def _add_totals(self, rows: Rows) -> None:
        """What mode ``summary`` has counted in the kernel."""
        for at in rows.notes.of(RecordType.FILE_TOTAL, RecordType.OP_TOTAL).tolist():
            note = rows.notes.note(at)
            if isinstance(note, FileTotal):
                number = self._names.files.of_total(note.identity, note.link, note.generation)
                self._grow()
                for name in _COUNTED:
                    self._counts[name][number] += note.counts.get(name, 0)
                self._first[number] = min(self._first[number], note.counts["first_ns"])
                self._last[number] = max(self._last[number], note.counts["last_ns"])
                moved = {name: note.counts[name] for name in ("read_bytes", "written_bytes")}
                self._add_total_to_process(note, **moved)
            elif isinstance(note, OpTotal):
                self._ops["calls"][note.op] += note.calls
                self._ops["errors"][note.op] += note.errors
                self._ops["duration_ns"][note.op] += note.duration_ns
                self._latency[note.op] += note.latency
                self._add_total_to_process(note, calls=note.calls)

    def _add_total_to_process(self, note: FileTotal | OpTotal, **counts: int) -> None:
        number = self._names.processes.process_of(note.tgid, note.started_ns)
        if number != NONE:
            for name, count in counts.items():
                self._processes[name][number] += count

    def summary(self, *, is_truncated: bool) -> TraceSummary:
        """What has been added up so far."""
        names = self._names
        files = [self._file(number) for number in np.flatnonzero(self._last >= 0).tolist()]
        failed = sorted(self._failed.items(), key=lambda item: (-item[1], item[0]))
        return TraceSummary(
            events=self.events,
            is_whole=names.ended and not is_truncated,
            mode=names.mode.name.lower(),
            files=sorted(files, key=lambda use: (-(use.read_bytes + use.written_bytes), use.path)),
            failed_opens=[
                FailedOpen(path=names.texts[path], errno=errno, count=count) for (path, errno), count in failed
            ],
            processes=self._process_uses(),
            ops=[
                OpUse(
                    op=name_of(number),
                    calls=int(self._ops["calls"][number]),
                    errors=int(self._ops["errors"][number]),
                    duration_ns=int(self._ops["duration_ns"][number]),
                    latency=self._latency[number].tolist(),
                )
                for number in np.flatnonzero(self._ops["calls"]).tolist()
            ],
            unsupported=names.start.unsupported if names.start is not None else [],
        )

    def _file(self, number: int) -> FileUse:
        names = self._names
        file = names.files[number]
        since = names.start.time_ns if names.start is not None else 0
        paths = names.paths_of_file(number)
        return FileUse(
            file=number,
            path=paths[0],
            device=file.identity.device,
            inode=file.identity.inode,
            kind=file.kind,
            first_use_s=(int(self._first[number]) - since) / 1e9,
            last_use_s=(int(self._last[number]) - since) / 1e9,
            aliases=paths[1:],
            is_gone=names.is_gone(number),
            **{name: int(self._counts[name][number]) for name in _COUNTED},
        )

    def _process_uses(self) -> list[ProcessUse]:
        names = self._names
        programs = {task.process: program for task in names.tasks if (program := names.text(task.program))}
        starts = names.processes.starts
        uses = [
            ProcessUse(
                process=number,
                pid=start.pid,
                parent=0 if start.parent == NONE else starts[start.parent].pid,
                parent_process=None if start.parent == NONE else start.parent,
                name=programs.get(number, ""),
                argv=self._argv.get(number, []),
                exit_status=self._exits.get(number),
                **{name: int(column[number]) for name, column in self._processes.items()},
            )
            for number, start in enumerate(starts)
        ]
        return sorted(uses, key=lambda process: process.pid)


def summarise(path: Path) -> TraceSummary:
    """Read a trace and add it up. Raises :class:`bedrock.trace.layouts.TraceError`."""
    trace, names = Trace(path), Names()
    adder = Adder(names)
    for rows in read_rows(trace, names):
        adder.add(rows)
    return adder.summary(is_truncated=trace.is_truncated)


def bucket_of(duration_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which bucket of a latency histogram a duration falls into: the binary logarithm, as the probes take it."""
    exponents = np.frexp(np.maximum(duration_ns, 1).astype(np.float64))[1] - 1
    return cast("NDArray[np.int64]", np.minimum(exponents, HISTOGRAM_BUCKETS - 1).astype(np.int64))


def is_one_of(op: NDArray[np.int64], ops: tuple[Op, ...]) -> NDArray[np.bool_]:
    table = np.zeros(256, bool)
    table[list(ops)] = True
    chosen: NDArray[np.bool_] = table[op.astype(np.intp)]
    return chosen


def _sums(index: NDArray[np.int64], weights: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    # Through floating point, which is exact up to 2**53: far beyond what one block can move.
    return cast("NDArray[np.int64]", np.bincount(index, weights.astype(np.float64), minlength=count).astype(np.int64))


def _longer(column: NDArray[np.int64], size: int, value: int) -> NDArray[np.int64]:
    if len(column) >= size:
        return column
    longer: NDArray[np.int64] = np.concatenate([column, np.full(size - len(column), value, np.int64)])
    return longer
