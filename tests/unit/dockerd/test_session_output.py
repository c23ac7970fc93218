"""Bringing output home through everything that an engine may do meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import trio

from bedrock.dockerd.engine import Engine
from bedrock.dockerd.engine_values import ContainerMissing, ContainerState, EngineUnavailable
from bedrock.dockerd.output import open_outputs
from bedrock.dockerd.output_stream import STDERR_FRAME, STDOUT_FRAME, Sink
from bedrock.model import Output, new_session_id
from bedrock.volume import STDOUT, SessionVolume

_RUNS = "running"
_HAS_ENDED = "exited"
# What a stream gives: frames, and then whether that was all, or an error.
Stream = tuple[list[tuple[int, bytes]], bool | Exception]


class ScriptedEngine:
    """Answers each kind of question with the next of the answers that it was given for it, the last one for ever."""

    def __init__(self, *, states: list[str | Exception], logs: list[Stream], attached: list[Stream]) -> None:
        self._states = states
        self._logs = logs
        self._attached = attached
        self.followed: list[bool] = []

    async def inspect(self, container: str) -> ContainerState:
        await trio.lowlevel.checkpoint()
        state = _next(self._states)
        if isinstance(state, Exception):
            raise state
        return ContainerState(
            id="1", name=container, status=state, pid=0, exit_code=0, oom_killed=False, error="", started_at=None,
            finished_at=None, labels={}, image_id="2",
        )  # fmt: skip

    async def wait_back(self) -> None:
        await trio.lowlevel.checkpoint()

    async def attach_output(self, _container: str) -> Any:
        await trio.lowlevel.checkpoint()
        return _Opened(_next(self._attached))

    async def open_log(self, _container: str, *, follow: bool) -> Any:
        await trio.lowlevel.checkpoint()
        self.followed.append(follow)
        return _Opened(_next(self._logs))

    async def read_output(self, stream: Any, sink: Sink) -> bool:
        await trio.lowlevel.checkpoint()
        frames, end = stream.content
        for number, data in frames:
            if not sink(number, memoryview(data)):
                return False
        if isinstance(end, Exception):
            raise end
        return bool(end)


class _Opened:
    def __init__(self, content: Stream) -> None:
        self.content = content

    def close(self) -> None:
        pass


def _next(answers: list[Any]) -> Any:
    return answers.pop(0) if len(answers) > 1 else answers[0]


def _lines(*numbers: int) -> list[tuple[int, bytes]]:
    return [(STDOUT_FRAME, b"%d\n" % number) for number in numbers]


@pytest.fixture
def volume(tmp_path: Path) -> SessionVolume:
    made = SessionVolume(tmp_path, new_session_id())
    made.path.mkdir()
    return made


async def _followed(engine: ScriptedEngine, volume: SessionVolume, max_output: int, *, is_new: bool = True) -> Output:
    async with open_outputs(cast("Engine", engine)) as outputs:
        if is_new:
            output = await outputs.begin("target", volume, max_output)
        else:
            output = outputs.resume("target", volume, max_output)
        with trio.fail_after(100):
            await output.wait()
        return await output.end()


def _kept(volume: SessionVolume) -> bytes:
    return (volume.path / STDOUT).read_bytes()


async def test_nothing_but_the_connection_is_read_when_it_lasts(volume: SessionVolume) -> None:
    frames = [*_lines(1, 2), (STDERR_FRAME, b"oops\n")]
    engine = ScriptedEngine(states=[_HAS_ENDED], logs=[], attached=[(frames, True)])
    assert await _followed(engine, volume, 100) == Output(stdout=4, stderr=5)
    assert engine.followed == []


@pytest.mark.parametrize("error", [False, EngineUnavailable("reset by peer")])
async def test_after_a_broken_connection_the_log_is_read_until_the_container_has_ended(
    volume: SessionVolume, error: bool | Exception
) -> None:
    engine = ScriptedEngine(
        states=[EngineUnavailable("refused"), _RUNS, _RUNS, _HAS_ENDED],
        logs=[(_lines(1, 2, 3), EngineUnavailable("cut")), (_lines(1, 2, 3), True), (_lines(1, 2, 3, 4), True)],
        attached=[(_lines(1), error)],
    )
    ended = await _followed(engine, volume, 100)
    assert ended.stdout == 8
    # An engine that dies loses what is printed until it is back, of a container that ends meanwhile.
    assert "output may be missing: the engine was away" in ended.message
    assert _kept(volume) == b"1\n2\n3\n4\n"
    assert engine.followed == [True, True, False]


async def test_what_is_over_after_a_restart_is_counted_on_a_connection(volume: SessionVolume) -> None:
    engine = ScriptedEngine(
        states=[_RUNS], logs=[(_lines(1, 2, 3), True)], attached=[([(STDOUT_FRAME, bytes(1000))], True)]
    )
    ended = await _followed(engine, volume, 5, is_new=False)
    assert (ended.stdout, ended.over) == (5, 1001)
    assert "at least 1001 bytes more" in ended.message
    assert _kept(volume) == b"1\n2\n3"


async def test_a_reader_of_the_log_that_fell_behind_before_the_cut_says_so(volume: SessionVolume) -> None:
    # What is followed skips lines without a word; that the first one is no longer there gives it away.
    engine = ScriptedEngine(states=[_RUNS], logs=[(_lines(1, 7, 8), True), (_lines(6, 7, 8), True)], attached=[])
    ended = await _followed(engine, volume, 5, is_new=False)
    assert "output is missing: the engine's log had lost it" in ended.message


async def test_a_container_that_somebody_removed_has_no_more_output(volume: SessionVolume) -> None:
    engine = ScriptedEngine(states=[ContainerMissing("gone")], logs=[], attached=[(_lines(1), False)])
    ended = await _followed(engine, volume, 100)
    assert ended.stdout == 2
    assert "output is missing" in ended.message


async def test_a_defect_costs_one_output_and_not_the_node(volume: SessionVolume) -> None:
    engine = ScriptedEngine(states=[_RUNS], logs=[], attached=[(_lines(1), RuntimeError("no thread"))])
    ended = await _followed(engine, volume, 100)
    assert ended.stdout == 2
    assert "output may be missing: reading it failed: RuntimeError('no thread')" in ended.message


async def test_a_container_that_is_never_started_is_not_waited_for(volume: SessionVolume) -> None:
    class Silent(ScriptedEngine):
        async def read_output(self, stream: Any, sink: Sink) -> bool:
            await trio.sleep_forever()
            return False

    engine = Silent(states=[_RUNS], logs=[], attached=[([], True)])
    async with open_outputs(cast("Engine", engine)) as outputs:
        output = await outputs.begin("target", volume, 100)
        with trio.fail_after(10):
            assert (await output.end()).stdout == 0
