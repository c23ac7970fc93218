"""The output of this node's sessions, brought from the engine into their volumes while they run.

A session's output is followed from before its target's start, on a connection that has every byte as it was printed.
When that breaks, because DockerD or the engine was restarted, the engine's log is read from its beginning: what the
files have is skipped, by their size, and compared on the way. The log is bounded, so it may have lost its beginning
then; that is seen, and said. Once there is more than ``max_output`` the rest is only counted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import trio

from bedrock.concurrency.service import backoff_delays
from bedrock.concurrency.service_nursery import ServiceNursery, open_service_nursery
from bedrock.dockerd.engine import Engine
from bedrock.dockerd.engine_values import ContainerMissing, EngineError, EngineUnavailable
from bedrock.dockerd.output_files import OutputFiles, Replay
from bedrock.dockerd.output_stream import STDERR_FRAME, STDOUT_FRAME, OutputStream
from bedrock.model import Output
from bedrock.size import format_size
from bedrock.volume import OUTPUT_COUNTER, STDERR, STDOUT, SessionVolume

log = structlog.get_logger(__name__)


class SessionOutput:
    """The output of one session's target. Made by :class:`Outputs`."""

    def __init__(self, engine: Engine, container: str, files: OutputFiles) -> None:
        self._engine = engine
        self._container = container
        self._files = files
        self._is_whole = False  # all that is to be had has been read
        self._has_counted_all = True  # no byte went by unseen after the cut
        self._has_holes = False
        self._engine_was_away = False
        self._is_unsure = False  # whether the last line has an end
        self._error = ""
        self._scope = trio.CancelScope()
        self._is_idle = trio.Event()

    async def wait(self) -> None:
        """Return when all that is to be had is in the files, which is soon after the container's end."""
        await self._is_idle.wait()

    async def end(self) -> Output:
        """Follow it no longer and say what has become of it. Called again, it returns the same."""
        self._scope.cancel()
        await self._is_idle.wait()
        return Output(
            stdout=self._files.sizes[STDOUT_FRAME],
            stderr=self._files.sizes[STDERR_FRAME],
            over=self._files.over,
            message="; ".join(self._sentences()),
        )

    def _sentences(self) -> Iterator[str]:
        files = self._files
        if files.error:
            yield f"the output could not be kept whole: {files.error}"
        elif files.over:
            least = "" if self._has_counted_all else "at least "
            yield f"the output was cut at its max_output of {format_size(files.limit)}: {least}{files.over} bytes more"
        if self._has_holes:
            yield "output is missing: the engine's log had lost it before it could be read again after a restart"
        if self._engine_was_away:
            yield "output may be missing: the engine was away for a while, and what is printed then can be lost"
        if self._is_unsure:
            yield "the last line of the output may have had an end, which the engine's log does not show"
        if not self._is_whole:
            yield f"output may be missing: {self._error or 'the engine did not hand over the rest in time'}"

    async def _follow(self, stream: OutputStream | None) -> None:
        try:
            with self._scope:
                await self._bring_home(stream)
        except Exception as error:
            # A defect in the handling of one session's output must not take down the node's other sessions.
            log.exception("reading the output of a container broke off", container=self._container)
            self._error = f"reading it failed: {error!r}"
        finally:
            if stream is not None:
                stream.close()
            self._is_idle.set()

    async def _bring_home(self, stream: OutputStream | None) -> None:
        """Read ``stream``, which was attached before the container's start, and through any number of lost connections
        what is missing then.
        """
        await trio.to_thread.run_sync(self._files.open)
        try:
            delays = backoff_delays(0.1, 5.0)
            while not self._is_whole:
                try:
                    self._is_whole = await (self._resume() if stream is None else self._read_attached(stream))
                except ContainerMissing:
                    self._has_holes = self._is_whole = True
                except EngineUnavailable:
                    self._engine_was_away = True
                    await self._engine.wait_back()
                except EngineError as error:
                    log.warning("the output of a container can't be read", container=self._container, error=str(error))
                if not self._is_whole:
                    self._engine_was_away |= stream is not None
                    stream = None
                    await trio.sleep(next(delays))
        finally:
            self._files.close()

    async def _resume(self) -> bool:
        """Read what the files lack; return whether nothing more is to be expected."""
        self._has_counted_all = False
        state = await self._engine.inspect(self._container)
        if self._files.over:
            return state.has_ended or await self._read_attached(await self._engine.attach_output(self._container))
        replay, is_at_end = await self._replay(follow=not state.has_ended)
        if not state.has_ended and self._files.over:
            # Whoever follows a log and falls behind is not told of what it loses meanwhile.
            replay, _ = await self._replay(follow=False)
        self._is_unsure = replay.is_unsure
        if replay.differs:
            self._has_holes = True
            return True
        return is_at_end and state.has_ended

    async def _replay(self, *, follow: bool) -> tuple[Replay, bool]:
        replay = Replay(self._files)
        stream = await self._engine.open_log(self._container, follow=follow)
        return replay, await self._engine.read_output(stream, replay.feed)

    async def _read_attached(self, stream: OutputStream) -> bool:
        return await self._engine.read_output(stream, self._files.append)


class Outputs:
    """Follows the output of containers, each in a task of its own. Made by :func:`open_outputs`."""

    def __init__(self, engine: Engine, services: ServiceNursery) -> None:
        self._engine = engine
        self._services = services

    async def begin(self, container: str, volume: SessionVolume, max_output: int) -> SessionOutput:
        """Follow a container that is about to be started. Raises :class:`EngineError` when it can't be attached to."""
        files = _files_of(volume, max_output)
        await trio.to_thread.run_sync(files.clear)
        stream = await self._engine.attach_output(container)
        return self._start(container, files, stream)

    def resume(self, container: str, volume: SessionVolume, max_output: int) -> SessionOutput:
        """Follow a container that was started by a predecessor, and may have ended since."""
        return self._start(container, _files_of(volume, max_output), None)

    def _start(self, container: str, files: OutputFiles, stream: OutputStream | None) -> SessionOutput:
        output = SessionOutput(self._engine, container, files)
        self._services.start_soon(output._follow, stream)
        return output


def _files_of(volume: SessionVolume, max_output: int) -> OutputFiles:
    paths = {STDOUT_FRAME: volume.path / STDOUT, STDERR_FRAME: volume.path / STDERR}
    return OutputFiles(paths, volume.path / OUTPUT_COUNTER, max_output)


async def copy_log(engine: Engine, container: str, path: Path) -> None:
    """Write the engine's log of a container that has ended into one file. Raises :class:`EngineError`, or OSError."""
    with await trio.to_thread.run_sync(path.open, "wb") as file:

        def write(stream: int, data: memoryview) -> bool:
            file.write(data)
            return True

        await engine.read_output(await engine.open_log(container, follow=False), write)


@asynccontextmanager
async def open_outputs(engine: Engine) -> AsyncIterator[Outputs]:
    """Follow outputs until the context is left; containers that still run then are left to a successor."""
    async with open_service_nursery() as services:
        yield Outputs(engine, services)
