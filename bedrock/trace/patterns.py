"""How a trace's accesses lie in time and in their files: what the report draws. Vectorised, block by block.

The words are those of Darshan (darshan-util, "POSIX module counters"). Accesses are looked at in the order in which one
process makes them to one file. One is *sequential* when it begins behind the end of the one before it, and also
*consecutive* when it begins exactly there. The *stride* of an access is the gap between the end of the one before it
and its own beginning. What is not sequential is called *random* here, and *strided* is what has one of the file's four
most common strides.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bedrock.trace.columns import NONE
from bedrock.trace.names import Names, Rows
from bedrock.trace.summary import READS, WRITES, is_one_of
from bedrock.tracer.format import CallFlag
from bedrock.tracer.operations import Op, name_of

# Darshan's bins of access sizes, in bytes: the upper bounds, each still inside its bin.
SIZE_BOUNDS = [100, 1_000, 10_000, 100_000, 1_000_000, 4_000_000, 10_000_000, 100_000_000, 1_000_000_000]
SIZE_NAMES = ["0-100", "100-1K", "1K-10K", "10K-100K", "100K-1M", "1M-4M", "4M-10M", "10M-100M", "100M-1G", "1G+"]
PAGE_SHIFT = 12
_TIME_BINS = 400
_SLOWEST = 20
_MAX_STRIDES = 64
_MAX_PAGES = 4 << 20
_STRIDES = 4


class Accesses(msgspec.Struct, kw_only=True):
    """The order of the accesses of one kind to one file. ``total`` counts all, the others those with one before."""

    total: int = 0
    followed: int = 0
    sequential: int = 0
    consecutive: int = 0
    strided: int = 0
    strides: list[tuple[int, int]] = []  # (bytes, how often), the most common first

    @property
    def random(self) -> int:
        return self.followed - self.sequential


class FilePattern(msgspec.Struct, kw_only=True):
    """How one file was accessed, by number (see :attr:`bedrock.trace.names.Names.files`)."""

    reads: Accesses
    writes: Accesses
    switches: int  # from reading to writing or back
    pages: int  # distinct pages of 4 KiB that were read, written or faulted
    end: int  # the highest offset that was reached, in bytes


class Timeline(msgspec.Struct, kw_only=True):
    """What happened in each stretch of ``bin_s`` seconds."""

    bin_s: float
    read_bytes: list[int]
    written_bytes: list[int]
    calls: list[int]
    faults: list[int]
    working_set: list[int]  # distinct pages of 4 KiB that had been touched by then


class SlowCall(msgspec.Struct, kw_only=True):
    t_s: float
    duration_ns: int
    op: str
    path: str | None
    pid: int


class PatternAdder:
    """Adds blocks up. ``end_ns`` is when the last call begins, which block headers tell beforehand."""

    def __init__(self, names: Names, *, begin_ns: int, end_ns: int) -> None:
        self._names = names
        self._begin_ns = begin_ns
        self._bin_ns = max(1, -(-(end_ns - begin_ns + 1) // _TIME_BINS))
        self._bins = {name: np.zeros(_TIME_BINS, np.int64) for name in ("read", "written", "calls", "faults", "pages")}
        self._sizes = np.zeros((2, len(SIZE_NAMES)), np.int64)
        self._common: list[Counter[int]] = [Counter(), Counter()]
        self._counts: defaultdict[tuple[int, int], NDArray[np.int64]] = defaultdict(lambda: np.zeros(4, np.int64))
        self._strides: defaultdict[tuple[int, int], Counter[int]] = defaultdict(Counter)
        self._last_end: dict[tuple[int, int, int], int] = {}
        self._last_kind: dict[tuple[int, int], int] = {}
        self._switches: Counter[int] = Counter()
        self._ends: Counter[int] = Counter()
        self._seen_pages = np.empty(0, np.int64)
        self._slowest: list[tuple[int, int, int, int, int]] = []
        self._lookups: Counter[tuple[int, int, int]] = Counter()

    def add(self, rows: Rows) -> None:
        calls = rows.calls
        if not len(calls):
            return
        op, result, times = calls["op"], calls["result"], calls["time_ns"]
        bins = np.clip((times - self._begin_ns) // self._bin_ns, 0, _TIME_BINS - 1)
        to_file = (calls["flags"] & CallFlag.TO_FILE) != 0
        moved = (op >= Op.SENDFILE) & (op <= Op.SPLICE)
        succeeded = ~rows.failed & (result >= 0)
        is_read = (is_one_of(op, READS) | moved & ~to_file) & succeeded
        is_write = (is_one_of(op, WRITES) | moved & to_file) & succeeded
        is_fault = (op == Op.FAULT) & ~rows.failed
        self._bins["calls"] += np.bincount(bins[~to_file], minlength=_TIME_BINS)
        self._bins["faults"] += np.bincount(bins[is_fault], minlength=_TIME_BINS)
        for name, mask in (("read", is_read), ("written", is_write)):
            moved_bytes = np.bincount(bins[mask], result[mask].astype(np.float64), _TIME_BINS)
            self._bins[name] += moved_bytes.astype(np.int64)
        has_offset = ((calls["flags"] & CallFlag.HAS_OFFSET) != 0) & (rows.file != NONE) & (calls["offset"] >= 0)
        for kind, mask in enumerate((is_read, is_write)):
            self._add_sizes(kind, result[mask])
            self._add_order(kind, rows, np.flatnonzero(mask & has_offset & (result > 0)))
        self._add_switches(rows, np.flatnonzero((is_read | is_write) & has_offset), is_write)
        touched = np.flatnonzero(has_offset & ((is_read | is_write) & (result > 0) | is_fault))
        self._add_pages(rows, touched, np.where(is_fault, 1, result), bins)
        self._add_slowest(rows)
        self._add_lookups(rows)

    def _add_sizes(self, kind: int, sizes: NDArray[np.int64]) -> None:
        found = np.searchsorted(SIZE_BOUNDS, sizes)
        self._sizes[kind] += np.bincount(found, minlength=len(SIZE_NAMES))
        values, counts = np.unique(sizes, return_counts=True)
        self._common[kind].update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if len(self._common[kind]) > 1 << 16:
            self._common[kind] = Counter(dict(self._common[kind].most_common(1 << 12)))

    def _add_order(self, kind: int, rows: Rows, chosen: NDArray[np.int64]) -> None:
        if not len(chosen):
            return
        file, process = rows.file[chosen], rows.process[chosen]
        offset, size = rows.calls["offset"][chosen], rows.calls["result"][chosen]
        # In the order of time within each pair of file and process; the rows come in the order of their ends.
        order = np.lexsort((rows.calls["time_ns"][chosen], process, file))
        file, process, offset, size = file[order], process[order], offset[order], size[order]
        end = offset + size
        is_first = np.ones(len(file), bool)
        is_first[1:] = (file[1:] != file[:-1]) | (process[1:] != process[:-1])
        before = np.empty(len(file), np.int64)
        before[1:] = end[:-1]
        firsts = np.flatnonzero(is_first)
        for at in firsts.tolist():
            before[at] = self._last_end.get((kind, int(file[at]), int(process[at])), -1)
        for at in np.append(firsts[1:] - 1, len(file) - 1).tolist():
            self._last_end[kind, int(file[at]), int(process[at])] = int(end[at])
        follows = before >= 0
        gap = offset - before
        columns = (np.ones(len(file), bool), follows, follows & (gap >= 0), follows & (gap == 0))
        used, codes = np.unique(file, return_inverse=True)
        sums = np.stack([np.bincount(codes[mask], minlength=len(used)) for mask in columns], axis=1)
        ends = np.zeros(len(used), np.int64)
        np.maximum.at(ends, codes, end)
        for number, counts, last in zip(used.tolist(), sums, ends.tolist(), strict=True):
            self._counts[kind, number] += counts
            self._ends[number] = max(self._ends[number], last)
        self._add_strides(kind, file[follows & (gap != 0)], gap[follows & (gap != 0)])

    def _add_strides(self, kind: int, file: NDArray[np.int64], gap: NDArray[np.int64]) -> None:
        if not len(file):
            return
        pairs, counts = np.unique(np.stack([file, gap], axis=1), axis=0, return_counts=True)
        # Only what is among the most common of its block can be among the most common of all, but for rare luck.
        for at in np.argsort(-counts, kind="stable")[: _MAX_STRIDES * 16].tolist():
            self._strides[kind, int(pairs[at, 0])][int(pairs[at, 1])] += int(counts[at])
        for key, strides in self._strides.items():
            if len(strides) > _MAX_STRIDES * 4:
                self._strides[key] = Counter(dict(strides.most_common(_MAX_STRIDES)))

    def _add_switches(self, rows: Rows, chosen: NDArray[np.int64], is_write: NDArray[np.bool_]) -> None:
        if not len(chosen):
            return
        file, process = rows.file[chosen], rows.process[chosen]
        order = np.lexsort((rows.calls["time_ns"][chosen], process, file))
        file, process, kind = file[order], process[order], is_write[chosen][order]
        same = (file[1:] == file[:-1]) & (process[1:] == process[:-1])
        changed = same & (kind[1:] != kind[:-1])
        for number, count in zip(*np.unique(file[1:][changed], return_counts=True), strict=True):
            self._switches[int(number)] += int(count)
        firsts = np.append(0, np.flatnonzero(~same) + 1)
        for at in firsts.tolist():
            key = (int(file[at]), int(process[at]))
            if self._last_kind.get(key, int(kind[at])) != int(kind[at]):
                self._switches[key[0]] += 1
        for at in np.append(firsts[1:] - 1, len(file) - 1).tolist():
            self._last_kind[int(file[at]), int(process[at])] = int(kind[at])

    def _add_pages(
        self, rows: Rows, chosen: NDArray[np.int64], sizes: NDArray[np.int64], bins: NDArray[np.int64]
    ) -> None:
        """Which pages are touched for the first time, and when."""
        if not len(chosen):
            return
        offset = rows.calls["offset"][chosen]
        first = offset >> PAGE_SHIFT
        count = np.minimum(((offset + sizes[chosen] - 1) >> PAGE_SHIFT) - first + 1, _MAX_PAGES)
        # In parts: one access may be of a gigabyte.
        parts = np.flatnonzero(np.diff(np.cumsum(count) // _MAX_PAGES, prepend=0)).tolist()
        for begin, end in zip([0, *parts], [*parts, len(chosen)], strict=True):
            if begin == end:
                continue
            repeat = count[begin:end]
            starts = np.repeat(np.cumsum(repeat) - repeat, repeat)
            page = np.repeat(first[begin:end], repeat) + np.arange(int(repeat.sum())) - starts
            keys = np.repeat(rows.file[chosen[begin:end]], repeat) << 40 | page
            found, index = np.unique(keys, return_index=True)
            at = np.searchsorted(self._seen_pages, found)
            known = np.zeros(len(found), bool)
            inside = at < len(self._seen_pages)
            known[inside] = self._seen_pages[at[inside]] == found[inside]
            if known.all():
                continue
            when = np.repeat(bins[chosen[begin:end]], repeat)[index[~known]]
            self._bins["pages"] += np.bincount(when, minlength=_TIME_BINS)
            self._seen_pages = np.insert(self._seen_pages, at[~known], found[~known])

    def _add_slowest(self, rows: Rows) -> None:
        duration = rows.calls["duration_ns"]
        few = np.argsort(duration)[-_SLOWEST:] if len(duration) <= _SLOWEST else np.argpartition(duration, -_SLOWEST)
        for at in few[-_SLOWEST:].tolist():
            key = (int(duration[at]), int(rows.calls["time_ns"][at]), int(rows.calls["op"][at]), int(rows.path[at]))
            item = (*key, self._names.tasks[int(rows.task[at])].pid if rows.task[at] != NONE else 0)
            if len(self._slowest) < _SLOWEST:
                heapq.heappush(self._slowest, item)
            else:
                heapq.heappushpop(self._slowest, item)

    def _add_lookups(self, rows: Rows) -> None:
        """Paths that were looked for in vain, by whatever call."""
        result = rows.calls["result"]
        is_error = (result < 0) & (result > -4096)
        chosen = np.flatnonzero((rows.raw != NONE) & (rows.path != NONE) & is_error)
        if len(chosen):
            triples = np.stack([rows.path[chosen], -result[chosen], rows.calls["op"][chosen]], axis=1)
            for triple, count in zip(*np.unique(triples, axis=0, return_counts=True), strict=True):
                self._lookups[int(triple[0]), int(triple[1]), int(triple[2])] += int(count)

    # -- what has been found

    def patterns(self) -> dict[int, FilePattern]:
        """By file. What was only mapped has pages and nothing else."""
        files, pages = np.unique(self._seen_pages >> 40, return_counts=True)
        page_counts = dict(zip(files.tolist(), pages.tolist(), strict=True))
        numbers = {number for _, number in self._counts} | set(page_counts)
        return {
            number: FilePattern(
                reads=self._accesses(0, number),
                writes=self._accesses(1, number),
                switches=self._switches[number],
                pages=page_counts.get(number, 0),
                end=self._ends[number],
            )
            for number in sorted(numbers)
        }

    def _accesses(self, kind: int, number: int) -> Accesses:
        total, followed, sequential, consecutive = self._counts[kind, number].tolist()
        strides = [(gap, count) for gap, count in self._strides[kind, number].most_common(_STRIDES) if count > 1]
        return Accesses(
            total=total,
            followed=followed,
            sequential=sequential,
            consecutive=consecutive,
            strided=sum(count for _, count in strides),
            strides=strides,
        )

    def timeline(self) -> Timeline:
        return Timeline(
            bin_s=self._bin_ns / 1e9,
            read_bytes=self._bins["read"].tolist(),
            written_bytes=self._bins["written"].tolist(),
            calls=self._bins["calls"].tolist(),
            faults=self._bins["faults"].tolist(),
            working_set=np.cumsum(self._bins["pages"]).tolist(),
        )

    def sizes(self) -> dict[str, Any]:
        """Access sizes in Darshan's bins, and the four most common ones, for reads and writes."""
        return {
            kind: {
                "bins": dict(zip(SIZE_NAMES, self._sizes[at].tolist(), strict=True)),
                "common": self._common[at].most_common(4),
            }
            for at, kind in enumerate(("reads", "writes"))
        }

    def slowest(self) -> list[SlowCall]:
        return [
            SlowCall(
                t_s=(time_ns - self._begin_ns) / 1e9,
                duration_ns=duration,
                op=name_of(op),
                path=self._names.text(path),
                pid=pid,
            )
            for duration, time_ns, op, path, pid in sorted(self._slowest, reverse=True)
        ]

    def lookups(self) -> list[tuple[str, int, str, int]]:
        """Failed look-ups: path, errno, call, how often."""
        return [
            (self._names.texts[path], errno, name_of(op), count)
            for (path, errno, op), count in self._lookups.most_common(500)
        ]
