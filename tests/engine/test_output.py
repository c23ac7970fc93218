"""What a session prints: live, whole, in order, once, and not without end."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import trio
from engine_facts import engine_log_sizes, let_go_on, wait_target
from engine_proxy import open_engine_proxy
from processes import Fleet
from sessions import content, finished, running

from bedrock.client import ApiError, Client, open_client
from bedrock.dockerd.engine import open_engine
from bedrock.dockerd.engine_values import ContainerPlan
from bedrock.dockerd.output import open_outputs
from bedrock.model import LogsState, Reason, Status, new_session_id
from bedrock.volume import MANIFEST, OUTPUT_COUNTER, STDERR, STDOUT, SessionVolume

_MIB = 1 << 20


def _kept(fleet: Fleet, session_id: str, name: str = STDOUT) -> bytes:
    """What is in a running session's volume."""
    path = fleet.data_dir / "volumes" / session_id / name
    return path.read_bytes() if path.exists() else b""


async def _wait_kept(fleet: Fleet, session_id: str, text: bytes, name: str = STDOUT) -> None:
    with trio.fail_after(30):
        while text not in _kept(fleet, session_id, name):
            await trio.sleep(0.02)


async def test_output_without_end_is_cut_counted_and_bounded_on_the_engine_too(
    client: Client, running_fleet: Fleet, image: str
) -> None:
    session = await client.create(image, "yes", ttl="5s", max_output="1MiB")
    session = await running(client, session)
    sizes = []
    with trio.move_on_after(4):
        while True:
            sizes.append(sum(engine_log_sizes(session.id)))
            await trio.sleep(0.2)
    # Two files of twice the upper size, and what is written between two looks of the engine at the size.
    assert max(sizes) < 5 * _MIB
    session = await finished(client, session, limit_s=30)
    assert (session.status, session.reason) == (Status.FINISHED, Reason.TTL)
    assert session.output is not None
    assert (session.output.stdout, session.output.stderr) == (_MIB, 0)
    assert session.output.over > _MIB
    sentence = f"the output was cut at its max_output of 1MiB: {session.output.over} bytes more"
    assert session.output.message == sentence
    assert session.message.endswith(sentence)
    assert await content(client, session, STDOUT) == b"y\n" * (_MIB // 2)
    manifest = json.loads(await content(client, session, MANIFEST))
    assert manifest["output"] == {"stdout": _MIB, "stderr": 0, "over": session.output.over, "message": sentence}


async def test_what_is_over_is_counted_to_the_byte(client: Client, image: str) -> None:
    command = ["sh", "-c", "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2"]
    session = await finished(client, await client.create(image, command, ttl="60s", max_output=400_000))
    assert session.output is not None
    kept = (len(await content(client, session, STDOUT)), len(await content(client, session, STDERR)))
    assert kept == (session.output.stdout, session.output.stderr)
    assert (sum(kept), session.output.over) == (400_000, 100_000)


async def test_output_of_just_the_upper_size_is_not_cut(client: Client, image: str) -> None:
    session = await finished(client, await client.create(image, "head -c 5000 /dev/zero", ttl="60s", max_output=5000))
    assert session.output is not None
    assert (session.output.stdout, session.output.over, session.output.message) == (5000, 0, "")


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (0, "must be from 1 byte"),
        (-1, "must be from 1 byte"),
        (1 << 60, "must be from 1 byte to 1TiB"),
        ("a lot", "is not a size"),
    ],
)
async def test_an_upper_size_that_is_none_is_refused(
    client: Client, image: str, wanted: str | int, sentence: str
) -> None:
    with pytest.raises(ApiError, match=f"max_output: .*{sentence}"):
        await client.create(image, "true", ttl="60s", max_output=wanted)


async def test_both_streams_are_kept_whole_and_in_order(client: Client, image: str) -> None:
    command = ["sh", "-c", "for i in $(seq 20000); do echo out $i; echo err $i >&2; done"]
    session = await finished(client, await client.create(image, command, ttl="60s"))
    for name, word in ((STDOUT, "out"), (STDERR, "err")):
        assert await content(client, session, name) == b"".join(
            b"%s %d\n" % (word.encode(), i) for i in range(1, 20001)
        )


