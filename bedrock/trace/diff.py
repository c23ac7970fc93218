"""What two sessions did differently: files, bytes, calls and their latency. Pure."""

from __future__ import annotations

import msgspec

from bedrock.trace.report import is_used
from bedrock.trace.summary import TraceSummary


class FileChange(msgspec.Struct, kw_only=True):
    """One file, by path, in both. A count of a side that did not use it is 0."""

    path: str
    change: str  # added: only B used it; removed: only A did; changed
    reads: tuple[int, int]
    read_bytes: tuple[int, int]
    writes: tuple[int, int]
    written_bytes: tuple[int, int]


class OpChange(msgspec.Struct, kw_only=True):
    """One system call in both: how often, and its mean duration in ns."""

    op: str
    calls: tuple[int, int]
    errors: tuple[int, int]
    mean_ns: tuple[float, float]


class Difference(msgspec.Struct, kw_only=True):
    """From A to B. ``same_files`` counts the files that both used alike, which are not listed."""

    files: list[FileChange]
    same_files: int
    ops: list[OpChange]
    lookups_added: list[str]  # paths that only B looked for in vain
    lookups_removed: list[str]
    programs_added: list[str]
    programs_removed: list[str]

    @property
    def is_empty(self) -> bool:
        """Whether both used the same files in the same way, looked for the same ones and ran the same programs."""
        lists = (self.files, self.lookups_added, self.lookups_removed, self.programs_added, self.programs_removed)
        return not any(lists)


class _Use(msgspec.Struct):
    """All files of one path together: a file that is replaced has two."""

    counts: tuple[int, int, int, int] = (0, 0, 0, 0)


def compare(a: TraceSummary, b: TraceSummary) -> Difference:
    """Compare two summaries. Nameless files (pipes, sockets) are left out: their numbers mean nothing elsewhere."""
    uses = (_by_path(a), _by_path(b))
    files, same = [], 0
    for path in sorted({*uses[0], *uses[1]}):
        first, second = (side.get(path) for side in uses)
        before = first.counts if first is not None else (0, 0, 0, 0)
        after = second.counts if second is not None else (0, 0, 0, 0)
        if first is not None and second is not None and before == after:
            same += 1
            continue
        files.append(
            FileChange(
                path=path,
                change="added" if first is None else "removed" if second is None else "changed",
                reads=(before[0], after[0]),
                read_bytes=(before[1], after[1]),
                writes=(before[2], after[2]),
                written_bytes=(before[3], after[3]),
            )
        )
    lookups = [{failed.path for failed in side.failed_opens} for side in (a, b)]
    programs = [{process.name for process in side.processes if process.name} for side in (a, b)]
    return Difference(
        files=files,
        same_files=same,
        ops=_ops(a, b),
        lookups_added=sorted(lookups[1] - lookups[0]),
        lookups_removed=sorted(lookups[0] - lookups[1]),
        programs_added=sorted(programs[1] - programs[0]),
        programs_removed=sorted(programs[0] - programs[1]),
    )


def _by_path(summary: TraceSummary) -> dict[str, _Use]:
    found: dict[str, _Use] = {}
    for use in summary.files:
        if not is_used(use) or not use.path.startswith("/"):
            continue
        entry = found.setdefault(use.path, _Use())
        entry.counts = (
            entry.counts[0] + use.reads,
            entry.counts[1] + use.read_bytes,
            entry.counts[2] + use.writes,
            entry.counts[3] + use.written_bytes,
        )
    return found


def _ops(a: TraceSummary, b: TraceSummary) -> list[OpChange]:
    sides = [{op.op: op for op in side.ops} for side in (a, b)]
    changes = []
    for name in sorted({*sides[0], *sides[1]}):
        pair = [side.get(name) for side in sides]
        calls = (pair[0].calls if pair[0] else 0, pair[1].calls if pair[1] else 0)
        errors = (pair[0].errors if pair[0] else 0, pair[1].errors if pair[1] else 0)
        first, second = (op.duration_ns / op.calls if op is not None and op.calls else 0.0 for op in pair)
        changes.append(OpChange(op=name, calls=calls, errors=errors, mean_ns=(first, second)))
    return changes
