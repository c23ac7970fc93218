"""Files that have several names, at once or one after the other, in real traces."""

from __future__ import annotations

from pathlib import Path

from sessions import events_of, finished, of

from bedrock.client import Client
from bedrock.trace.find import select_events, select_files
from bedrock.trace.summary import summarise


async def test_each_call_has_the_name_of_its_time_and_a_file_is_found_by_all_of_its_names(
    client: Client, image: str, tmp_path: Path
) -> None:
    session = await finished(client, await client.create(image, ["names"], ttl="30s"))
    assert session.exit_code == 0, session.message
    events = await events_of(client, session, tmp_path)
    written = of(events, "write")
    assert [(event.result, event.path) for event in written] == [
        (1, "/tmp/a"),
        (2, "/tmp/b"),
        (3, "/tmp/a"),
        (4, "/tmp/c"),
        (5, "/tmp/b"),
        (6, "/tmp/config.tmp"),
        (7, "/tmp/build/out"),
        (8, "/tmp/release/out"),
    ]
    assert [written.index(next(e for e in written if e.file == event.file)) for event in written] == [0] * 5 + [5, 6, 6]
    summary = summarise(tmp_path / f"{session.id}.bdt")
    uses = {use.path: use for use in summary.files}
    assert {path: use.aliases for path, use in uses.items() if path.startswith("/tmp/")} == {
        "/tmp/c": ["/tmp/a", "/tmp/b"],
        "/tmp/config": ["/tmp/config.tmp"],
        "/tmp/release/out": ["/tmp/build/out"],
    }
    for name in ("/tmp/config", "/tmp/config.tmp"):
        assert [use.written_bytes for use in select_files(summary, [name]).files] == [6]
        ops = [event.op for event in select_events(events, summary, [name])]
        assert ops in (["openat", "write", moves] for moves in ("rename", "renameat"))
