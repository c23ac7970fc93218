"""Calls that look at files, or change their names, without reading them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sessions import events_of, finished

from bedrock.client import Client
from bedrock.model import TraceState
from bedrock.trace.events import Event

_SCRIPT = """
mkdir /tmp/d && cd /tmp/d && echo 1 > one
ls -l . >/dev/null
mv one two
ln two three
ln -s two four
readlink four >/dev/null
chmod 600 two
cat ../d/./missing
rm two three four
cd / && rmdir /tmp/d
"""


def found(events: list[Event], *ops: str) -> list[tuple[str | None, str | None, str | None]]:
    return [(event.path, event.second, event.error) for event in events if event.op in ops]


async def test_paths_are_whole_whatever_directory_they_count_from(client: Client, image: str, tmp_path: Path) -> None:
    session = await finished(client, await client.create(image, ["sh", "-c", _SCRIPT], ttl="30s"))
    assert session.exit_code == 0, session.message
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE
    events = await events_of(client, session, tmp_path)
    assert ("/tmp/d", None, None) in found(events, "mkdir", "mkdirat")
    assert ("/tmp/d", None, None) in found(events, "chdir")
    assert ("/tmp/d/one", "/tmp/d/two", None) in found(events, "rename", "renameat", "renameat2")
    assert ("/tmp/d/two", "/tmp/d/three", None) in found(events, "link", "linkat")
    assert ("/tmp/d/four", "two", None) in found(events, "symlink", "symlinkat")
    assert ("/tmp/d/four", None, None) in found(events, "readlink", "readlinkat")
    assert ("/tmp/d/two", None, None) in found(events, "chmod", "fchmodat")
    assert ("/tmp/d/missing", None, "ENOENT") in found(events, "open", "openat")
    removed = {path for path, _, error in found(events, "unlink", "unlinkat") if error is None}
    assert removed >= {"/tmp/d/two", "/tmp/d/three", "/tmp/d/four"}
    assert ("/tmp/d", None, None) in found(events, "rmdir", "unlinkat")
    listed = [event for event in events if event.op in {"getdents", "getdents64"}]
    assert {event.path for event in listed} == {"/tmp/d"}
    assert any(event.path == "/tmp/d/one" for event in events if event.op in {"lstat", "newfstatat", "statx"})
    summary = await client.trace(session.id)
    assert b'"path":"/tmp/d/missing","errno":2,"count":1' in summary


@pytest.mark.parametrize("command", [["ls", "-l", "/srv"], ["stat", "/srv/verse.txt"]])
async def test_a_look_at_a_file_is_a_use_only_where_it_was_opened(
    client: Client, image: str, tmp_path: Path, command: list[str]
) -> None:
    session = await finished(client, await client.create(image, command, ttl="30s"))
    assert session.exit_code == 0
    events = await events_of(client, session, tmp_path)
    assert any(event.path == "/srv/verse.txt" and event.error is None for event in events)
    assert b'"path":"/srv/verse.txt"' not in await client.trace(session.id)
