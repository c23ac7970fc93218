"""A trace in numbers: per file, per process, in all. Vectorised, in memory that grows with the number of files only."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np

from bedrock.trace.decode import Argv, Chunk, End, FileIdentity, FileText, Process, Text, Trace, resolve
from bedrock.tracer.format import CallFlag, Op, TextFlag

_READS = (Op.READ, Op.PREAD64, Op.READV, Op.PREADV, Op.PREADV2)
_WRITES = (Op.WRITE, Op.PWRITE64, Op.WRITEV, Op.PWRITEV, Op.PWRITEV2)
_MOVES = (Op.SENDFILE, Op.COPY_FILE_RANGE, Op.SPLICE)
_OPENS = (Op.OPEN, Op.OPENAT, Op.OPENAT2, Op.CREAT)
_OTHERS_WITH_PATHS = (Op.EXECVE, Op.EXECVEAT, *(op for op in Op if op >= Op.STAT))


class FileUse(msgspec.Struct, kw_only=True):
    """What was done to one file. Bytes are bytes, uses are seconds since the target was let go."""

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
    first_use_s: float = 0.0
    last_use_s: float = 0.0
    aliases: list[str] = []


class FailedOpen(msgspec.Struct, kw_only=True):
    """A path that could not be opened, as the container sees it, and how often."""

    path: str
    errno: int
    count: int


class ProcessUse(msgspec.Struct, kw_only=True):
    """One process, in the container's own numbers. ``exit_status`` is as in wait(2)."""

    pid: int
    parent: int
    name: str
    argv: list[str] = []
    exit_status: int | None = None


class TraceSummary(msgspec.Struct, kw_only=True):
    events: int
    is_whole: bool  # it has its end mark and does not break off
    files: list[FileUse]
    failed_opens: list[FailedOpen]
    processes: list[ProcessUse]


_KINDS = {
    0o100000: "file",
    0o040000: "directory",
    0o010000: "pipe",
    0o140000: "socket",
    0o020000: "char",
    0o060000: "block",
}


def text_of(raw: bytes) -> str:
    """Bytes of a path or an argument as text: what is not UTF-8 is shown as ``\\xNN``."""
    return raw.decode("utf-8", "backslashreplace")


