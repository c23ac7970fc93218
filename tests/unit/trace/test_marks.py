"""Marks of calls, failed faults, interrupted calls and what a kernel does not show, from the trace to its users."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from traces import HAS_FILE, WITH_OFFSET, call, end, file, process, sample, start, text_record

from bedrock.model import TraceState
from bedrock.trace.events import format_event, read_events
from bedrock.trace.export import Format, export
from bedrock.trace.page import page_of
from bedrock.trace.report import report_of
from bedrock.trace.schema import MARKS
from bedrock.trace.summary import summarise
from bedrock.trace.verdict import TracerReport, judge
from bedrock.tracer.causes import FEATURES, Feature
from bedrock.tracer.format import CallFlag, RecordType
from bedrock.tracer.operations import CLASSES, Op

each_block_size = pytest.mark.parametrize("per_block", [1, 2, 100])


def exported(path: Path, wanted: Format, about: dict[str, Any] | None = None) -> bytes:
    return b"".join(export(path, wanted, about or {}))


def test_every_mark_is_in_every_export_and_nowhere_else(write: Callable[..., Path]) -> None:
    marked = [call(Op.READ, 10 + n, inode=9, device=4, flags=HAS_FILE | flag) for n, flag in enumerate(MARKS)]
    path = write([start(), process(), file("/x", inode=9), *marked, call(Op.READ, 90), end()])
    names = [mark.name for mark in MARKS.values()]
    assert {"append", "private", "argument_changed", "argument_late"} <= set(names)
    expected = [[name] for name in names] + [[]]
    lines = [json.loads(line) for line in exported(path, Format.JSONL).splitlines()[:-1]]
    assert [[name for name in names if line.get(name)] for line in lines] == expected
    rows = csv.DictReader(io.StringIO(exported(path, Format.CSV).decode().split("\n", 1)[1]))
    assert [[name for name in names if row[name] == "true"] for row in rows] == expected
    table = pa.ipc.open_stream(exported(path, Format.ARROW)).read_all().to_pylist()
    assert [[name for name in names if row[name]] for row in table] == expected
    slices = [event for event in json.loads(exported(path, Format.CHROME))["traceEvents"] if event["ph"] == "X"]
    assert [[name for name in names if event["args"].get(name)] for event in slices] == expected
    v1 = exported(path, Format.V1).decode().splitlines()[:-1]
    assert [[name for name in names if f"{name}=true" in line] for line in v1] == expected
    assert [[name for name in names if f" {name} " in format_event(event)] for event in read_events(path)] == expected


def test_every_flag_that_says_something_of_a_call_is_a_mark() -> None:
    others = {CallFlag.HAS_FILE, CallFlag.HAS_OFFSET, CallFlag.GROUP_DEAD, CallFlag.FROM_BASE, CallFlag.REQUEST_CUT}
    others |= {CallFlag.IN_ROOT}
    assert set(MARKS) | others == set(CallFlag)


@each_block_size
def test_a_fault_that_ended_in_a_signal_is_not_counted_as_one_that_succeeded(
    write: Callable[..., Path], per_block: int
) -> None:
    def fault(time_ns: int, tid: int = 7, offset: int = 0) -> bytes:
        return call(Op.FAULT, time_ns, tid=tid, inode=9, device=4, flags=WITH_OFFSET, offset=offset, requested=4096)

    path = write(
        [
            start(), process(), process(8, tgid=7, container_tid=2), file("/x", inode=9), fault(1),
            fault(2, offset=4096), fault(3, tid=8, offset=8192), call(Op.FAULT_FAILED, 2),
            call(Op.FAULT_FAILED, 99, tid=55), fault(4), end(),
        ],
        per_block=per_block,
    )  # fmt: skip
    (use,) = summarise(path).files
    assert (use.faults, use.others) == (3, 1)
    assert {op.op: (op.calls, op.errors) for op in summarise(path).ops}["fault"] == (4, 1)
    assert [event.op for event in read_events(path)].count("fault_failed") == 2
    if per_block == 100:
        found = report_of(path, None)
        assert found.timeline is not None
        assert (found.patterns[0].pattern.pages, sum(found.timeline.faults)) == (2, 3)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (4, "EINTR"),
        (512, "ERESTARTSYS"),
        (513, "ERESTARTNOINTR"),
        (514, "ERESTARTNOHAND"),
        (516, "ERESTART_RESTARTBLOCK"),
    ],
)
def test_a_call_that_a_signal_interrupted_has_the_name_that_strace_gives_it(
    write: Callable[..., Path], number: int, name: str
) -> None:
    path = write([process(), call(Op.READ, 1, result=-number)])
    assert [(event.error, event.result) for event in read_events(path)] == [(name, None)]


@pytest.mark.parametrize(
    "op", [Op.BIND, Op.INOTIFY_ADD_WATCH, Op.IOCTL_SETFLAGS, Op.SYNC, Op.FLOCK, Op.RECEIVE_FD, Op.CORE_DUMP]
)
def test_every_kind_of_call_has_a_name_and_its_paths_everywhere(write: Callable[..., Path], op: Op) -> None:
    records = [start(), process(), call(op, 5, fd=3), end()]
    has_path = op in {Op.BIND, Op.INOTIFY_ADD_WATCH}
    if has_path:
        records.insert(2, text_record(RecordType.STRING, b"/run/x", tid=7, time_ns=5))
    path, name = write(records), op.name.lower()
    assert [(event.op, event.raw, event.path) for event in read_events(path)] == [
        (name, *(["/run/x"] * 2 if has_path else [None] * 2))
    ]
    assert [use.op for use in summarise(path).ops] == [name]
    for wanted in (Format.JSONL, Format.CSV, Format.CHROME, Format.V1):
        assert name.encode() in exported(path, wanted)
    assert (op is Op.CORE_DUMP) != any(op in ops for ops in CLASSES.values())


# -- what a kernel does not show


MISSING = Feature.PAGE_FAULTS | Feature.IO_URING_PATHS
NAMES = ["page_faults", "io_uring_paths"]


def test_what_a_kernel_does_not_show_is_in_every_export_in_the_summary_and_on_the_page(
    write: Callable[..., Path],
) -> None:
    path = write([start(unsupported=MISSING), *sample()[1:]])
    assert summarise(path).unsupported == NAMES
    assert json.loads(exported(path, Format.JSONL).splitlines()[-1])["bedrock"]["unsupported"] == NAMES
    for wanted, first in ((Format.CSV, True), (Format.V1, False)):
        lines = exported(path, wanted).splitlines()
        assert json.loads(lines[0 if first else -1].removeprefix(b"# "))["unsupported"] == NAMES
    assert json.loads(exported(path, Format.CHROME))["otherData"]["unsupported"] == NAMES
    schema = pa.ipc.open_stream(exported(path, Format.ARROW)).schema
    assert json.loads(schema.metadata[b"bedrock"])["unsupported"] == NAMES
    schema = pa.parquet.read_schema(io.BytesIO(exported(path, Format.PARQUET)))
    assert json.loads(schema.metadata[b"bedrock"])["unsupported"] == NAMES
    page = page_of(report_of(path, None))
    assert all(f"<code>{name}</code>" in page for name in NAMES)


def test_a_trace_may_be_complete_and_lack_what_its_kernel_does_not_show() -> None:
    report = TracerReport(state="ended", t0_ns=1, seen=5, written=5, unsupported=NAMES)
    verdict = judge(report, 0)
    assert (verdict.state, verdict.unsupported) == (TraceState.COMPLETE, NAMES)
    assert all(FEATURES[Feature[name.upper()]] in verdict.message for name in NAMES)
    running = judge(TracerReport(state="running", t0_ns=1, unsupported=["new_one"]), 0)
    assert (running.state, running.unsupported) == (TraceState.PARTIAL, ["new_one"])
    assert "new_one: unknown to this Bedrock" in running.message
