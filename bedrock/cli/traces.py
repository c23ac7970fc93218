"""trace, report, diff: what a session's container read and wrote."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import click
import msgspec
import trio

from bedrock.cli.common import async_command, json_option, size_text
from bedrock.cli.output import fail, print_export, print_json, print_json_line, print_table, say
from bedrock.client import Client, open_client
from bedrock.errors import BedrockError
from bedrock.model import Session, TraceState, Verdict
from bedrock.volume import TRACE_FILE

if TYPE_CHECKING:
    from bedrock.trace.summary import FileUse, TraceSummary

_SHOWN_ALIASES = 3
# Reading traces needs large libraries; they are imported where they are needed, so that every other command is quick.


@click.command()
@click.argument("session_id", metavar="ID")
@click.option("--events", "wants_events", is_flag=True, help="The calls themselves, one a line.")
@click.option("--format", "format_name", metavar="FORMAT", help="Export: jsonl, csv, parquet, arrow, chrome or v1.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write an export.  [standard output]")
@click.option("--path", "paths", multiple=True, metavar="PATH", help="Show what is at or below PATH only; repeatable.")
@json_option
@async_command
async def trace(
    session_id: str,
    *,
    wants_events: bool,
    format_name: str | None,
    output: Path | None,
    paths: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the files that a session used: calls and bytes, first and last use.

    A file is shown under its last known name, with the others that it had; --path finds it by any of them. With
    --events, or with --format, the single calls instead. The verdict of the trace goes to standard error, and it is in
    every export.
    """
    from bedrock.trace.export import parse_format

    if format_name is not None and paths:
        fail(BedrockError("--path is for the table and for --events; an export has all calls"), 2)
    async with open_client() as client:
        if format_name is not None:
            wanted = parse_format(format_name)
            session = (await client.get(session_id)).session
            async with _downloaded(client, session_id) as path:
                await trio.to_thread.run_sync(_export, path, wanted, session, output)
            _tell_verdict(session.trace)
            return
        if wants_events:
            async with _downloaded(client, session_id) as path:
                await trio.to_thread.run_sync(_print_events, path, paths, as_json)
            return
        session = (await client.get(session_id)).session
        content = await client.trace(session_id)
    summary = _chosen(content, paths)
    if as_json:
        print_json(summary)
        return
    _print_summary(summary)
    if session.trace is not None:
        lost = "".join(f", {count} {cause}" for cause, count in session.trace.lost.items())
        say(f"trace {session.trace.state}: {session.trace.events} records{lost} {session.trace.message}".rstrip())


@click.command()
@click.argument("session_id", metavar="ID")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page to write.  [ID.html]")
@json_option
@async_command
async def report(session_id: str, output: Path | None, as_json: bool) -> None:
    """Write the report on a session's trace: one page that needs no network.

    It shows the verdict, the files by bytes, offsets over time, sizes, order and latency of the accesses, the working
    set, failed look-ups, processes, and the files of the image that were never touched. With --json the same as data.
    """
    async with open_client() as client:
        session = (await client.get(session_id)).session
        content = await client.report(session_id, as_page=not as_json)
    if as_json and output is None:
        print_json_line(content)
    else:
        path = output or Path(f"{session_id}.html")
        await anyio.Path(path).write_bytes(content)
        say(f"{path} ({size_text(len(content))})", err=True)
    _tell_verdict(session.trace)


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@json_option
@async_command
async def diff(first: str, second: str, as_json: bool) -> int:
    """Compare what two sessions did: files, bytes, calls and their latency, look-ups, programs.

    Exits with 1 when B used other files than A, or used them otherwise, as diff(1) does.
    """
    from bedrock.trace.diff import compare
    from bedrock.trace.summary import TraceSummary

    async with open_client() as client:
        sessions = [(await client.get(session_id)).session for session_id in (first, second)]
        contents = [await client.trace(session_id) for session_id in (first, second)]
    a, b = (msgspec.json.decode(content, type=TraceSummary) for content in contents)
    found = compare(a, b)
    if as_json:
        print_json(found)
    else:
        rows = [
            [item.change, item.path, _from_to(item.read_bytes), _from_to(item.written_bytes)] for item in found.files
        ]
        print_table(["", "FILE", "READ", "WRITTEN"], rows, right=["READ", "WRITTEN"])
        for sign, what, names in (
            ("+", "looked for in vain", found.lookups_added),
            ("-", "looked for in vain", found.lookups_removed),
            ("+", "ran", found.programs_added),
            ("-", "ran", found.programs_removed),
        ):
            for name in names:
                say(f"{sign} {what}: {name}")
        rows = [
            [op.op, f"{op.calls[0]} → {op.calls[1]}", f"{op.mean_ns[0] / 1e3:.1f} → {op.mean_ns[1] / 1e3:.1f}"]
            for op in found.ops
        ]
        print_table(["CALL", "TIMES", "MEAN µs"], rows, right=["TIMES", "MEAN µs"])
        say(f"{found.same_files} files were used alike")
    for session in sessions:
        _tell_verdict(session.trace)
    return 0 if found.is_empty else 1


