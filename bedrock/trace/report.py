"""The report on a trace: everything that a person wants to see of it, as values. :mod:`bedrock.trace.page` shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bedrock.model import Session
from bedrock.trace.columns import NONE
from bedrock.trace.decode import Trace
from bedrock.trace.export import about_session
from bedrock.trace.image_files import ImageFiles
from bedrock.trace.names import Names, read_rows
from bedrock.trace.patterns import Accesses, FilePattern, PatternAdder, SlowCall, Timeline
from bedrock.trace.summary import READS, WRITES, Adder, FileUse, TraceSummary, is_one_of
from bedrock.tracer.format import CallFlag
from bedrock.tracer.operations import Op

PLOTTED_FILES = 16
_MAX_SEGMENTS = 2_000
_GRID = (160, 80)  # cells in time and in offset, where there are too many accesses to draw each
_MAX_LISTED = 1_000


class PatternOfFile(msgspec.Struct, kw_only=True):
    path: str
    pattern: FilePattern


class OffsetPlot(msgspec.Struct, kw_only=True):
    """Where in a file the accesses lay over time.

    Either every access is in ``segments`` (seconds, offset, bytes, kind: 0 read, 1 write, 2 fault; pid), or there are
    too many, and ``grid`` has how many of each kind fall into each cell: ``grid[kind][row][column]``, from offset 0 to
    ``end`` bytes and from 0 to ``span_s``.
    """

    path: str
    end: int
    accesses: int
    span_s: float
    segments: list[tuple[float, int, int, int, int]] = []
    grid: list[list[list[int]]] = []


class Untouched(msgspec.Struct, kw_only=True):
    """Files of the image that the session never opened, mapped or ran; ``largest`` has the largest of them."""

    image_files: int
    image_bytes: int
    files: int
    bytes: int
    largest: list[tuple[str, int]]


class Report(msgspec.Struct, kw_only=True):
    """Everything. Times are seconds since the target was let go; of a trace of counts there is no order in time."""

    about: dict[str, Any]
    span_s: float
    summary: TraceSummary
    timeline: Timeline | None = None
    sizes: dict[str, Any] = {}
    patterns: list[PatternOfFile] = []
    shares: dict[str, Accesses] = {}  # of all reads and of all writes
    offsets: list[OffsetPlot] = []
    slowest: list[SlowCall] = []
    failed_lookups: list[tuple[str, int, str, int]] = []  # path, errno, call, how often
    untouched: Untouched | None = None


def report_of(path: Path, session: Session | None, image_files: ImageFiles | None = None) -> Report:
    """Read a trace, twice, and say everything about it. Raises :class:`bedrock.trace.layouts.TraceError`."""
    trace, names = Trace(path), Names()
    headers = list(trace.headers())
    end_ns = max((header.last_ns for header in headers if header.calls), default=0)
    begin_ns = min((header.first_ns for header in headers if header.calls), default=0)
    adder, patterns = Adder(names), PatternAdder(names, begin_ns=begin_ns, end_ns=end_ns)
    for rows in read_rows(trace, names):
        adder.add(rows)
        patterns.add(rows)
    summary = adder.summary(is_truncated=trace.is_truncated)
    found = patterns.patterns()
    by_use = sorted(found, key=lambda number: -_weight(found[number]))
    has_calls = end_ns > 0
    return Report(
        about=about_session(session) if session is not None else {},
        span_s=max(0, end_ns - begin_ns) / 1e9,
        summary=summary,
        timeline=patterns.timeline() if has_calls else None,
        sizes=patterns.sizes(),
        patterns=[
            PatternOfFile(path=names.paths_of_file(number)[0], pattern=found[number]) for number in by_use[:_MAX_LISTED]
        ],
        shares={kind: _all_of(getattr(pattern, kind) for pattern in found.values()) for kind in ("reads", "writes")},
        offsets=_offsets(path, names, found, by_use[:PLOTTED_FILES], (begin_ns, end_ns)),
        slowest=patterns.slowest(),
        failed_lookups=patterns.lookups(),
        untouched=untouched_of(summary, image_files) if image_files is not None else None,
    )


def is_used(use: FileUse) -> bool:
    """Whether the content of a file can have mattered; a mere look at its name, size or rights is none."""
    return bool(use.opens or use.reads or use.writes or use.maps or use.faults or use.executions)


def untouched_of(summary: TraceSummary, image: ImageFiles) -> Untouched:
    """Which files of the image were never used."""
    used = {path for use in summary.files if is_used(use) for path in (use.path, *use.aliases)}
    rest = [(path, size) for path, size in image.files if path not in used]
    return Untouched(
        image_files=len(image.files),
        image_bytes=sum(size for _, size in image.files),
        files=len(rest),
        bytes=sum(size for _, size in rest),
        largest=sorted(rest, key=lambda item: (-item[1], item[0]))[:_MAX_LISTED],
    )


def _weight(pattern: FilePattern) -> int:
    return pattern.reads.total + pattern.writes.total + pattern.pages


def _all_of(accesses: Any) -> Accesses:
    result = Accesses()
    for each in accesses:
        result.total += each.total
        result.followed += each.followed
        result.sequential += each.sequential
        result.consecutive += each.consecutive
        result.strided += each.strided
    return result


class _Plot:
    """One file's accesses, gathered in the second reading."""

    def __init__(self, path: str, end: int, *, span_ns: int, begin_ns: int, draws_each: bool) -> None:
        self._path, self._end, self._span_ns, self._begin_ns = path, max(end, 1), max(span_ns, 1), begin_ns
        self._segments: list[tuple[float, int, int, int, int]] = []
        self._grid = None if draws_each else np.zeros((3, _GRID[1], _GRID[0]), np.int64)
        self._accesses = 0

    def add(
        self,
        *,
        times: NDArray[np.int64],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        kinds: NDArray[np.int64],
        pids: NDArray[np.int64],
    ) -> None:
        self._accesses += len(times)
        since = times - self._begin_ns
        if self._grid is None:
            columns = (np.round(since / 1e9, 7), offsets, sizes, kinds, pids)
            self._segments += zip(*(column.tolist() for column in columns), strict=True)
            return
        column = np.clip(since * _GRID[0] // self._span_ns, 0, _GRID[0] - 1)
        row = np.clip((offsets.astype(np.float64) * _GRID[1] / self._end).astype(np.int64), 0, _GRID[1] - 1)
        np.add.at(self._grid, (kinds, row, column), 1)

    def plot(self) -> OffsetPlot:
        return OffsetPlot(
            path=self._path,
            end=self._end,
            accesses=self._accesses,
            span_s=self._span_ns / 1e9,
            segments=self._segments,
            grid=[] if self._grid is None else self._grid.tolist(),
        )


def _offsets(
    path: Path, first: Names, found: dict[int, FilePattern], chosen: list[int], span: tuple[int, int]
) -> list[OffsetPlot]:
    begin_ns, end_ns = span
    # Which numbers files have depends on the trace alone, so those of the first reading hold in the second.
    plots = {
        number: _Plot(
            first.paths_of_file(number)[0],
            max(found[number].end, found[number].pages << 12),
            span_ns=end_ns - begin_ns + 1,
            begin_ns=begin_ns,
            draws_each=_weight(found[number]) <= _MAX_SEGMENTS,
        )
        for number in chosen
    }
    names = Names()
    for rows in read_rows(Trace(path), names) if plots else ():
        calls = rows.calls
        op, to_file = calls["op"], (calls["flags"] & CallFlag.TO_FILE) != 0
        moved = (op >= Op.SENDFILE) & (op <= Op.SPLICE)
        kind = np.full(len(calls), NONE, np.int64)
        kind[is_one_of(op, READS) | moved & ~to_file] = 0
        kind[is_one_of(op, WRITES) | moved & to_file] = 1
        kind[(op == Op.FAULT) & ~rows.failed] = 2
        size = np.where(kind == 2, calls["requested"], calls["result"])
        has_offset = ((calls["flags"] & CallFlag.HAS_OFFSET) != 0) & (calls["offset"] >= 0)
        pids = np.array([*(task.pid for task in names.tasks), 0], np.int64)[rows.task]
        for number, plot in plots.items():
            mask = np.flatnonzero((rows.file == number) & (kind != NONE) & has_offset & (size > 0))
            if len(mask):
                plot.add(
                    times=calls["time_ns"][mask],
                    offsets=calls["offset"][mask],
                    sizes=size[mask].astype(np.int64),
                    kinds=kind[mask],
                    pids=pids[mask],
                )
    return [plots[number].plot() for number in chosen]
