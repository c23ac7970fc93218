"""Which file and which directory a call is about where that is easily got wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from make_image import make_image, remove_image
from sessions import PAGE, Traced, events_of, finished, of

from bedrock.client import Client
from bedrock.model import TraceState
from bedrock.trace.summary import summarise

_LINKS_IMAGE = "bedrock-test/links:1"


@pytest.fixture
async def links_image(programs: dict[str, bytes]) -> AsyncIterator[str]:
    """An image in which two names are one file."""
    extra = {"bin/places": programs["places"], "srv/one": bytes(PAGE)}
    make_image(_LINKS_IMAGE, extra, ["ENV PATH=/bin"], with_busybox=False, links={"srv/two": "srv/one"})
    yield _LINKS_IMAGE
    remove_image(_LINKS_IMAGE)


async def test_a_hard_link_of_the_image_is_one_file_until_it_is_written_and_two_from_then_on(
    client: Client, running_fleet: object, links_image: str, tmp_path: Path
) -> None:
    session = await finished(client, await client.create(links_image, ["/bin/places", "links"], ttl="30s"))
    assert session.exit_code == 0, session.message
    assert session.trace is not None
    assert session.trace.state is TraceState.COMPLETE, session.trace
    events = of(await events_of(client, session, tmp_path), "pread64", "pwrite64")
    assert [(event.op, event.result, event.path) for event in events] == [
        ("pread64", 11, "/srv/one"),
        ("pread64", 12, "/srv/two"),
        ("pwrite64", 1, "/srv/two"),
        ("pread64", 13, "/srv/two"),
        ("pread64", 14, "/srv/one"),
        ("pread64", 15, "/srv/one"),
    ]
    before, other_name, copied, read_again, left, left_again = (event.file for event in events)
    assert before == other_name == left == left_again
    assert copied == read_again
    assert copied != before
    uses = {use.path: use for use in summarise(tmp_path / f"{session.id}.bdt").files if use.path.startswith("/srv/")}
    assert {path: (use.read_bytes, use.written_bytes) for path, use in uses.items()} == {
        "/srv/one": (11 + 12 + 14 + 15, 0),
        "/srv/two": (13, 1),
    }


async def test_a_directory_whose_name_is_not_in_memory_when_it_is_entered_counts_from_where_the_process_was(
    traced: Traced,
) -> None:
    events = of(await traced("/bin/places", "cold"), "chdir", "chroot", "open", "openat")
    entered = [(e.op, e.raw, e.path, e.argument_late) for e in events if e.op in {"chdir", "chroot"}]
    assert entered == [
        ("chdir", "/tmp", "/tmp", True),
        ("chdir", "one", "/tmp/one", True),
        ("chdir", "two", "/tmp/one/two", True),
        ("chdir", "..", "/tmp/one", True),
        ("chdir", "two/three", "/tmp/one/two/three", False),
        ("chdir", "/tmp/one", "/tmp/one", True),
        ("chroot", "/tmp/one/jail", "/tmp/one/jail", True),
        ("chroot", "jail/cell", "/tmp/one/jail/cell", True),
        ("chdir", "/", "/tmp/one/jail/cell", False),
        ("chdir", "/tmp", "/tmp/one/jail/cell/tmp", True),
        ("chdir", "..", "/tmp/one/jail/cell", True),
        ("chdir", "tmp", "/tmp/one/jail/cell/tmp", True),
        ("chdir", "/", "/tmp/one/jail/cell", True),
    ]
    failed = [(event.raw, event.path, event.argument_late) for event in events if event.error == "ENOENT"]
    assert failed == [("nothing", "/tmp/one/nothing", True)]
