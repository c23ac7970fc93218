"""A trace in the formats that other programs read, as a stream of bytes.

Every format carries what is known of the session, its verdict first of all, so that a file that has been passed on
still says whether anything is missing in it.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from bedrock.errors import InvalidInput
from bedrock.model import Session
from bedrock.trace.decode import Trace
from bedrock.trace.events import Event, batch_of, events_of, marks_of
from bedrock.trace.json_lines import json_lines
from bedrock.trace.names import Names, program_name, read_rows
from bedrock.trace.schema import COLUMNS, SCHEMA
from bedrock.tracer.operations import CLASSES

# How much is gathered before it is handed on.
_PIECE_BYTES = 256 << 10
_ROW_GROUP = 1 << 16
_JSON_ROWS = 1 << 12


class Format(enum.StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"
    CHROME = "chrome"
    V1 = "v1"


CONTENT_TYPES = {
    Format.JSONL: "application/jsonl",
    Format.CSV: "text/csv; charset=utf-8",
    Format.PARQUET: "application/vnd.apache.parquet",
    Format.ARROW: "application/vnd.apache.arrow.stream",
    Format.CHROME: "application/json",
    Format.V1: "text/plain; charset=utf-8",
}
# For the reference: what each is, and where in it the session and its verdict are.
FORMS = {
    Format.JSONL: (
        "one JSON object a line, for each call",
        'the last line, `{"bedrock": {...}}`: it also proves the end',
    ),
    Format.CSV: ("one line for each call, with a header; argument vectors as JSON", "the first line, behind `# `"),
    Format.PARQUET: ("row groups of 65,536 calls, zstd", "the schema's metadata, key `bedrock`"),
    Format.ARROW: ("an Arrow IPC stream", "the schema's metadata, key `bedrock`"),
    Format.CHROME: ("trace events, which Perfetto and chrome://tracing open; times in µs", "`otherData`"),
    Format.V1: ("a line of text for each call, `[time] {pid= tid= proc=}{call}{...}`", "the last line, behind `# `"),
}
SUFFIXES = {Format.CHROME: "trace.json", Format.V1: "txt"}


def parse_format(text: str) -> Format:
    try:
        return Format(text)
    except ValueError:
        raise InvalidInput("format", f"{text[:40]!r} is none of {', '.join(Format)}") from None


def about_session(session: Session) -> dict[str, Any]:
    """What every export says of the session that it comes from."""
    wanted = ("id", "image", "command", "status", "reason", "exit_code", "started_at", "finished_at", "trace", "logs")
    known: dict[str, Any] = msgspec.to_builtins({name: getattr(session, name) for name in wanted})
    return known


def export(path: Path, wanted: Format, about: dict[str, Any]) -> Iterator[bytes]:
    """Yield the trace at ``path`` in a format, piece by piece, in bounded memory.

    ``about`` is written into it. Raises :class:`bedrock.trace.layouts.TraceError`, before the first piece if the file
    is no trace at all.
    """
    trace = Trace(path)
    writers: dict[Format, Callable[[Iterator[pa.RecordBatch], dict[str, Any], Names], Iterator[bytes]]] = {
        Format.JSONL: _jsonl,
        Format.CSV: _csv,
        Format.PARQUET: _parquet,
        Format.ARROW: _arrow,
        Format.CHROME: _chrome,
        Format.V1: _v1,
    }

    def stream() -> Iterator[bytes]:
        start, names = trace.start(), Names()
        known = {
            **about,
            # It is in the session's verdict, too; this is what the trace itself says.
            "unsupported": [] if start is None else start.unsupported,
            "realtime_offset_ns": trace.realtime_offset_ns,
        }
        batches = (batch_of(rows, names) for rows in read_rows(trace, names) if len(rows.calls))
        yield from writers[wanted](batches, known, names)

    return stream()


def _pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    gathered = bytearray()
    for line in lines:
        gathered += line
        if len(gathered) >= _PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


def _jsonl(batches: Iterator[pa.RecordBatch], about: dict[str, Any], names: Names) -> Iterator[bytes]:
    for batch in batches:
        for at in range(0, batch.num_rows, _JSON_ROWS):
            yield json_lines(batch.slice(at, _JSON_ROWS))
    # The last line, so that it also proves that the stream came to its end.
    yield msgspec.json.encode({"bedrock": about}) + b"\n"


_LISTS = {name for name, kind, _ in COLUMNS if pa.types.is_list(kind)}
_CSV_SCHEMA = pa.schema(
    [
        (name, pa.string() if name in _LISTS or pa.types.is_dictionary(kind) else kind)
        for name, kind, _ in COLUMNS
    ]
)  # fmt: skip


# A spreadsheet runs a cell that begins with one of these (also in its full width), unless it is a number.
_FORMULA = re.compile("^[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20]")
_AFTER_SEPARATOR = re.compile(rb"(?<=[,;])[=+\-@]")


def _as_text(cell: str | None) -> str | None:
    """A text that no spreadsheet takes for a formula: what makes it one is escaped as other bytes of names are."""
    if cell is None:
        return None
    return _FORMULA.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in found[0].encode()), cell)


def _texts_only(column: pa.Array) -> pa.Array:
    """A column of texts, each of which is read as a text."""
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    texts = pa.array([_as_text(text) for text in coded.dictionary.to_pylist()], pa.string())
    return texts.take(coded.indices)


def _csv(batches: Iterator[pa.RecordBatch], about: dict[str, Any], names: Names) -> Iterator[bytes]:
    sink = pa.BufferOutputStream()
    writer = pa.csv.CSVWriter(sink, _CSV_SCHEMA)
    writer.close()
    # To a spreadsheet the first line has cells, too. None of these characters follows a comma outside of a JSON string.
    first = _AFTER_SEPARATOR.sub(lambda found: b"\\u%04x" % found[0][0], msgspec.json.encode(about))
    yield b"# " + first + b"\n" + sink.getvalue().to_pybytes()
    options = pa.csv.WriteOptions(include_header=False)
    for batch in batches:
        columns = []
        for field in _CSV_SCHEMA:
            column = batch.column(field.name)
            if field.name in _LISTS:
                column = pa.array([None if words is None else json.dumps(words) for words in column.to_pylist()])
            columns.append(_texts_only(column) if pa.types.is_string(field.type) else column.cast(field.type))
        sink = pa.BufferOutputStream()
        with pa.csv.CSVWriter(sink, _CSV_SCHEMA, write_options=options) as rows:
            rows.write_batch(pa.RecordBatch.from_arrays(columns, schema=_CSV_SCHEMA))
        yield sink.getvalue().to_pybytes()


class _Sink:
    """A file to write to whose content is taken away as it comes."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        content = b"".join(self._pieces)
        self._pieces.clear()
        return content