@pytest.mark.parametrize("trace", ["off", "events"])
async def test_bytes_that_are_no_text_and_lines_without_an_end_are_kept_as_they_are(
    client: Client, image: str, trace: str
) -> None:
    # Random bytes, then a line of several pieces of the engine's, then one that does not end.
    make = "(head -c 3000000 /dev/urandom; echo; head -c 100000 /dev/zero) > /tmp/x"
    script = f"{make}; sha256sum < /tmp/x >&2; cat /tmp/x"
    session = await finished(client, await client.create(image, ["sh", "-c", script], ttl="60s", trace=trace))
    told = (await content(client, session, STDERR)).split()[0].decode()
    assert hashlib.sha256(await content(client, session, STDOUT)).hexdigest() == told


async def test_output_is_in_the_volume_while_the_command_runs(client: Client, running_fleet: Fleet, image: str) -> None:
    session = await client.create(image, ["sh", "-c", "echo -n first; echo oops >&2; sleep 60"], ttl="60s")
    await _wait_kept(running_fleet, session.id, b"first")
    await _wait_kept(running_fleet, session.id, b"oops\n", STDERR)
    await client.stop(session.id)
    assert await content(client, await finished(client, session), STDOUT) == b"first"


def test_run_takes_an_upper_size(running_fleet: Fleet, image: str) -> None:
    done = running_fleet.command("run", "--max-output", "3B", image, "echo", "hello")
    assert (done.returncode, done.stdout) == (0, b"hel")
    assert b"the output was cut at its max_output of 3: 3 bytes more" in done.stderr


_WAIT = "until [ -e /go-on ]; do usleep 10000; done"

# A line with its number every millisecond or so, some of them longer than what the engine takes for a line.
_NUMBERS = (
    "i=0; while [ $i -lt 2050 ]; do i=$((i+1)); echo $i; echo err $i >&2; "
    'case $i in *00) head -c 20000 /dev/zero | tr "\\0" x; echo;; esac; usleep 500; done'
)


def _numbers() -> tuple[bytes, bytes]:
    out = b"".join(b"%d\n" % i + (b"x" * 20000 + b"\n" if i % 100 == 0 else b"") for i in range(1, 2051))
    return out, b"".join(b"err %d\n" % i for i in range(1, 2051))


async def test_a_dockerd_that_is_killed_again_and_again_loses_and_doubles_nothing(fleet: Fleet, image: str) -> None:
    dockerd = fleet.start()
    async with open_client(fleet.url) as client:
        session = await running(client, await client.create(image, ["sh", "-c", _NUMBERS], ttl="60s"))
        for number in (b"\n400\n", b"\n1200\n"):
            await _wait_kept(fleet, session.id, number)
            dockerd.kill()
            dockerd.start()
        session = await finished(client, session)
        assert (session.status, session.exit_code) == (Status.FINISHED, 0)
        assert (await content(client, session, STDOUT), await content(client, session, STDERR)) == _numbers()
        assert session.output is not None
        assert session.output.message == ""


async def test_connections_to_the_engine_that_break_lose_and_double_nothing(
    fleet: Fleet, image: str, tmp_path: Path
) -> None:
    async with open_engine_proxy(tmp_path / "engine.sock") as proxy:
        fleet.environment["BEDROCK_DOCKERD_DOCKER_HOST"] = proxy.url
        await trio.to_thread.run_sync(fleet.api().start)
        await trio.to_thread.run_sync(fleet.filemd().start)
        await trio.to_thread.run_sync(fleet.dockerd("alpha").start)
        async with open_client(fleet.url) as client:
            session = await running(client, await client.create(image, ["sh", "-c", _NUMBERS], ttl="60s"))
            for number in (b"\n400\n", b"\n1200\n"):
                await _wait_kept(fleet, session.id, number)
                proxy.cut()
            session = await finished(client, session)
        assert (session.status, session.exit_code) == (Status.FINISHED, 0)
        async with open_client(fleet.url) as client:
            assert (await content(client, session, STDOUT), await content(client, session, STDERR)) == _numbers()
        assert session.output is not None
        assert session.output.message.startswith("output may be missing: the engine was away for a while")


async def test_what_is_printed_while_dockerd_is_dead_comes_home(fleet: Fleet, image: str) -> None:
    dockerd = fleet.start()
    async with open_client(fleet.url) as client:
        session = await client.create(image, ["sh", "-c", f"echo begin; {_WAIT}; {_NUMBERS}"], ttl="60s")
        await _wait_kept(fleet, session.id, b"begin\n")
        dockerd.kill()
        let_go_on(session.id)
        await trio.to_thread.run_sync(wait_target, session.id)
        dockerd.start()
        session = await finished(client, session)
        out, err = _numbers()
        assert await content(client, session, STDOUT) == b"begin\n" + out
        assert await content(client, session, STDERR) == err


