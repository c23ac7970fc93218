"""The trace format in C and in numpy, reading whole and broken traces, and the verdict."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traces import HAS_FILE, call, end, file, header, process, record, sample, start, text_record, trace

from bedrock.model import TraceState
from bedrock.trace.blocks import TraceError
from bedrock.trace.decode import Trace
from bedrock.trace.events import format_event, read_events
from bedrock.trace.report import report_of
from bedrock.trace.summary import summarise
from bedrock.trace.verdict import TracerReport, judge, read_report
from bedrock.tracer.format import (
    BLOCK_HEADER,
    FILE_HEADER,
    LAYOUT,
    MAGIC,
    NOTE_ENTRY,
    VERSION,
    CallFlag,
    Mode,
    RecordType,
    TextFlag,
    dtype_of,
)
from bedrock.tracer.header import c_header
from bedrock.tracer.operations import Op


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
        ("block_header", BLOCK_HEADER),
        ("note_entry", NOTE_ENTRY),
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


def test_a_trace_adds_up(write: Callable[..., Path]) -> None:
    path = write(sample(reads=1000))
    summary = summarise(path)
    assert summary.is_whole
    (use,) = summary.files
    assert (use.path, use.opens, use.reads, use.read_bytes, use.writes) == ("/y/x", 1, 1000, 100_000, 0)
    assert [(failed.path, failed.errno, failed.count) for failed in summary.failed_opens] == [("/no\\xff", 2, 1)]
    (only,) = summary.processes
    assert (only.pid, only.name, only.argv, only.read_bytes) == (1, "/bin/cat", ["cat", "/x"], 100_000)
    ops = {op.op: op for op in summary.ops}
    assert (ops["read"].calls, ops["read"].duration_ns, ops["openat"].errors) == (1000, 1_000_000, 1)
    assert ops["read"].latency[9] == 1000  # 512 to 1024 ns
    events = list(read_events(path))
    assert [event.op for event in events[:3]] == ["execve", "openat", "openat"]
    assert events[0].argv == ["cat", "/x"]
    assert events[2].error == "ENOENT"
    assert [event.offset for event in events[3:]] == [100 * number for number in range(1000)]
    assert {event.program for event in events} == {"/bin/cat"}
    assert "openat /y/x (/x) fd=3 = 3" in format_event(events[1])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_trace_that_breaks_off_is_read_up_to_there_and_says_so(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = trace(sample(), per_block=2)
    size = data.draw(st.integers(32, len(whole) - 1))
    path = tmp_path_factory.mktemp("trace") / "trace.bdt"
    path.write_bytes(whole[:size])
    assert not summarise(path).is_whole
    assert len(list(read_events(path))) <= 6


@pytest.mark.parametrize("at", [40, -5])
def test_a_damaged_trace_is_refused_with_a_sentence(write: Callable[..., Path], at: int) -> None:
    path = write(sample())
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(TraceError, match="damaged"):
        summarise(path)


@settings(max_examples=300, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 7)), min_size=1, max_size=4),
    cut=st.none() | st.integers(0, 4000),
)
def test_whatever_is_damaged_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], cut: int | None
) -> None:
    content = bytearray(trace(sample(reads=20), per_block=4))
    for at, bit in flips:
        content[at % len(content)] ^= 1 << bit
    path = tmp_path_factory.mktemp("damaged") / "trace.bdt"
    path.write_bytes(content if cut is None else content[:cut])
    with suppress(TraceError):
        report_of(path, None)


@pytest.mark.parametrize(
    "forged",
    [
        start(mode=2**32 - 1),  # type: ignore[arg-type]
        call(300, 5),  # type: ignore[arg-type]
        record(RecordType.OP_TOTAL, tgid=7, op=1030, calls=3),
        record(RecordType.OP_TOTAL, tgid=7, op=int(Op.READ), calls=2**64 - 1),
    ],
)
def test_a_trace_whose_numbers_can_not_be_is_refused(write: Callable[..., Path], forged: bytes) -> None:
    path = write([start(), process(), forged])
    with pytest.raises(TraceError, match="damaged"):
        summarise(path)


def test_an_operation_that_a_later_bedrock_has_is_called_by_its_number(write: Callable[..., Path]) -> None:
    path = write([start(), process(), call(250, 5), end()])  # type: ignore[arg-type]
    assert [use.op for use in summarise(path).ops] == ["250"]
    assert [event.op for event in read_events(path)] == ["250"]
    assert [call.op for call in report_of(path, None).slowest] == ["250"]


def test_any_zstd_tool_reads_a_trace(write: Callable[..., Path]) -> None:
    reader = zstandard.ZstdDecompressor().stream_reader(write(sample()).read_bytes(), read_across_frames=True)
    assert b"/bin/cat" in reader.read()


def test_unknown_records_are_stepped_over(write: Callable[..., Path]) -> None:
    unknown = bytearray(record(RecordType.START))
    unknown[2:4] = (999).to_bytes(2, "little")
    assert summarise(write([bytes(unknown), *sample()])).is_whole


@pytest.mark.parametrize("content", [b"", b"nonsense" * 10, header(VERSION + 1), MAGIC + bytes(40)])
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trace.bdt"
    path.write_bytes(content)
    with pytest.raises(TraceError):
        Trace(path)


def test_where_blocks_end_makes_no_difference(write: Callable[..., Path]) -> None:
    whole = list(read_events(write(sample(reads=50))))
    for size in (1, 2, 3, 7):
        path = write(sample(reads=50), per_block=size)
        assert list(read_events(path)) == whole
        assert summarise(path).files[0].reads == 50
        assert [process.argv for process in summarise(path).processes] == [["cat", "/x"]]


def test_blocks_outside_a_stretch_of_time_give_their_names_only(write: Callable[..., Path]) -> None:
    whole = Trace(write(sample(reads=50), per_block=5))
    blocks = list(whole.blocks(since_ns=40, until_ns=45))
    assert sum(len(block.notes) for block in blocks) == 9
    times = [time for block in blocks for time in block.calls["time_ns"].tolist()]
    assert set(range(40, 46)) <= set(times)
    assert len(times) < 16


def test_paths_of_pipes_and_of_what_lies_outside(write: Callable[..., Path]) -> None:
    nowhere = TextFlag.OUTSIDE | TextFlag.PATHLESS
    records = [
        file("", inode=5, mode=0o010600, flags=nowhere),
        file("/a/b", inode=6, mode=0o100600, flags=TextFlag.OUTSIDE),
        file("", inode=7, mode=0o040755),
        file("memfd:x", inode=8, mode=0o100777, flags=nowhere),
        file("[eventfd]", inode=9, mode=0o600, flags=nowhere),
    ]
    calls = [call(Op.READ, 1, inode=inode, device=4, flags=CallFlag.HAS_FILE) for inode in (5, 6, 7, 8, 9)]
    assert [event.path for event in read_events(write(records + calls))] == [
        "pipe:[5]", "(outside)/a/b", "/", "anon:memfd:x", "anon:[eventfd]",
    ]  # fmt: skip


@pytest.mark.parametrize("per_block", [1, 3, 100])
def test_another_generation_is_another_file_unless_there_was_none(write: Callable[..., Path], per_block: int) -> None:
    def read(time_ns: int, size: int) -> bytes:
        return call(Op.READ, time_ns, result=size, inode=9, device=4, flags=HAS_FILE)

    path = write(
        [
            file("/copied-up", inode=9), read(1, 1), file("/copied-up", inode=9, generation=70), read(2, 10),
            file("/renamed", inode=9, generation=70), read(3, 100), file("/next", inode=9, generation=71),
            read(4, 1000), read(5, 10_000),
        ],
        per_block=per_block,
    )  # fmt: skip
    found = {use.path: (use.read_bytes, use.aliases) for use in summarise(path).files}
    assert found == {"/renamed": (111, ["/copied-up"]), "/next": (11_000, [])}


@pytest.mark.parametrize("per_block", [1, 2, 100])
def test_a_second_path_counts_from_its_own_directory(write: Callable[..., Path], per_block: int) -> None:
    def string(time_ns: int, text: bytes, **fields: object) -> bytes:
        return text_record(RecordType.STRING, text, tid=7, time_ns=time_ns, **fields)

    second = {"flags": TextFlag.SECOND}
    path = write(
        [
            file("/from", inode=1, mode=0o040755), file("/to", inode=2, mode=0o040755),
            string(1, b"a"), string(1, b"b", inode=2, device=4, **second),
            call(Op.RENAMEAT2, 1, inode=1, device=4, flags=CallFlag.FROM_BASE),
            file("/elsewhere", inode=2, mode=0o040755),
            string(2, b"/a"), string(2, b"../b", inode=2, device=4, **second), call(Op.LINKAT, 2),
            string(3, b"/a"), string(3, b"/b", **second), call(Op.RENAME, 3),
            string(4, b"/link"), string(4, b"./what it says", **second), call(Op.SYMLINK, 4),
            string(5, b"/a"), string(5, b"user.name", **second), call(Op.GETXATTR, 5),
        ],
        per_block=per_block,
    )  # fmt: skip
    told = [(event.path, event.second, event.second_raw) for event in read_events(path)]
    assert told == [
        ("/from/a", "/to/b", "b"),
        ("/a", "/b", "../b"),
        ("/a", "/b", "/b"),
        ("/link", "./what it says", "./what it says"),
        ("/a", "user.name", "user.name"),
    ]


@pytest.mark.parametrize("per_block", [1, 3, 100])
def test_a_call_takes_the_name_that_held_when_it_was_made(write: Callable[..., Path], per_block: int) -> None:
    def read(time_ns: int, inode: int = 9) -> bytes:
        return call(Op.READ, time_ns, inode=inode, device=4, flags=HAS_FILE)

    path = write(
        [
            file("/old", inode=9), read(1), file("/other", inode=10), read(2, 10), read(3), file("/new", inode=9),
            read(4), read(5, 10),
        ],
        per_block=per_block,
    )  # fmt: skip
    assert [event.path for event in read_events(path)] == ["/old", "/other", "/old", "/new", "/other"]
    assert {use.path: use.aliases for use in summarise(path).files} == {"/new": ["/old"], "/other": []}


@pytest.mark.parametrize("per_block", [1, 4, 100])
def test_a_number_of_a_thread_may_be_used_again(write: Callable[..., Path], per_block: int) -> None:
    path = write(
        [
            process(7, pid=1), call(Op.READ, 3), process(8, pid=2, parent=7), call(Op.READ, 4, tid=8, tgid=8),
            process(8, pid=3, parent=7), call(Op.READ, 5, tid=8, tgid=8), call(Op.READ, 6),
        ],
        per_block=per_block,
    )  # fmt: skip
    assert [event.pid for event in read_events(path)] == [1, 2, 3, 1]


def test_two_threads_that_begin_in_the_same_nanosecond_keep_their_arguments(write: Callable[..., Path]) -> None:
    path = write(
        [
            *(text_record(RecordType.STRING, b"/of/%d" % tid, tid=tid, time_ns=3) for tid in (9, 7, 8)),
            *(call(Op.STAT, 3, tid=tid, result=-2) for tid in (8, 9, 7)),
        ]
    )
    assert [event.path for event in read_events(path)] == ["/of/8", "/of/9", "/of/7"]


def test_paths_of_a_process_with_another_root_count_from_there(write: Callable[..., Path]) -> None:
    path = write(
        [
            file("/jail", inode=3, mode=0o040755),
            text_record(RecordType.STRING, b"/etc/x", tid=7, time_ns=3),
            call(Op.STAT, 3, inode=3, device=4, flags=CallFlag.FROM_BASE, result=-2),
        ]
    )
    assert [event.path for event in read_events(path)] == ["/jail/etc/x"]


def test_what_was_counted_in_the_kernel_adds_up_like_single_calls(write: Callable[..., Path]) -> None:
    latency = [0] * 32
    latency[9] = 3
    path = write(
        [
            start(mode=Mode.SUMMARY),
            process(),
            file("/y/x", inode=9),
            record(
                RecordType.FILE_TOTAL, tgid=7, inode=9, device=4, opens=1, reads=3, read_bytes=300,
                read_latency=latency, first_ns=5, last_ns=9,
            ),
            record(RecordType.OP_TOTAL, tgid=7, op=Op.READ, calls=3, duration_ns=3000, latency=latency),
            end(),
        ]
    )  # fmt: skip
    summary = summarise(path)
    assert summary.mode == "summary"
    (use,) = summary.files
    assert (use.path, use.opens, use.reads, use.read_bytes) == ("/y/x", 1, 3, 300)
    assert [(op.op, op.calls, op.latency[9]) for op in summary.ops] == [("read", 3, 3)]
    assert [(process.calls, process.read_bytes) for process in summary.processes] == [(3, 300)]


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
