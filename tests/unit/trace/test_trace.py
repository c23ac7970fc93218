"""The trace format in C and in numpy, reading whole and broken traces, and the verdict."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedrock.model import TraceState
from bedrock.trace.decode import Trace, TraceError
from bedrock.trace.events import format_event, read_events
from bedrock.trace.summary import summarise
from bedrock.trace.verdict import TracerReport, judge, read_report
from bedrock.tracer.format import (
    FILE_HEADER,
    LAYOUT,
    MAGIC,
    VERSION,
    CallFlag,
    Op,
    RecordType,
    TextFlag,
    c_header,
    dtype_of,
)

_KNOWN = CallFlag.HAS_FILE | CallFlag.HAS_OFFSET


def record(kind: RecordType, text: bytes = b"", **fields: int) -> bytes:
    """The bytes of one record, as the tracer writes it."""
    row = np.zeros(1, dtype_of(LAYOUT[kind]))
    padding = -(row.itemsize + len(text)) % 8
    row["size"], row["type"] = row.itemsize + len(text) + padding, kind
    for name, value in fields.items():
        row[name] = value
    return row.tobytes() + text + bytes(padding)


def text_record(kind: RecordType, text: bytes, **fields: int) -> bytes:
    return record(kind, text, text_size=len(text), **fields)


def header(version: int = VERSION) -> bytes:
    row = np.zeros(1, dtype_of(FILE_HEADER))
    row["magic"], row["version"] = int.from_bytes(MAGIC, "little"), version
    row["header_size"], row["realtime_offset_ns"] = row.itemsize, 5
    return row.tobytes()


def call(op: Op, time_ns: int, **fields: int) -> bytes:
    return record(RecordType.CALL, op=op, time_ns=time_ns, tid=7, tgid=7, **fields)


def sample(reads: int = 3) -> bytes:
    """A process that opens a file, fails to open another, and reads."""
    return b"".join(
        [
            header(),
            record(RecordType.START, time_ns=1),
            record(RecordType.PROCESS, tid=7, tgid=7, time_ns=2, container_pid=1, container_tid=1),
            text_record(RecordType.ARGV, b"cat\0/x\0", tid=7, time_ns=2),
            call(Op.EXECVE, 2),
            text_record(RecordType.STRING, b"/x", tid=7, time_ns=3),
            text_record(RecordType.FILE, b"x/y/", tid=7, time_ns=3, inode=9, device=4, mode=0o100644),
            call(Op.OPENAT, 3, result=3, fd=3, inode=9, device=4, flags=CallFlag.HAS_FILE),
            text_record(RecordType.STRING, b"/no\xff", tid=7, time_ns=4),
            call(Op.OPENAT, 4, result=-2),
            *(
                call(
                    Op.READ, 5 + number, result=100, requested=128, offset=100 * number, inode=9, device=4, flags=_KNOWN
                )
                for number in range(reads)
            ),
            record(RecordType.END, time_ns=1_000_000, seen=9, written=9),
        ]
    )


def test_c_and_numpy_lay_every_record_out_alike(tmp_path: Path) -> None:
    lines = [
        "#include <stddef.h>",
        "#include <stdint.h>",
        "#include <stdio.h>",
        '#include "bdt_format.h"',
        "int main(void) {",
    ]
    expected = []
    for name, fields in [
        ("file_header", FILE_HEADER),
        *((kind.name.lower(), layout) for kind, layout in LAYOUT.items()),
    ]:
        dtype = dtype_of(fields)
        for field in fields:
            lines.append(f'printf("%zu\\n", offsetof(struct bdt_{name}, {field.name}));')
            expected.append(dtype.fields[field.name][1])  # type: ignore[index]
    source = tmp_path / "offsets.c"
    source.write_text("\n".join([*lines, "}"]))
    (tmp_path / "bdt_format.h").write_text(c_header())
    subprocess.run(["gcc", str(source), "-o", str(tmp_path / "offsets")], check=True)
    printed = subprocess.run([str(tmp_path / "offsets")], check=True, capture_output=True, text=True).stdout
    assert [int(line) for line in printed.split()] == expected


def test_a_trace_adds_up(tmp_path: Path) -> None:
    path = tmp_path / "trace.bdt"
    path.write_bytes(sample(reads=1000))
    summary = summarise(path)
    assert summary.is_whole
    (use,) = summary.files
    assert (use.path, use.opens, use.reads, use.read_bytes, use.writes) == ("/y/x", 1, 1000, 100_000, 0)
    assert [(failed.path, failed.errno, failed.count) for failed in summary.failed_opens] == [("/no\\xff", 2, 1)]
    assert [(process.pid, process.argv) for process in summary.processes] == [(1, ["cat", "/x"])]
    events = list(read_events(path))
    assert [event.op for event in events[:3]] == ["execve", "openat", "openat"]
    assert events[2].error == "ENOENT"
    assert [event.offset for event in events[3:]] == [100 * number for number in range(1000)]
    assert "openat /y/x (/x) fd=3 = 3" in format_event(events[1])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(size=st.integers(24, len(sample()) - 1))
def test_a_trace_that_breaks_off_is_read_up_to_there_and_says_so(
    size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.bdt"
    path.write_bytes(sample()[:size])
    assert not summarise(path).is_whole
    assert len(list(read_events(path))) <= 6


def test_unknown_records_are_stepped_over(tmp_path: Path) -> None:
    unknown = bytearray(record(RecordType.START))
    unknown[2:4] = (999).to_bytes(2, "little")
    path = tmp_path / "trace.bdt"
    path.write_bytes(header() + bytes(unknown) + sample()[len(header()) :])
    assert summarise(path).is_whole


@pytest.mark.parametrize("content", [b"", b"nonsense" * 10, header(VERSION + 1)])
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace.bdt"
    path.write_bytes(content)
    with pytest.raises(TraceError):
        Trace(path)


def test_chunks_that_cut_records_apart_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.bdt"
    path.write_bytes(sample(reads=50))
    whole = list(read_events(path))
    for size in (17, 80, 333):
        monkeypatch.setattr("bedrock.trace.decode._CHUNK_BYTES", size)
        assert list(read_events(path)) == whole
        assert summarise(path).files[0].reads == 50


def test_paths_of_pipes_and_of_what_lies_outside(tmp_path: Path) -> None:
    records = [
        text_record(RecordType.FILE, b"", inode=5, mode=0o010600, flags=TextFlag.OUTSIDE),
        text_record(RecordType.FILE, b"b/a/", inode=6, mode=0o100600, flags=TextFlag.OUTSIDE),
        text_record(RecordType.FILE, b"", inode=7, mode=0o040755),
    ]
    calls = [call(Op.READ, 1, inode=inode, flags=CallFlag.HAS_FILE) for inode in (5, 6, 7)]
    path = tmp_path / "trace.bdt"
    path.write_bytes(header() + b"".join(records + calls))
    assert [event.path for event in read_events(path)] == ["pipe:[5]", "(outside)/a/b", "/"]


@pytest.mark.parametrize(
    ("report", "state"),
    [
        (None, TraceState.UNTRACED),
        (TracerReport(state="attached"), TraceState.UNTRACED),
        (TracerReport(state="failed", error="no"), TraceState.UNTRACED),
        (TracerReport(state="exec_failed", error="no"), TraceState.UNTRACED),
        (TracerReport(state="ended"), TraceState.UNTRACED),
        (TracerReport(state="running", t0_ns=1), TraceState.PARTIAL),
        (TracerReport(state="ended", t0_ns=1, seen=5, written=5, written_bytes=100), TraceState.COMPLETE),
        (TracerReport(state="ended", t0_ns=1, seen=5, written=5, written_bytes=101), TraceState.PARTIAL),
        (TracerReport(state="ended", t0_ns=1, seen=6, written=5, written_bytes=100), TraceState.PARTIAL),
        (TracerReport(state="ended", t0_ns=1, seen=6, written=5, lost={"ring_full": 1}), TraceState.LOSSY),
        (TracerReport(state="ended", t0_ns=1, seen=5, written=5, lost={"string_cut": 1}), TraceState.LOSSY),
        (TracerReport(state="ended", t0_ns=1, seen=6, written=5, lost={"string_cut": 1}), TraceState.PARTIAL),
    ],
)
def test_only_what_is_proven_is_complete(report: TracerReport | None, state: TraceState) -> None:
    verdict = judge(report, 100)
    assert verdict.state is state
    assert bool(verdict.message) == (state is not TraceState.COMPLETE)


def test_a_report_that_can_t_be_read_is_none(tmp_path: Path) -> None:
    path = tmp_path / "tracer.json"
    assert read_report(path) is None
    path.write_text("{")
    assert read_report(path) is None
    path.write_text('{"state":"running","t0_ns":1000000000,"realtime_offset_ns":1000000000}')
    report = read_report(path)
    assert report is not None
    assert report.started_at is not None
    assert report.started_at.timestamp() == 2
