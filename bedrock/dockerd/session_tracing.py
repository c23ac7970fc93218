"""How one session is traced: by the tracer of this host, by an image of another make, or not at all.

Each kind is a :class:`SessionTracing`; the session goes through the same steps with any of them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from datetime import datetime

import msgspec
import structlog
import trio

from bedrock.concurrency.inotify import Inotify
from bedrock.concurrency.nursery import open_hidden_nursery
from bedrock.dockerd.containers import ForeignNeeds, Pair, foreign_tracer_plan, tracer_options
from bedrock.dockerd.engine import Engine
from bedrock.dockerd.engine_values import ContainerMissing, EngineError, EngineUnavailable, ImageInfo
from bedrock.dockerd.gate import let_go, listen_for_gate
from bedrock.dockerd.host_tracer import HostTracer, HostTracerFailed
from bedrock.dockerd.output import copy_log
from bedrock.dockerd.tracing import TracerFailed, report_untraced, wait_foreign_ready, wait_gate_open
from bedrock.dockerd.watch import ContainerWatch
from bedrock.trace.verdict import TracerReport
from bedrock.volume import TRACER_OUTPUT, OrderRecord, SessionVolume

log = structlog.get_logger(__name__)

_KILL_S = 15.0  # between SIGKILL and the engine saying that the container has ended


class SessionTracing(ABC):
    """One session's tracing. All methods may be called again after a restart of DockerD."""

    is_traced = True

    @abstractmethod
    async def prepare(self) -> None:
        """Make what is needed before the target is started. Raises :class:`TracerFailed` or an engine's error."""

    @abstractmethod
    async def start(self) -> None:
        """Go on once the target has been started and waits at the gate. Raises as :meth:`prepare` does."""

    @abstractmethod
    async def wait_let_go(self) -> TracerReport:
        """Return once the target's own program runs, or once it is clear that it never will; the report says which."""

    @abstractmethod
    async def wait_lost(self) -> None:
        """Return when the tracer has ended before it was asked to. Waits for ever where there is none."""

    @abstractmethod
    async def finish(self) -> list[str]:
        """Have everything written that was recorded. Called when the target has ended; bounded in time.

        Returns a sentence for each thing that could not be kept.
        """

    @abstractmethod
    async def remove(self) -> None:
        """Remove what :meth:`prepare` made."""


class HostTracing(SessionTracing):
    """Our own tracer, which is there already."""

    def __init__(
        self, tracer: HostTracer, record: OrderRecord, volume: SessionVolume, inotify: Inotify, *, ring_bytes: int,
        drain_timeout_s: float,
    ) -> None:  # fmt: skip
        self._tracer = tracer
        self._record = record
        self._volume = volume
        self._inotify = inotify
        self._ring_bytes = ring_bytes
        self._drain_timeout_s = drain_timeout_s

    async def prepare(self) -> None:
        try:
            await self._tracer.begin(self._record.session_id, tracer_options(self._record, self._ring_bytes))
        except HostTracerFailed as error:
            raise TracerFailed(str(error)) from None

    async def start(self) -> None:
        """An adopted session that waits at the gate may have lost its tracer; it has run nothing, so it begins anew."""
        if not self._tracer.traces(self._record.session_id):
            await self.prepare()

    async def wait_let_go(self) -> TracerReport:
        return await wait_gate_open(self._volume, self._inotify)

    async def wait_lost(self) -> None:
        await self._tracer.wait_lost(self._record.session_id)

    async def finish(self) -> list[str]:
        with trio.move_on_after(self._drain_timeout_s) as patience_scope:
            await self._tracer.end(self._record.session_id)
        if patience_scope.cancelled_caught:
            log.error("the tracer did not drain in time; the trace will read as partial")
            await self._tracer.check(self._record.session_id)
        return []

    async def remove(self) -> None:
        self._tracer.forget(self._record.session_id)


class ForeignTracing(SessionTracing):
    """A tracer image of another make, in a container for each session, whose gate DockerD opens."""

    def __init__(
        self, engine: Engine, watch: ContainerWatch, image: ImageInfo, record: OrderRecord, volume: SessionVolume,
        *, inotify: Inotify, needs: ForeignNeeds, ready_delay_s: float, drain_timeout_s: float,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._watch = watch
        self._image = image
        self._record = record
        self._volume = volume
        self._inotify = inotify
        self._needs = needs
        self._ready_delay_s = ready_delay_s
        self._drain_timeout_s = drain_timeout_s
        self._container = Pair(record.session_id).tracer

    async def prepare(self) -> None:
        await self._engine.create(foreign_tracer_plan(self._record, self._volume, self._image, self._needs))

    async def start(self) -> None:
        # It looks for a container that runs, so it comes second; the target waits at the gate meanwhile.
        try:
            try:
                await self._engine.start(self._container)
            except ContainerMissing:
                await self.prepare()
                await self._engine.start(self._container)
        except EngineUnavailable:
            raise
        except EngineError as error:
            raise TracerFailed(f"the tracer container can't be started: {error}") from None

    async def wait_let_go(self) -> TracerReport:
        ready = trio.Event()

        async def wait_ready() -> None:
            await wait_foreign_ready(self._volume, self._inotify, self._ready_delay_s)
            ready.set()

        async with listen_for_gate(self._volume) as listener, open_hidden_nursery() as nursery:
            nursery.start_soon(wait_ready)
            report = await let_go(listener, ready)
        if report.started_at is not None:
            await trio.to_thread.run_sync(self._volume.write_report, msgspec.json.encode(report))
        return report

    async def wait_lost(self) -> None:
        await self._watch.wait_end(self._container)

    async def finish(self) -> list[str]:
        """Ask the tracer to drain and end, and wait for it; then keep what it printed."""
        try:
            state = await self._engine.inspect(self._container)
        except ContainerMissing:
            return []
        if state.status == "created":
            return []
        if not state.has_ended:
            await self._engine.kill(self._container, "SIGTERM")
            with trio.move_on_after(self._drain_timeout_s) as patience_scope:
                await self._watch.wait_end(self._container)
            if patience_scope.cancelled_caught:
                log.error("the tracer did not drain in time and is killed")
                await self._engine.kill(self._container, "SIGKILL")
                with trio.fail_after(_KILL_S):
                    await self._watch.wait_end(self._container)
        path = self._volume.path / TRACER_OUTPUT
        try:
            await copy_log(self._engine, self._container, path)
        except OSError as error:
            log.error("the output of the tracer can't be kept", container=self._container, error=str(error))
            return [f"the output ({TRACER_OUTPUT}) could not be kept whole: {error.strerror}"]
        return []

    async def remove(self) -> None:
        await self._engine.remove(self._container)


class NoTracing(SessionTracing):
    """The session asked not to be traced: there is no gate, and the target runs as soon as it is started."""

    is_traced = False

    def __init__(self, engine: Engine, record: OrderRecord, volume: SessionVolume) -> None:
        self._engine = engine
        self._target = Pair(record.session_id).target
        self._volume = volume

    async def prepare(self) -> None:
        pass

    async def start(self) -> None:
        pass

    async def wait_let_go(self) -> TracerReport:
        target = await self._engine.inspect(self._target)
        report = report_untraced(_nanoseconds(target.started_at))
        await trio.to_thread.run_sync(self._volume.write_report, msgspec.json.encode(report))
        return report

    async def wait_lost(self) -> None:
        await trio.sleep_forever()

    async def finish(self) -> list[str]:
        return []

    async def remove(self) -> None:
        pass


def _nanoseconds(moment: datetime | None) -> int:
    return time.time_ns() if moment is None else int(moment.timestamp() * 1e9)
