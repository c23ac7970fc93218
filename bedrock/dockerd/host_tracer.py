"""The tracer of this host: one container, whose probes serve all sessions of this node.

A DockerD that starts finds the tracer that its predecessor left, and goes on with it. When that is of another image, a
new one is started beside it: the old one serves its sessions to their end, and goes. When the tracer dies, the sessions
that it served have lost their traces, and a new one is started for those to come.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog
import trio

from bedrock.concurrency.backoff import backoff_delays
from bedrock.concurrency.nursery import open_hidden_nursery
from bedrock.concurrency.service_nursery import open_service_nursery
from bedrock.dockerd.containers import (
    LABEL_NODE,
    LABEL_ROLE,
    LABEL_VOLUMES,
    ROLE_HOST_TRACER,
    host_tracer_name,
    host_tracer_plan,
)
from bedrock.dockerd.engine import Engine
from bedrock.dockerd.engine_values import ContainerMissing, EngineError, EngineUnavailable, ImageInfo
from bedrock.dockerd.tracer_link import TracerAway, TracerLook, TracerRefused, ask, look
from bedrock.dockerd.watch import ContainerWatch
from bedrock.model import NodeName, SessionId

log = structlog.get_logger(__name__)

_SOCKET = "sock"
# Between two tries to reach a tracer that is still loading its probes. There is no event for that.
_KNOCK_S = 0.02
_LEAVE_S = 5.0  # what an idle tracer is given to end by itself
_LEAVE_AT_ONCE_S = 0.3  # the same when everything is to end at once
_REMOVE_S = 2.0  # and to be removed then, if it has not
_ANSWER_S = 5.0  # within which a tracer that works has answered, however busy it is


class HostTracerFailed(EngineError):
    """The tracer of this host could not be started, or does not take sessions; the text says why."""


class _Running:
    """One tracer container. ``gone`` is set when it has ended."""

    def __init__(self, name: str, socket: Path) -> None:
        self.name = name
        self.socket = socket
        self.gone = trio.Event()


class HostTracer:
    """Made by :func:`open_host_tracer`. Its methods may be called by any number of sessions at a time."""

    def __init__(
        self, engine: Engine, watch: ContainerWatch, image: ImageInfo, *, node: NodeName, directory: Path,
        volumes_dir: Path, ring_bytes: int, start_timeout_s: float,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._watch = watch
        self._image = image
        self._node = node
        self._directory = directory
        self._volumes_dir = volumes_dir
        self._ring_bytes = ring_bytes
        self._start_timeout_s = start_timeout_s
        self._current: _Running | None = None
        self._ready = trio.Event()
        self._failure = ""
        self._of_session: dict[SessionId, _Running] = {}
        self._adopted: list[_Running] = []

    # -- sessions

    async def begin(self, session_id: SessionId, options: Sequence[str]) -> None:
        """Have a session traced: when this returns, its gate is listened for.

        A session that is traced already, for a DockerD that died before its target was started, begins anew. Raises
        :class:`HostTracerFailed` where there is no tracer, or it refuses.
        """
        with trio.move_on_after(_ANSWER_S):
            await self.end(session_id)
        for _ in range(2):
            with trio.move_on_after(self._start_timeout_s):
                await self._ready.wait()
            running = self._current
            if running is None:
                await self._engine.ping()  # one that is away is waited for by whoever called us
                raise HostTracerFailed(
                    self._failure or f"the tracer was not ready within {self._start_timeout_s:.0f} s"
                )
            self._of_session[session_id] = running
            try:
                with trio.move_on_after(_ANSWER_S):
                    await ask(running.socket, ["trace", session_id, *options])
                    return
                await self._end_if_stuck(running)
            except TracerRefused as error:
                raise HostTracerFailed(f"the tracer failed: {error}") from None
            except TracerAway as error:
                # It died a moment ago; the next one is on its way, unless it died with its engine.
                log.warning("the tracer can't be asked", session=session_id, error=str(error))
                await self._engine.ping()
            with trio.move_on_after(self._start_timeout_s):
                await running.gone.wait()
        raise HostTracerFailed("the tracer died, and the one after it as well")

    async def wait_lost(self, session_id: SessionId) -> None:
        """Return when the tracer of a session is gone, and what it had not written yet with it."""
        running = self._of_session.get(session_id)
        if running is not None:
            await running.gone.wait()

    async def end(self, session_id: SessionId) -> None:
        """Have a session's trace written to its end. Returns at once where its tracer is gone."""
        running = self._of_session.get(session_id)
        if running is None or running.gone.is_set():
            return
        async with open_hidden_nursery() as nursery:

            async def give_up() -> None:
                await running.gone.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(give_up)
            try:
                await ask(running.socket, ["end", session_id])
            except (TracerAway, TracerRefused) as error:
                log.error("a trace could not be ended", session=session_id, error=str(error))
            nursery.cancel_scope.cancel()

    async def check(self, session_id: SessionId) -> None:
        """A session's trace is not written in time: a tracer that does not answer at all is replaced."""
        running = self._of_session.get(session_id)
        if running is not None and not running.gone.is_set():
            await self._end_if_stuck(running)

    async def _end_if_stuck(self, running: _Running) -> None:
        with trio.move_on_after(_ANSWER_S):
            with suppress(TracerAway, TracerRefused):
                await look(running.socket)
            return
        log.error("the tracer of this host does not answer and is killed", tracer=running.name)
        await self._engine.kill(running.name, "SIGKILL")

    def forget(self, session_id: SessionId) -> None:
        """The session is over."""
        self._of_session.pop(session_id, None)

    async def end_all_but(self, known: set[SessionId]) -> None:
        """End the traces of sessions that nobody knows any more."""
        for session_id in self._of_session.keys() - known:
            log.warning("ending the trace of a session that is not known", session=session_id)
            with trio.move_on_after(_ANSWER_S):
                await self.end(session_id)
            self.forget(session_id)

    def traces(self, session_id: SessionId) -> bool:
        """Whether a tracer that is alive has this session."""
        running = self._of_session.get(session_id)
        return running is not None and not running.gone.is_set()

    # -- containers

    async def adopt(self) -> None:
        """Find the tracers that are there already, and the sessions that they trace.

        One of the present image goes on; the others are told to leave when their sessions have ended.
        """
        wanted = host_tracer_name(self._node, self._volumes_dir, self._image)
        labels = {LABEL_NODE: self._node, LABEL_ROLE: ROLE_HOST_TRACER, LABEL_VOLUMES: str(self._volumes_dir)}
        for name in sorted(await self._engine.list_names(labels)):
            running = _Running(name, self._socket_of(name))
            state = await self._look_at(running)
            if state is None:
                await self._engine.remove(name)
                continue
            for session_id in state.sessions:
                self._of_session[SessionId(session_id)] = running
            if name == wanted and self._current is None:
                self._take(running, state)
            else:
                await self._engine.kill(name, "SIGTERM")
            self._adopted.append(running)

    async def _look_at(self, running: _Running) -> TracerLook | None:
        """What a tracer says of itself; None for one that has ended, or that nobody can talk to."""
        try:
            if (await self._engine.inspect(running.name)).status != "running":
                return None
            with trio.move_on_after(self._start_timeout_s):
                return await look(running.socket)
        except (ContainerMissing, TracerAway, TracerRefused):
            return None
        return None

    async def run(self) -> None:
        """See to it that there is a tracer, until cancelled."""
        async with open_hidden_nursery() as nursery:
            for running in self._adopted:
                nursery.start_soon(self._bury, running)
            delays = backoff_delays(0.1, 5.0)
            while True:
                if self._current is None:
                    try:
                        running = await self._start()
                    except EngineUnavailable:
                        await self._engine.wait_back()
                        await trio.sleep(next(delays))
                        continue
                    except (EngineError, HostTracerFailed, OSError) as error:
                        self._failure = str(error)
                        log.error("the tracer of this host can't be started", error=str(error))
                        # Whoever waits is told; those who come later wait for the next try.
                        self._ready.set()
                        await trio.sleep(next(delays))
                        self._ready = trio.Event()
                        continue
                    nursery.start_soon(self._bury, running)
                delays = backoff_delays(0.1, 5.0)
                if self._current is not None:
                    await self._current.gone.wait()

    async def _start(self) -> _Running:
        name = host_tracer_name(self._node, self._volumes_dir, self._image)
        running = _Running(name, self._socket_of(name))
        plan = host_tracer_plan(
            self._image, node=self._node, control=running.socket.parent, volumes=self._volumes_dir,
            ring_bytes=self._ring_bytes,
        )  # fmt: skip
        await trio.to_thread.run_sync(lambda: running.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True))
        await self._engine.remove(name)
        running.socket.unlink(missing_ok=True)
        try:
            await self._engine.create(plan)
            await self._engine.start(name)
            state = None
            with trio.move_on_after(self._start_timeout_s):
                state = await self._wait_ready(running)
            if state is None:
                said = await self._engine.tail(name)
                log.error("the tracer of this host did not become ready", tracer=name, said=said)
                # Its last line says why; those before it are the verifier's log.
                reason = said.rpartition("\n")[2].removeprefix("bdtrace: ") or "it said nothing"
                raise HostTracerFailed(f"the tracer of this host did not become ready: {reason}")
        except BaseException:
            # Nobody knows of it yet, so nobody else removes it, also when DockerD ends while it is being started.
            with trio.move_on_after(_REMOVE_S, shield=True), suppress(EngineError):
                await self._engine.remove(name)
            raise
        self._take(running, state)
        return running

    async def _wait_ready(self, running: _Running) -> TracerLook | None:
        while True:
            try:
                return await look(running.socket)
            except TracerAway:
                if (await self._engine.inspect(running.name)).has_ended:
                    return None
                await trio.sleep(_KNOCK_S)

    def _take(self, running: _Running, state: TracerLook) -> None:
        self._current = running
        self._failure = ""
        self._ready.set()
        log.info(
            "the tracer of this host is ready", tracer=running.name, attach_ms=state.attach_ms,
            unsupported=state.unsupported, sessions=len(state.sessions),
        )  # fmt: skip

    async def _bury(self, running: _Running) -> None:
        """Wait for a tracer's end, and remove what is left of it; only then may the next one have its name."""
        await self._watch.wait_end(running.name)
        said = ""
        while True:
            try:
                said = await self._engine.tail(running.name)
                await self._engine.remove(running.name)
                break
            except EngineUnavailable:
                await self._engine.wait_back()
            except EngineError as error:
                # The next one is started under the same name, and can't be before this one is gone.
                log.warning("a tracer that has ended can't be removed", tracer=running.name, error=str(error))
                break
        if self._current is running:
            log.error("the tracer of this host died; its sessions' traces are partial", tracer=running.name, said=said)
            self._current = None
            self._ready = trio.Event()
        running.gone.set()

    async def leave(self, patience_s: float) -> None:
        """End the tracer, where no session needs it any more; one that is needed stays for a successor.

        It has ``patience_s`` to end by itself, and is removed then.
        """
        running = self._current
        if running is None or self._of_session:
            return
        await self._engine.kill(running.name, "SIGTERM")
        self._current = None
        with trio.move_on_after(patience_s):
            await running.gone.wait()
            return
        await self._engine.remove(running.name)

    def _socket_of(self, name: str) -> Path:
        return self._directory / name / _SOCKET


@asynccontextmanager
async def open_host_tracer(
    engine: Engine, watch: ContainerWatch, image: ImageInfo, *, node: NodeName, directory: Path, volumes_dir: Path,
    ring_bytes: int, start_timeout_s: float,
) -> AsyncIterator[HostTracer]:  # fmt: skip
    """Have a tracer on this host until the context is left; then it goes, unless sessions need it."""
    tracer = HostTracer(
        engine, watch, image, node=node, directory=directory, volumes_dir=volumes_dir, ring_bytes=ring_bytes,
        start_timeout_s=start_timeout_s,
    )  # fmt: skip
    await tracer.adopt()
    async with open_service_nursery() as services:
        services.start_soon(tracer.run)
        patience_s = _LEAVE_AT_ONCE_S
        try:
            yield tracer
            patience_s = _LEAVE_S
        finally:
            with trio.move_on_after(patience_s + _REMOVE_S, shield=True):
                try:
                    await tracer.leave(patience_s)
                except EngineError as error:
                    log.warning("the tracer of this host could not be removed", error=str(error))