async def test_a_cut_goes_on_being_counted_by_the_next_dockerd(fleet: Fleet, image: str) -> None:
    dockerd = fleet.start()
    async with open_client(fleet.url) as client:
        command = ["sh", "-c", f"head -c 50000 /dev/zero; {_WAIT}; head -c 10000 /dev/zero"]
        session = await client.create(image, command, ttl="60s", max_output=1000)
        with trio.fail_after(30):
            while _kept(fleet, session.id, OUTPUT_COUNTER).strip() != b"49000":
                await trio.sleep(0.02)
        dockerd.kill()
        let_go_on(session.id)
        await trio.to_thread.run_sync(wait_target, session.id)
        dockerd.start()
        session = await finished(client, session)
        assert session.output is not None
        assert (session.output.stdout, session.output.over) == (1000, 49_000)
        # What was printed while nobody looked is not in it.
        assert session.message.endswith("the output was cut at its max_output of 1000: at least 49000 bytes more")


async def test_a_log_that_has_lost_what_was_printed_meanwhile_is_said(fleet: Fleet, image: str) -> None:
    dockerd = fleet.start()
    async with open_client(fleet.url) as client:
        # Short lines, for which the engine's log needs so much that it drops the first ones.
        command = ["sh", "-c", f"echo 1; {_WAIT}; seq 2 200000"]
        session = await client.create(image, command, ttl="60s", max_output="1MiB")
        await _wait_kept(fleet, session.id, b"1\n")
        dockerd.kill()
        let_go_on(session.id)
        await trio.to_thread.run_sync(wait_target, session.id)
        dockerd.start()
        session = await finished(client, session)
        assert session.logs.state is LogsState.COMPLETE
        assert "output is missing: the engine's log had lost it" in session.message
        assert await content(client, session, STDOUT) == b"1\n"


async def test_a_line_of_which_the_log_does_not_show_the_end_is_said(fleet: Fleet, image: str) -> None:
    dockerd = fleet.start()
    async with open_client(fleet.url) as client:
        command = ["sh", "-c", f"echo begin; {_WAIT}; head -c 20000 /dev/zero"]
        session = await client.create(image, command, ttl="60s")
        await _wait_kept(fleet, session.id, b"begin\n")
        dockerd.kill()
        let_go_on(session.id)
        await trio.to_thread.run_sync(wait_target, session.id)
        dockerd.start()
        session = await finished(client, session)
        assert await content(client, session, STDOUT) == b"begin\n" + bytes(20000)
        assert "may have had an end" in session.message


async def test_output_that_is_not_waited_for_is_said_to_lack_its_end(image: str, tmp_path: Path) -> None:
    plan = ContainerPlan(
        name="bedrock-test-output", image=image, command=["sh", "-c", "echo 1; sleep 60"], labels={}, binds=[]
    )
    volume = SessionVolume(tmp_path, new_session_id())
    volume.path.mkdir(parents=True)
    async with open_engine(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")) as engine:
        await engine.create(plan)
        try:
            async with open_outputs(engine) as outputs:
                output = await outputs.begin(plan.name, volume, 1000)
                await engine.start(plan.name)
                with trio.fail_after(30):
                    while not (volume.path / STDOUT).exists() or (volume.path / STDOUT).read_bytes() != b"1\n":
                        await trio.sleep(0.02)
                with trio.fail_after(10):
                    ended = await output.end()
                    assert (ended.stdout, ended.over) == (2, 0)
                    assert "output may be missing: the engine did not hand over the rest in time" in ended.message
                    assert await output.end() == ended
        finally:
            await engine.remove(plan.name)


async def test_what_a_session_had_printed_comes_home_when_why_it_is_over_had_been_decided(
    fleet: Fleet, image: str
) -> None:
    dockerd = fleet.start("alpha", "--dockerd-stop-grace", "50s")
    async with open_client(fleet.url) as client:
        script = f"trap 'echo asked; {_WAIT}; echo bye; exit 7' TERM; while :; do usleep 100000; done"
        session = await running(client, await client.create(image, ["sh", "-c", script], ttl="1s"))
        await _wait_kept(fleet, session.id, b"asked\n")
        dockerd.kill()
        let_go_on(session.id)
        await trio.to_thread.run_sync(wait_target, session.id)
        dockerd.start()
        session = await finished(client, session)
        assert (session.status, session.reason, session.exit_code) == (Status.FINISHED, Reason.TTL, 7)
        assert await content(client, session, STDOUT) == b"asked\nbye\n"
