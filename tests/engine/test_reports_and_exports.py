"""A real session's report in a real browser, its exports over REST, and two sessions compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import pytest
from browser import open_browser
from engine_facts import VERSE
from processes import Fleet
from sessions import finished

from bedrock.client import Client
from bedrock.model import Session, TraceState

BUSY = "cat /srv/verse.txt /srv/big.bin > /tmp/copy; dd if=/tmp/copy of=/tmp/out bs=4k; cat /nowhere; pitfalls map {}"
PANELS = {
    "verdict": None,
    "files": "chart-files",
    "offsets": "chart-offsets",
    "time": "chart-time",
    "working-set": "chart-working-set",
    "sizes": "chart-sizes",
    "latency": "chart-latency",
    "order": "chart-order",
    "first-touches": None,
    "lookups": None,
    "processes": None,
    "slowest": None,
    "untouched": None,
}


async def busy_session(client: Client, image: str) -> Session:
    session = await client.create(image, ["sh", "-c", BUSY.format("/srv/big.bin")], ttl="60s")
    session = await finished(client, session)
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE, session.trace
    return session


async def test_a_browser_without_a_network_shows_every_panel_of_the_report(
    running_fleet: Fleet, client: Client, image: str, tmp_path: Path
) -> None:
    session = await busy_session(client, image)
    page = tmp_path / "report.html"
    assert running_fleet.command("report", session.id, "-o", str(page)).returncode == 0
    async with open_browser(page) as browser:
        dom = await browser.dom()
        await browser.click_everything()
        assert await browser.addresses() == []
        assert browser.left == []
    sections = dict(re.findall(r'<section[^>]* id="([\w-]+)"(.*?)</section>', dom, re.DOTALL))
    assert set(sections) == set(PANELS)
    for panel, chart in PANELS.items():
        if chart is not None:
            drawn = sections[panel].split(f'id="{chart}"')[1]
            assert 'class="main-svg"' in drawn, panel
            assert re.search(r'<(path|rect)[^>]* d?="?[^>]*>', drawn), panel
    assert "complete" in sections["verdict"]
    for panel, text in (
        ("files", "/srv/big.bin"),
        ("first-touches", "/srv/verse.txt"),
        ("lookups", "/nowhere"),
        ("processes", "cat /nowhere"),
        ("untouched", "/srv/not-a-program"),
        ("offsets", "/tmp/copy"),
    ):
        assert text in sections[panel], panel
    report = json.loads(await client.report(session.id, as_page=False))
    assert report["about"]["trace"]["state"] == "complete"
    assert report["untouched"]["files"] > 0


async def test_duckdb_counts_in_the_parquet_what_the_json_lines_have(
    client: Client, image: str, tmp_path: Path
) -> None:
    session = await busy_session(client, image)
    exports = {}
    for wanted in ("parquet", "jsonl"):
        async with client.open_export(session.id, wanted) as chunks:
            exports[wanted] = tmp_path / wanted
            exports[wanted].write_bytes(b"".join([chunk async for chunk in chunks]))
    *lines, last = exports["jsonl"].read_text().splitlines()
    assert json.loads(last)["bedrock"]["trace"]["state"] == "complete"
    with duckdb.connect() as database:
        query = "select op, path, count(*), sum(result) from read_parquet(?) group by all"
        rows = database.execute(query, [str(exports["parquet"])]).fetchall()
    in_parquet = {(op, path): rest for op, path, *rest in rows}
    in_lines: dict[tuple[str, str | None], list[int | None]] = {}
    for event in map(json.loads, lines):
        entry = in_lines.setdefault((event["op"], event.get("path")), [0, None])
        entry[0] = (entry[0] or 0) + 1
        if "result" in event:
            entry[1] = (entry[1] or 0) + event["result"]
    assert in_parquet == in_lines
    assert in_parquet["read", "/tmp/copy"][1] == 256 * 4096 + len(VERSE)


async def test_a_change_between_two_sessions_is_found(running_fleet: Fleet, client: Client, image: str) -> None:
    commands = (["cat", "/srv/verse.txt"], ["cat", "/srv/verse.txt"], ["cat", "/srv/verse.txt", "/srv/big.bin"])
    a, b, c = [(await finished(client, await client.create(image, list(one), ttl="60s"))).id for one in commands]
    alike = running_fleet.command("diff", a, b)
    assert alike.returncode == 0, alike.stdout
    other = running_fleet.command("diff", a, c)
    assert other.returncode == 1
    row = next(line for line in other.stdout.decode().splitlines() if "/srv/big.bin" in line)
    assert row.split()[:2] == ["added", "/srv/big.bin"]
    found = json.loads(running_fleet.command("diff", a, c, "--json").stdout)
    assert [item["path"] for item in found["files"] if item["change"] == "added"] == ["/srv/big.bin"]


@pytest.mark.parametrize(("query", "status"), [("format=xml", 400), ("", 200), ("format=v1", 200)])
async def test_an_export_that_there_is_not_is_refused(client: Client, image: str, query: str, status: int) -> None:
    session = await finished(client, await client.create(image, ["true"], ttl="60s"))
    answer = await client._http.get(f"/api/sessions/{session.id}/trace/events?{query}")
    assert answer.status_code == status
    if status == 400:
        assert "jsonl, csv, parquet" in answer.json()["detail"]


async def test_the_command_line_writes_exports_to_files_and_to_its_output(
    running_fleet: Fleet, client: Client, image: str, tmp_path: Path
) -> None:
    session = await finished(client, await client.create(image, ["cat", "/srv/verse.txt"], ttl="60s"))
    path = tmp_path / "trace.parquet"
    done = running_fleet.command("trace", session.id, "--format", "parquet", "-o", str(path))
    assert done.returncode == 0
    assert b"trace complete" in done.stderr
    printed = running_fleet.command("trace", session.id, "--format", "jsonl")
    *events, last = map(json.loads, printed.stdout.splitlines())
    assert last["bedrock"]["id"] == session.id
    with duckdb.connect() as database:
        (rows,) = database.execute("select count(*) from read_parquet(?)", [str(path)]).fetchone() or (None,)
    assert rows == len(events)
    assert sum(event.get("result", 0) for event in events if event["op"] == "sendfile") in {0, 2 * len(VERSE)}
    refused = running_fleet.command("trace", session.id, "--format", "xml")
    assert refused.returncode != 0
    assert b"none of jsonl, csv, parquet" in refused.stderr


async def test_a_session_that_was_not_traced_has_no_report_and_says_why(
    running_fleet: Fleet, client: Client, image: str
) -> None:
    session = await finished(client, await client.create(image, ["true"], ttl="60s", trace="off"))
    for command in ("report", "trace"):
        done = running_fleet.command(command, session.id)
        assert done.returncode != 0
        assert b"no trace" in done.stderr, done.stderr
