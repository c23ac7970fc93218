"""The exports, read by other programs than ours."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pytest
from traces import call, end, file, process, sample, start, text_record, trace

from bedrock.errors import InvalidInput
from bedrock.trace.blocks import TraceError
from bedrock.trace.events import read_events
from bedrock.trace.export import Format, export, parse_format
from bedrock.trace.schema import COLUMNS
from bedrock.tracer.format import RecordType
from bedrock.tracer.operations import Op

ABOUT = {"id": "01", "trace": {"state": "lossy", "lost": {"ring_full": 3}}}


@pytest.fixture
def exported(write: Callable[..., Path]) -> Callable[..., bytes]:
    """The sample in a format, out of several blocks."""

    def make(wanted: Format, records: list[bytes] | None = None) -> bytes:
        path = write(records if records is not None else sample(200), per_block=64)
        return b"".join(export(path, wanted, ABOUT))

    return make


def lines_of(content: bytes) -> tuple[list[Any], Any]:
    *events, last = (json.loads(line) for line in content.splitlines())
    return events, last["bedrock"]


def test_duckdb_finds_in_the_parquet_what_the_json_lines_have(exported: Callable[..., bytes], tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    path.write_bytes(exported(Format.PARQUET))
    events, about = lines_of(exported(Format.JSONL))
    with duckdb.connect() as database:
        rows = database.execute(
            'select op, count(*), sum(result), max("offset") from read_parquet(?) group by op', [str(path)]
        ).fetchall()
        described = database.execute("describe from read_parquet(?)", [str(path)]).fetchall()
        (metadata,) = database.execute(
            "select value from parquet_kv_metadata(?) where key = 'bedrock'", [str(path)]
        ).fetchone() or (b"{}",)
    assert {op: (count, result, offset) for op, count, result, offset in rows} == {
        "execve": (1, 0, None),
        "openat": (2, 3, None),
        "read": (200, 200 * 100, 199 * 100),
    }
    assert sum(row[1] for row in rows) == len(events) == 203
    assert {row[0] for row in described} == {name for name, _, _ in COLUMNS}
    assert json.loads(metadata)["trace"] == about["trace"] == ABOUT["trace"]


def test_every_line_of_json_is_an_event_and_the_last_one_the_verdict(exported: Callable[..., bytes]) -> None:
    events, about = lines_of(exported(Format.JSONL))
    shown = {name: value for name, value in events[0].items() if name != "fd"}
    assert shown == {
        "t_ns": 1, "pid": 1, "tid": 1, "program": "/bin/cat", "op": "execve", "result": 0, "raw": "/bin/cat",
        "argv": ["cat", "/x"], "path": "/bin/cat", "process": 0,
    }  # fmt: skip
    assert events[2]["error"] == "ENOENT"
    # What is no UTF-8 is kept, as Python's surrogateescape has it, in a form that JSON can carry.
    assert events[2]["raw"] == "/no\\xff"
    assert about["id"] == "01"


def test_the_lines_of_json_are_the_events_with_nothing_more_or_less(write: Callable[..., Path]) -> None:
    records = [
        *sample(300)[:-1],
        process(2, pid=2, parent=7),
        text_record(RecordType.STRING, b'a "quoted"\n\xe2\x82\xac', tid=2, time_ns=60),
        call(Op.OPENAT, 60, tid=2, tgid=2, result=-2, arg=0o100),
        call(Op.FORK, 62, arg=3),
        call(Op.EXIT, 63, result=256),
        end(),
    ]  # fmt: skip
    path = write(records, per_block=64)
    events, _ = lines_of(b"".join(export(path, Format.JSONL, ABOUT)))
    assert events == [msgspec.to_builtins(event) for event in read_events(path)]
    assert len(events) == 306


def test_csv_has_a_column_for_each_field_and_the_verdict_in_a_comment(exported: Callable[..., bytes]) -> None:
    first, rest = exported(Format.CSV).decode().split("\n", maxsplit=1)
    assert json.loads(first.removeprefix("# "))["trace"] == ABOUT["trace"]
    rows = list(csv.DictReader(io.StringIO(rest)))
    assert list(rows[0]) == [name for name, _, _ in COLUMNS]
    assert len(rows) == 203
    assert json.loads(rows[0]["argv"]) == ["cat", "/x"]
    assert (rows[3]["op"], rows[3]["path"], rows[3]["offset"], rows[3]["result"]) == ("read", "/y/x", "0", "100")


def test_arrow_streams_the_same_rows_with_what_each_column_means(exported: Callable[..., bytes]) -> None:
    with pa.ipc.open_stream(exported(Format.ARROW)) as reader:
        assert reader.schema.metadata[b"bedrock"]
        assert reader.schema.field("t_ns").metadata[b"description"].startswith(b"when the call began")
        table = reader.read_all()
    assert table.num_rows == 203
    assert table["path"].to_pylist()[3] == "/y/x"


def test_perfetto_gets_slices_instants_and_the_names_of_processes(exported: Callable[..., bytes]) -> None:
    content = json.loads(exported(Format.CHROME, [*sample(2)[:-1], call(Op.EXIT, 50), end()]))
    assert content["otherData"]["trace"] == ABOUT["trace"]
    slices = [event for event in content["traceEvents"] if event["ph"] == "X"]
    assert [(event["name"], event["dur"]) for event in slices][-1] == ("read", 1.0)
    assert [event["name"] for event in content["traceEvents"] if event["ph"] == "i"] == ["exit"]
    assert [event["args"]["name"] for event in content["traceEvents"] if event["ph"] == "M"] == ["cat"]


def test_the_go_fleets_lines_have_a_time_a_process_a_call_and_its_values(exported: Callable[..., bytes]) -> None:
    *lines, last = exported(Format.V1).decode().splitlines()
    assert len(lines) == 203
    assert json.loads(last.removeprefix("# "))["trace"] == ABOUT["trace"]
    shape = re.compile(r"\[\d+\.\d{9}\] \{pid=1 tid=1 proc=\"cat\"\}\{\w+\}\{.*\}")
    assert all(shape.fullmatch(line) for line in lines)
    assert lines[3].endswith('{read}{fd=0 path="/y/x" offset=0 requested=128 ret=100 dur=1000}')


@pytest.mark.parametrize("wanted", list(Format))
def test_an_export_comes_in_pieces_and_may_be_broken_off(write: Callable[..., Path], wanted: Format) -> None:
    path = write(sample(20_000), per_block=2_000)
    pieces = export(path, wanted, ABOUT)
    sizes = [len(next(pieces)) for _ in range(3)]
    assert max(sizes) < 1 << 20
    pieces.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("wanted", list(Format))
def test_a_trace_without_a_call_is_still_a_file_of_its_format(exported: Callable[..., bytes], wanted: Format) -> None:
    assert b"lossy" in exported(wanted, [start(), process(), end()])


def test_names_with_line_breaks_and_quotes_break_nothing(exported: Callable[..., bytes]) -> None:
    name = b'/a\n"}{,b\r\x00\x1b'.replace(b"\x00", b"")
    records = [
        start(), process(), text_record(RecordType.STRING, name, tid=7, time_ns=3), file(name, inode=3, time_ns=3),
        call(Op.OPENAT, 3, result=3, fd=3, inode=3, device=4, flags=1), end(),
    ]  # fmt: skip
    events, _ = lines_of(exported(Format.JSONL, records))
    assert [event["raw"] for event in events] == [name.decode()]
    rows = list(csv.DictReader(io.StringIO(exported(Format.CSV, records).decode().split("\n", 1)[1], newline="")))
    assert [row["raw"] for row in rows] == [name.decode()]
    assert len(exported(Format.V1, records).splitlines()) == 2


def test_an_unknown_format_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match="none of jsonl, csv, parquet, arrow, chrome, v1"):
        parse_format("xml")


def test_what_is_no_trace_fails_before_the_first_piece(tmp_path: Path) -> None:
    path = tmp_path / "trace.bdt"
    path.write_bytes(b"GIF89a" * 20)
    with pytest.raises(TraceError):
        export(path, Format.JSONL, {})


def test_events_and_rows_are_the_same(write: Callable[..., Path], exported: Callable[..., bytes]) -> None:
    path = write(sample(5))
    direct = [event.op for event in read_events(path)]
    assert [event["op"] for event in lines_of(exported(Format.JSONL, sample(5)))[0]] == direct
    assert trace(sample(5))[:4] == path.read_bytes()[:4]
