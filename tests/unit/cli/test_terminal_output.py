"""What the commands print of a session whose every text was written to do harm on a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from nodes import Node, open_node
from processes import Fleet
from terminal import run_on_a_terminal
from traces import call, end, file, process, start, text_record, trace

from bedrock.cli.output import fail
from bedrock.client import Client, open_client
from bedrock.errors import BedrockError
from bedrock.lifecycle import Outcome
from bedrock.model import Reason, Session, Status, TraceState, Verdict, utc_now
from bedrock.tracer.format import RecordType
from bedrock.tracer.operations import Op
from bedrock.wire import Progress

# A title, a cleared screen by ESC and by C1, a name that reads backwards, a forged row, and rich's own markup.
EVIL = "\x1b]0;pwned\x07\x1b[2J\x9b2J\u202eexe\nforged row\r[red]:smile:\x7f"
SHOWN = "\\x1b]0;pwned\\x07\\x1b[2J\\u009b2J\\u202eexe\\x0aforged row\\x0d[red]:smile:\\x7f"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as made:
        made.api().start()
        yield made


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[Client]:
    async with open_client(fleet.url) as opened:
        yield opened


@pytest.fixture
async def node(fleet: Fleet) -> AsyncIterator[Node]:
    async with open_node(f"tcp://127.0.0.1:{fleet.socket_port}", "alpha") as opened:
        await opened.own_poll(version=EVIL)
        yield opened


def write_trace(path: Path) -> Path:
    """The trace of a file, a failed look-up and a program of that name."""
    name = b"/" + EVIL.encode()
    records = [
        start(),
        process(),
        text_record(RecordType.STRING, name, tid=7, time_ns=2),
        text_record(RecordType.ARGV, EVIL.encode() + b"\0", tid=7, time_ns=2),
        call(Op.EXECVE, 2),
        file(name, inode=9, time_ns=3),
        call(Op.READ, 5, result=10, requested=10, offset=0, inode=9, device=4, flags=3),
        text_record(RecordType.STRING, name, tid=7, time_ns=6),
        call(Op.OPENAT, 6, result=-2),
        end(),
    ]
    path.write_bytes(trace(records))
    return path


@pytest.fixture
async def session(client: Client, node: Node, tmp_path: Path) -> Session:
    made = await client.create("busybox", ["printf", EVIL], ttl="1m")
    outcome = Outcome(
        status=Status.FAILED,
        reason=Reason.RUNTIME_ERROR,
        message=EVIL,
        finished_at=utc_now(),
        trace=Verdict(state=TraceState.LOSSY, lost={EVIL: 1}, unsupported=[EVIL], message=EVIL),
    )
    await node.own_poll(("session_failed", made.id, msgspec.json.encode(outcome)), version=EVIL)
    await client.upload(made.id, write_trace(tmp_path / "trace.bdt"))
    return made


async def output_of(fleet: Fleet, *arguments: str) -> str:
    """What a command prints into a pipe, both streams, after a look at whether each line can be shown."""
    done = await trio.to_thread.run_sync(fleet.command, *arguments)
    text = (done.stdout + done.stderr).decode()
    assert done.returncode == 0 or arguments[0] == "diff", text
    for line in text.split("\n"):
        assert line.isprintable(), line
        assert not line.strip().startswith("forged")
    return text


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["ps", "--limit", "1"], 2),
        (["show", "ID"], None),
        (["trace", "ID"], 4),
        (["trace", "ID", "--events"], 3),
        (["report", "ID", "-o", "/dev/null"], 2),
        (["diff", "ID", "ID"], None),
        (["nodes"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_no_command_passes_on_what_a_terminal_would_obey(
    fleet: Fleet, session: Session, arguments: list[str], lines: int | None
) -> None:
    text = await output_of(fleet, *(session.id if word == "ID" else word for word in arguments))
    assert (SHOWN[:24] if arguments[0] == "ps" else SHOWN) in text  # which cuts long commands
    assert lines is None or len(text.splitlines()) == lines


async def test_show_has_everything_whole(fleet: Fleet, session: Session) -> None:
    lines = dict(line.split(":", 1) for line in (await output_of(fleet, "show", session.id)).splitlines())
    assert SHOWN in lines["command"]
    assert lines["message"].strip() == SHOWN
    assert lines["lost"].strip() == f"1 {SHOWN}"
    assert lines["unsupported"].strip() == SHOWN


@pytest.mark.parametrize("command", ["show", "ps", "trace", "nodes", "report"])
async def test_json_means_the_same_and_can_be_shown(fleet: Fleet, session: Session, command: str) -> None:
    arguments = {"ps": ["--limit", "1"], "nodes": []}.get(command, [session.id])
    text = await output_of(fleet, command, *arguments, "--json")
    value = json.loads(text[: text.rindex("}") + 1 + (command in {"ps", "nodes"}) * 2])
    assert EVIL in list(strings_of(value)) or f"/{EVIL}" in list(strings_of(value))


def strings_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings_of([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from strings_of(item)


def on_a_terminal(*arguments: str, shown: bytearray | None = None, **environment: str) -> str:
    """What a command shows on a terminal, where it may use escape sequences of its own; ``shown`` fills as it comes."""
    return run_on_a_terminal([sys.executable, "-m", "bedrock", *arguments], shown=shown, **environment)[0]


def assert_harmless(shown: str) -> None:
    assert not [word for word in ("\x1b]0;", "\x1b[2J", "\x9b", "\u202e", "\x07", "\x7f", "\nforged") if word in shown]


@pytest.mark.parametrize(
    "arguments",
    [["ps"], ["trace", "ID"], ["trace", "ID", "--events"]]
    + [["trace", "ID", "--format", name] for name in ("jsonl", "csv", "v1", "chrome")],
    ids=" ".join,
)
async def test_a_terminal_is_shown_no_more_than_a_pipe(fleet: Fleet, session: Session, arguments: list[str]) -> None:
    words = [session.id if word == "ID" else word for word in arguments]
    shown = await trio.to_thread.run_sync(lambda: on_a_terminal(*words, BEDROCK_URL=fleet.url, COLUMNS="300"))
    assert "pwned" in shown
    assert_harmless(shown)
    assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in shown


async def test_run_shows_what_a_session_waits_for_and_how_it_ended(fleet: Fleet, client: Client, node: Node) -> None:
    shown = bytearray()

    def run() -> str:
        return on_a_terminal("run", "busybox", "true", shown=shown, BEDROCK_URL=fleet.url, COLUMNS="300")

    with trio.fail_after(90):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, run)
            while not (events := (await node.own_poll(full="true"))["events"]):
                await trio.sleep(0.02)
            session_id = events[0]["headers"]["session_id"]
            # The closing tag would be an error of markup.
            waiting = msgspec.json.encode(Progress(message=f"{EVIL}[/red]"))
            await node.own_poll(("session_progress", session_id, waiting))
            while f"pending {SHOWN}[/red]".encode() not in shown:
                await trio.sleep(0.02)
            outcome = Outcome(
                status=Status.FAILED, reason=Reason.IMAGE_NOT_FOUND, message=EVIL, finished_at=utc_now(),
                trace=Verdict(state=TraceState.UNTRACED),
            )  # fmt: skip
            await node.own_poll(("session_failed", session_id, msgspec.json.encode(outcome)))
            manifest = msgspec.json.encode({"session_id": session_id, "files": []})
            await client._request(
                "POST", f"/api/sessions/{session_id}/logs", files={"file": ("manifest.json", manifest)}
            )
    assert f"failed: {SHOWN}; trace untraced" in shown.decode()
    assert_harmless(shown.decode())


def test_an_error_is_shown_with_its_own_line_breaks_and_nothing_else_of_it_is_obeyed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="125"):
        fail(BedrockError(EVIL))
    first, second = SHOWN.split("\\x0a")
    assert capsys.readouterr().err == f"bedrock: {first}\n    {second}\n"


def test_doctor_shows_the_names_of_this_host_safely(tmp_path: Path) -> None:
    # A setting may have no ASCII control, and everything else.
    environment = {
        "BEDROCK_DATA_DIR": str(tmp_path / "\x9b2J\u202eexe\u2028"),
        "BEDROCK_DOCKERD_DOCKER_HOST": "unix:///nowhere",
    }
    shown = on_a_terminal("doctor", COLUMNS="500", **environment)
    assert "\\u009b2J\\u202eexe\\u2028" in shown
    assert_harmless(shown)


def test_the_error_with_which_a_service_ends_is_safe() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bedrock.api", "--data-dir", "/proc/\x9b2J\u202e"], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert "/proc/\\u009b2J\\u202e" in done.stderr.decode()
    assert all(line.isprintable() for line in done.stderr.decode().split("\n"))
