"""What a trace is worth, judged from what the tracer said of itself and from the file that it left. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bedrock.model import TraceState, Verdict
from bedrock.tracer.format import DROPPING, Mode


class TracerReport(msgspec.Struct, frozen=True, kw_only=True):
    """``tracer.json``. Times are nanoseconds; ``t0_ns`` is when the target was let go, on the trace's own clock."""

    state: str  # attached, running, ended, failed, exec_failed
    pid: int = 0
    exit_code: int = 0
    t0_ns: int = 0
    realtime_offset_ns: int = 0
    attach_ms: float = 0.0
    error: str = ""
    seen: int = 0
    written: int = 0
    written_bytes: int = 0
    lost: dict[str, int] = {}
    mode: Mode = Mode.EVENTS
    filtered: int = 0  # calls on files that were not asked for
    unsupported: list[str] = []  # kinds of events that this kernel has no tracepoint for

    @property
    def started_at(self) -> datetime | None:
        """When the target's own program began; None when it has not."""
        if self.state not in {"running", "ended"} or not self.t0_ns:
            return None
        return datetime.fromtimestamp((self.t0_ns + self.realtime_offset_ns) / 1e9, UTC)


def read_report(path: Path) -> TracerReport | None:
    """Read ``tracer.json``; None when there is none, or none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=TracerReport)
    except (OSError, msgspec.DecodeError):
        return None


def judge(report: TracerReport | None, trace_size: int) -> Verdict:
    """Return the verdict on a trace of ``trace_size`` bytes. ``complete`` must be proven; everything else is not."""
    if report is None:
        return Verdict(state=TraceState.UNTRACED, message="there was no tracer")
    if report.state == "running":
        message = "the tracer did not come to its end: the tail of the trace is missing"
        return Verdict(state=TraceState.PARTIAL, events=report.written, lost=report.lost, message=message)
    if report.state != "ended" or not report.t0_ns:
        return Verdict(state=TraceState.UNTRACED, message=report.error or "the target's own program never ran")
    dropped = sum(report.lost.get(cause.name.lower(), 0) for cause in DROPPING)
    if report.written + dropped != report.seen or report.written_bytes > trace_size:
        message = f"of {report.seen} records {report.written} are written and {dropped} counted as lost"
        return Verdict(state=TraceState.PARTIAL, events=report.written, lost=report.lost, message=message)
    if report.lost:
        message = (
            f"{dropped} of {report.seen} records are missing" if dropped else "all records are there, some are cut"
        )
        if report.error:
            message += f"; {report.error}"
        return Verdict(state=TraceState.LOSSY, events=report.written, lost=report.lost, message=message)
    return Verdict(state=TraceState.COMPLETE, events=report.written)
