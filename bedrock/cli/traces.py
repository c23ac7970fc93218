"""trace: what a session's container read and wrote."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import click
import msgspec
import trio

from bedrock.cli.common import async_command, json_option, print_table, size_text
from bedrock.client import Client, open_client
from bedrock.trace.events import format_event, read_events
from bedrock.trace.summary import TraceSummary
from bedrock.volume import TRACE_FILE


@click.command()
@click.argument("session_id", metavar="ID")
@click.option("--events", "wants_events", is_flag=True, help="The calls themselves, one a line.")
@json_option
@async_command
async def trace(session_id: str, wants_events: bool, as_json: bool) -> None:
    """Show the files that a session used: calls and bytes, first and last use."""
    async with open_client() as client:
        if wants_events:
            await _print_events(client, session_id, as_json=as_json)
            return
        found = await client.get(session_id)
        content = await client.trace(session_id)
    if as_json:
        click.echo(msgspec.json.format(content, indent=2))
        return
    summary = msgspec.json.decode(content, type=TraceSummary)
    rows = [
        [
            use.path,
            str(use.opens),
            str(use.reads),
            size_text(use.read_bytes),
            str(use.writes),
            size_text(use.written_bytes),
            str(use.maps),
            f"{use.first_use_s:.3f}",
            f"{use.last_use_s:.3f}",
        ]
        for use in summary.files
    ]
    columns = ["FILE", "OPENS", "READS", "READ", "WRITES", "WRITTEN", "MAPS", "FIRST s", "LAST s"]
    print_table(columns, rows, right=columns[1:])
    for failed in summary.failed_opens:
        name = errno.errorcode.get(failed.errno, str(failed.errno))
        click.echo(f"could not be opened: {failed.path} ({name}, {failed.count} times)")
    verdict = found.session.trace if found is not None else None
    if verdict is not None:
        lost = "".join(f", {count} {cause}" for cause, count in verdict.lost.items())
        click.echo(f"trace {verdict.state}: {verdict.events} records{lost} {verdict.message}".rstrip())


async def _print_events(client: Client, session_id: str, *, as_json: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="bedrock-trace-") as directory:
        path = Path(directory, TRACE_FILE)
        await client.download(session_id, TRACE_FILE, path)

        def write() -> None:
            for event in read_events(path):
                click.echo(msgspec.json.encode(event) if as_json else format_event(event))

        await trio.to_thread.run_sync(write)