def _from_to(sizes: tuple[int, int]) -> str:
    return f"{size_text(sizes[0])} → {size_text(sizes[1])}"


@asynccontextmanager
async def _downloaded(client: Client, session_id: str) -> AsyncIterator[Path]:
    """The trace as a local file: what is stored is a hundredth of what an export has."""
    with tempfile.TemporaryDirectory(prefix="bedrock-trace-") as directory:
        path = Path(directory, TRACE_FILE)
        await client.download(session_id, TRACE_FILE, path)
        yield path


def _export(path: Path, wanted: str, session: Session, output: Path | None) -> None:
    from bedrock.trace.export import Format, about_session, export

    if output is None and wanted in {Format.PARQUET, Format.ARROW} and sys.stdout.isatty():
        fail(BedrockError(f"{wanted} is not for a terminal; name a file with -o"), 2)
    pieces = export(path, Format(wanted), about_session(session))
    if output is None:
        print_export(pieces, is_csv=wanted == Format.CSV)
        return
    with output.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def _print_events(path: Path, paths: tuple[str, ...], as_json: bool) -> None:
    from bedrock.trace.events import format_event, read_events
    from bedrock.trace.find import select_events
    from bedrock.trace.summary import summarise

    events = select_events(read_events(path), summarise(path), paths) if paths else read_events(path)
    for event in events:
        if as_json:
            print_json_line(msgspec.json.encode(event))
        else:
            say(format_event(event))


def _chosen(content: bytes, paths: tuple[str, ...]) -> TraceSummary:
    from bedrock.trace.find import select_files
    from bedrock.trace.summary import TraceSummary

    summary = msgspec.json.decode(content, type=TraceSummary)
    return select_files(summary, paths) if paths else summary


def _names(use: FileUse) -> str:
    if not use.aliases:
        return use.path
    more = f" and {len(use.aliases) - _SHOWN_ALIASES} more" if len(use.aliases) > _SHOWN_ALIASES else ""
    return f"{use.path} (also {', '.join(use.aliases[:_SHOWN_ALIASES])}{more})"


def _print_summary(summary: TraceSummary) -> None:
    from bedrock.trace.errnos import error_name

    rows = [
        [
            _names(use),
            str(use.opens),
            str(use.reads),
            size_text(use.read_bytes),
            str(use.writes),
            size_text(use.written_bytes),
            str(use.maps),
            str(use.faults),
            f"{use.first_use_s:.3f}",
            f"{use.last_use_s:.3f}",
        ]
        for use in summary.files
    ]
    columns = ["FILE", "OPENS", "READS", "READ", "WRITES", "WRITTEN", "MAPS", "FAULTS", "FIRST s", "LAST s"]
    print_table(columns, rows, right=columns[1:])
    for failed in summary.failed_opens:
        name = error_name(failed.errno)
        say(f"could not be opened: {failed.path} ({name}, {failed.count} times)")


def _tell_verdict(verdict: Verdict | None) -> None:
    state = verdict.state if verdict is not None else TraceState.UNTRACED
    message = f": {verdict.message}" if verdict is not None and verdict.message else ""
    say(f"trace {state}{message}", err=True)