class _Adder:
    """Sums over the chunks of one trace."""

    def __init__(self) -> None:
        self.events = 0
        self.is_ended = False
        self.t0_ns: int | None = None
        self.files: dict[FileIdentity, FileUse] = {}
        self.failed: dict[tuple[bytes, int], int] = defaultdict(int)
        self.processes: dict[int, ProcessUse] = {}
        self._container_pid: dict[int, int] = {}
        self._raw: dict[tuple[int, int], bytes] = {}
        self._paths: dict[FileIdentity, bytes] = {}

    def add(self, chunk: Chunk) -> None:
        for _, note in chunk.notes:
            if isinstance(note, FileText):
                self._name_file(note)
            elif isinstance(note, Process):
                self._name_process(note)
            elif isinstance(note, Argv):
                process = self.processes.get(note.tid)
                if process is not None:
                    process.argv = [text_of(word) for word in note.argv]
            elif isinstance(note, Text) and not note.flags & TextFlag.SECOND:
                self._raw[note.tid, note.time_ns] = note.text
            elif isinstance(note, End):
                self.is_ended = True
        calls = chunk.calls
        self.events += len(calls) + len(chunk.notes)
        if not len(calls):
            return
        if self.t0_ns is None:
            self.t0_ns = int(calls["time_ns"][0])
        self._add_files(chunk)
        self._add_lives(chunk)

    def _name_file(self, note: FileText) -> None:
        self._paths[note.identity] = note.path
        path = text_of(note.path)
        use = self.files.get(note.identity)
        if use is None:
            kind = _KINDS.get(note.mode & 0o170000, "other")
            device, inode = note.identity
            self.files[note.identity] = FileUse(path=path, device=device, inode=inode, kind=kind, first_use_s=-1.0)
        elif path != use.path and path not in use.aliases:
            use.aliases = [*use.aliases, path]

    def _name_process(self, note: Process) -> None:
        self._container_pid[note.tgid] = note.container_pid
        if note.tid == note.tgid:
            parent = self._container_pid.get(note.parent, 0)
            self.processes[note.tid] = ProcessUse(pid=note.container_pid, parent=parent, name=text_of(note.comm))

    def _add_files(self, chunk: Chunk) -> None:
        calls = chunk.calls[(chunk.calls["flags"] & CallFlag.HAS_FILE) != 0]
        if not len(calls):
            return
        keys = np.stack([calls["device"].astype(np.uint64), calls["inode"]], axis=1)
        identities, index = np.unique(keys, axis=0, return_inverse=True)
        index = index.ravel()
        count = len(identities)
        op, result = calls["op"], calls["result"]
        moved = np.isin(op, _MOVES)
        to_file = (calls["flags"] & CallFlag.TO_FILE) != 0
        is_read = np.isin(op, _READS) | (moved & ~to_file)
        is_write = np.isin(op, _WRITES) | (moved & to_file)
        succeeded = result >= 0

        def sums(mask: np.ndarray, weights: np.ndarray | None = None) -> list[int]:
            # Weights go through floating point, which is exact up to 2**53: far beyond a chunk's bytes.
            chosen = None if weights is None else weights[mask].astype(np.float64)
            return [int(value) for value in np.bincount(index[mask], chosen, minlength=count)]

        columns = zip(
            sums(np.isin(op, _OPENS) & succeeded),
            sums(is_read & succeeded),
            sums(is_read & succeeded, result),
            sums(is_write & succeeded),
            sums(is_write & succeeded, result),
            sums((op == Op.MMAP) & (result > -4096)),
            strict=True,
        )
        first = np.full(count, np.iinfo(np.int64).max)
        last = np.zeros(count, np.int64)
        times = calls["time_ns"].astype(np.int64)
        np.minimum.at(first, index, times)
        np.maximum.at(last, index, times)
        for number, (opens, reads, read_bytes, writes, written_bytes, maps) in enumerate(columns):
            identity = FileIdentity(int(identities[number, 0]), int(identities[number, 1]))
            use = self.files.get(identity)
            if use is None:
                device, inode = identity
                use = FileUse(path=f"inode:[{inode}]", device=device, inode=inode, kind="unknown", first_use_s=-1.0)
                self.files[identity] = use
            use.opens += opens
            use.reads += reads
            use.read_bytes += read_bytes
            use.writes += writes
            use.written_bytes += written_bytes
            use.maps += maps
            since = self.t0_ns or 0
            if use.first_use_s < 0:
                use.first_use_s = (int(first[number]) - since) / 1e9
            use.last_use_s = (int(last[number]) - since) / 1e9

    def _add_lives(self, chunk: Chunk) -> None:
        calls = chunk.calls
        for row in calls[np.isin(calls["op"], (*_OPENS, Op.EXIT, *_OTHERS_WITH_PATHS))]:
            if row["op"] == Op.EXIT:
                process = self.processes.get(int(row["tgid"]))
                if process is not None and row["flags"] & CallFlag.GROUP_DEAD:
                    process.exit_status = int(row["result"])
                continue
            raw = self._raw.pop((int(row["tid"]), int(row["time_ns"])), b"")
            if row["op"] in _OPENS and row["result"] < 0:
                base = self._paths.get(FileIdentity(int(row["device"]), int(row["inode"])))
                self.failed[resolve(base, raw) or raw, -int(row["result"])] += 1


def summarise(path: Path) -> TraceSummary:
    """Read a trace and add it up. Raises :class:`bedrock.trace.decode.TraceError`."""
    trace = Trace(path)
    adder = _Adder()
    for chunk in trace.chunks():
        adder.add(chunk)
    # What was only named as the directory of a relative path has not been used itself.
    used = [use for use in adder.files.values() if use.first_use_s >= 0]
    files = sorted(used, key=lambda use: (-(use.read_bytes + use.written_bytes), use.path))
    failed = [
        FailedOpen(path=text_of(raw), errno=errno, count=count)
        for (raw, errno), count in sorted(adder.failed.items(), key=lambda item: -item[1])
    ]
    return TraceSummary(
        events=adder.events,
        is_whole=adder.is_ended and not trace.is_truncated,
        files=files,
        failed_opens=failed,
        processes=sorted(adder.processes.values(), key=lambda process: process.pid),
    )
