"""The engine's client against an engine that accepts and does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import docker.errors
import pytest
import requests
import trio
import trio.testing

from bedrock.dockerd.engine import Engine
from bedrock.dockerd.engine_calls import translated
from bedrock.dockerd.engine_values import ContainerMissing, EngineError, EngineUnavailable


@pytest.fixture
async def silent_engine(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Engine]:
    """An engine that takes every request and never says anything."""
    path = tmp_path / "sock"
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
        await listener.bind(str(path))
        listener.listen()
        yield Engine(f"unix://{path}", "1.41")


async def test_a_call_that_is_cancelled_waits_for_its_answer_until_it_is_told_to_hurry(silent_engine: Engine) -> None:
    with trio.fail_after(30), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            over = trio.Event()

            async def call() -> None:
                with suppress(EngineUnavailable):
                    await silent_engine.remove("nobody")
                over.set()

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked(0.1)
            scope.cancel()
            with trio.move_on_after(0.2, shield=True):
                await over.wait()
            assert not over.is_set()
            silent_engine.hurry(0.1)
    assert over.is_set()


async def test_a_call_in_a_hurry_ends_without_an_answer(silent_engine: Engine) -> None:
    silent_engine.hurry(0.1)
    with trio.fail_after(30), pytest.raises(EngineUnavailable, match="did not answer within"):
        await silent_engine.info()


async def test_opening_a_silent_stream_is_given_up_at_once(silent_engine: Engine) -> None:
    for function in (silent_engine.attach_output, partial(silent_engine.open_log, follow=True)):
        with trio.fail_after(30), trio.move_on_after(0.2) as scope:
            await function("nobody")
        assert scope.cancelled_caught


async def test_an_engine_that_dies_in_the_middle_of_an_event_has_gone_away(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    path = tmp_path / "sock"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    event = b'{"Type":"container","Action":"die"}\n{"Type":'

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event))
        await stream.aclose()

    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
        await listener.bind(str(path))
        listener.listen()
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listener)])

        async def follow() -> None:
            async with Engine(f"unix://{path}", "1.41").open_events({}) as events:
                async for batch in events:
                    assert [item["Action"] for item in batch.items] == ["die"]

        with trio.fail_after(30), pytest.raises(EngineUnavailable, match="broke off in the middle"):
            await follow()


@pytest.mark.parametrize(
    ("status", "sentence", "kind"),
    [
        (500, "transport is closing: unavailable", EngineUnavailable),
        (500, "error while dialing: dial unix /run/containerd.sock: connect: connection refused", EngineUnavailable),
        (500, "Get https://registry/v2/: dial tcp: connect: connection refused", EngineError),
        (500, "OCI runtime create failed: executable file not found in $PATH", EngineError),
        (400, "the command has connection refused in it", EngineError),
        (404, "no such container", ContainerMissing),
    ],
)
def test_the_last_words_of_an_engine_are_not_its_judgement(status: int, sentence: str, kind: type[EngineError]) -> None:
    response = requests.Response()
    response.status_code = status
    error = docker.errors.NotFound if status == 404 else docker.errors.APIError
    with pytest.raises(EngineError, match=sentence[:20]) as caught, translated(ContainerMissing):
        raise error("answer", response=response, explanation=sentence)
    assert type(caught.value) is kind
