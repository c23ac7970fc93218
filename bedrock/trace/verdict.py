"""What a trace is worth, judged from what the tracer said of itself and from the file that it left. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bedrock.model import TraceState, Verdict
from bedrock.tracer.causes import CAUSES, DROPPING, FEATURES, Cause
from bedrock.tracer.format import Mode
from bedrock.untrusted import MalformedJson, decode_json

_MAX_REPORT_BYTES = 1 << 20


class TracerReport(msgspec.Struct, frozen=True, kw_only=True):
    """``tracer.json``. Times are nanoseconds; ``t0_ns`` is when the target was let go, on the trace's own clock."""

    state: str  # attached, running, ended, failed, exec_failed; off and foreign are written by DockerD
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
    synced: bool = True  # the file system has promised to keep the trace; false until the end
    unsupported: list[str] = []  # what the kernel does not let the probes see: Feature, in lower case

    @property
    def started_at(self) -> datetime | None:
        """When the target's own program began; None when it has not."""
        if self.state not in {"running", "ended", "off", "foreign"} or not self.t0_ns:
            return None
        return datetime.fromtimestamp((self.t0_ns + self.realtime_offset_ns) / 1e9, UTC)


def read_report(path: Path) -> TracerReport | None:
    """Read ``tracer.json``; None when there is none, or none that can be read."""
    try:
        return decode_json(path.read_bytes(), TracerReport, max_bytes=_MAX_REPORT_BYTES)
    except (OSError, MalformedJson):
        return None


def judge(report: TracerReport | None, trace_size: int) -> Verdict:
    """Return the verdict on a trace of ``trace_size`` bytes. ``complete`` must be proven; everything else is not."""
    if report is None:
        return Verdict(state=TraceState.UNTRACED, message="there was no tracer")
    if report.state == "off":
        return Verdict(state=TraceState.UNTRACED, message="tracing was turned off for this session")
    if report.state == "foreign":
        message = "traced by an image of another make, which does not say whether anything is missing"
        return Verdict(state=TraceState.PARTIAL, message=message)
    if report.state == "running":
        remarks = ["the tracer did not come to its end: the tail of the trace is missing", *_remarks(report)]
        return Verdict(
            state=TraceState.PARTIAL,
            events=report.written,
            lost=report.lost,
            unsupported=report.unsupported,
            message="; ".join(remarks),
        )
    if report.state != "ended" or not report.t0_ns:
        return Verdict(state=TraceState.UNTRACED, message=report.error or "the target's own program never ran")
    dropped = sum(report.lost.get(cause.name.lower(), 0) for cause in DROPPING)
    if not report.synced:
        state, remarks = TraceState.PARTIAL, ["nobody knows whether all of the trace is on the disk"]
    elif report.written + dropped != report.seen or report.written_bytes > trace_size:
        state = TraceState.PARTIAL
        remarks = [f"of {report.seen} records {report.written} are written and {dropped} counted as lost"]
    elif report.lost:
        state = TraceState.LOSSY
        remarks = [
            f"{dropped} of {report.seen} records are missing" if dropped else "all records are there, some are cut",
            *(f"{name}: {CAUSES[Cause[name.upper()]]}" for name in report.lost if name.upper() in Cause.__members__),
        ]
    else:
        state, remarks = TraceState.COMPLETE, []
    return Verdict(
        state=state,
        seen=report.seen,
        events=report.written,
        lost=report.lost,
        unsupported=report.unsupported,
        message="; ".join([*remarks, *_remarks(report)]),
    )


def _remarks(report: TracerReport) -> Iterator[str]:
    """What a reader must know of a trace even if nothing is missing in it."""
    if report.error:
        yield report.error
    if report.mode == Mode.SUMMARY:
        yield "calls were counted in the kernel, there are no single ones"
    if report.filtered:
        yield f"{report.filtered} calls were on files that were not asked for"
    if report.unsupported:
        yield f"this kernel does not let the tracer see {describe_unsupported(report.unsupported)}"


def describe_unsupported(names: list[str]) -> str:
    """What these names of features mean, for people."""
    known = {feature.name: text for feature, text in FEATURES.items()}
    return "; ".join(f"{name}: {known.get(name.upper(), 'unknown to this Bedrock')}" for name in names)