def _parquet(batches: Iterator[pa.RecordBatch], about: dict[str, Any], names: Names) -> Iterator[bytes]:
    sink = _Sink()
    schema = SCHEMA.with_metadata({"bedrock": msgspec.json.encode(about)})
    with pa.parquet.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata), row_group_size=_ROW_GROUP)
            yield sink.take()
    yield sink.take()


def _arrow(batches: Iterator[pa.RecordBatch], about: dict[str, Any], names: Names) -> Iterator[bytes]:
    sink = _Sink()
    schema = SCHEMA.with_metadata({"bedrock": msgspec.json.encode(about)})
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
            yield sink.take()
    yield sink.take()


_CLASS_OF = {op.name.lower(): name for name, ops in CLASSES.items() for op in ops}
_INSTANT = {"fork", "exit", "fault", "fault_failed", "page_in", "core_dump"}


def _chrome(batches: Iterator[pa.RecordBatch], about: dict[str, Any], names: Names) -> Iterator[bytes]:
    """The trace event format, which Perfetto and chrome://tracing open. Times are in µs there."""

    def lines() -> Iterator[bytes]:
        yield b'{"displayTimeUnit":"ns","otherData":%s,"traceEvents":[' % msgspec.json.encode(about)
        separator = b"\n"
        for batch in batches:
            for event in events_of(batch):
                yield separator + msgspec.json.encode(_chrome_event(event))
                separator = b",\n"
        for task in names.tasks:
            program = program_name(names.text(task.program))
            if task.pid == task.tid and program:
                named = {"ph": "M", "name": "process_name", "pid": task.pid, "args": {"name": program}}
                yield separator + msgspec.json.encode(named)
                separator = b",\n"
        yield b"\n]}\n"

    return _pieces(lines())


def _chrome_event(event: Event) -> dict[str, Any]:
    given = ("path", "raw", "second", "argv", "fd", "file", "offset", "requested", "result", "error")
    shown: dict[str, Any] = {
        "name": event.op,
        "cat": _CLASS_OF.get(event.op, "process"),
        "pid": event.pid,
        "tid": event.tid,
        "ts": event.t_ns / 1e3,
        "args": {
            **{name: value for name in given if (value := getattr(event, name)) is not None},
            **dict.fromkeys(marks_of(event), True),
        },
    }
    if event.op in _INSTANT:
        return {**shown, "ph": "i", "s": "t"}
    return {**shown, "ph": "X", "dur": event.duration_ns / 1e3}


def _v1(batches: Iterator[pa.RecordBatch], about: dict[str, Any], names: Names) -> Iterator[bytes]:
    """Lines of text: ``[time] {pid= tid= proc=}{call}{name=value ...}``, one for each call.

    Times are seconds of the wall clock. Strings are quoted as in JSON, so that a name with a brace or a line break in
    it does not break the line.
    """
    offset_ns = about["realtime_offset_ns"] + (names.start.time_ns if names.start is not None else 0)

    def lines() -> Iterator[bytes]:
        nonlocal offset_ns
        for batch in batches:
            if names.start is not None:
                offset_ns = about["realtime_offset_ns"] + names.start.time_ns
            for event in events_of(batch):
                yield _v1_line(event, offset_ns)
        yield b"# " + msgspec.json.encode(about) + b"\n"

    return _pieces(lines())


def _or_unknown(result: int | None) -> str:
    return "?" if result is None else str(result)


def _v1_line(event: Event, offset_ns: int) -> bytes:
    at_ns = event.t_ns + offset_ns
    given = ("fd", "path", "raw", "second", "argv", "offset", "requested")
    values = [f"{name}={json.dumps(getattr(event, name))}" for name in given if getattr(event, name) is not None]
    values += [f"{name}=true" for name in marks_of(event)]
    values.append(f"err={event.error}" if event.error is not None else f"ret={_or_unknown(event.result)}")
    values.append(f"dur={event.duration_ns}")
    process = f"pid={event.pid} tid={event.tid} proc={json.dumps(program_name(event.program))}"
    stamp = f"{at_ns // 1_000_000_000}.{at_ns % 1_000_000_000:09d}"
    return f"[{stamp}] {{{process}}}{{{event.op}}}{{{' '.join(values)}}}\n".encode()
