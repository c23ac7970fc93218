"""One session on this host, from the order to the unlocked volume.

Each step can be done again: names are derived from the session's id, files are replaced whole, and what has been done
can be seen in the containers and the volume. That is what makes :mod:`bedrock.dockerd.adopt` possible: after a crash a
session enters here again at the step that the host shows it to be in.
"""

from __future__ import annotations

import enum
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime

import msgspec
import structlog
import trio

from bedrock.concurrency.groups import first_member, members
from bedrock.concurrency.inotify import Inotify
from bedrock.concurrency.race import all_of, first_of
from bedrock.dockerd.containers import (
    LABEL_NODE,
    LABEL_SESSION,
    LABEL_STOP_SIGNAL,
    ForeignNeeds,
    Pair,
    target_plan,
)
from bedrock.dockerd.engine import Engine
from bedrock.dockerd.engine_values import (
    ContainerMissing,
    ContainerState,
    EngineError,
    EngineUnavailable,
    ImageInfo,
    ImageMissing,
    PullFailed,
)
from bedrock.dockerd.host_tracer import HostTracer
from bedrock.dockerd.image_files import ImageListings
from bedrock.dockerd.images import Images
from bedrock.dockerd.ledger import Ledger
from bedrock.dockerd.outcome import ending_of_exit, make_outcome
from bedrock.dockerd.output import Outputs, SessionOutput
from bedrock.dockerd.session_tracing import ForeignTracing, HostTracing, NoTracing, SessionTracing
from bedrock.dockerd.tracing import TracerFailed, TracerImage, report_of, verdict_of, wait_gate_open
from bedrock.dockerd.watch import ContainerWatch
from bedrock.duration import format_duration
from bedrock.lifecycle import Ending, Outcome
from bedrock.model import NodeName, Output, Reason, SessionId, Status, TraceMode, TraceSpec, utc_now
from bedrock.trace.verdict import TracerReport
from bedrock.volume import IMAGE_FILES, OrderRecord, SessionRecord, SessionVolume

log = structlog.get_logger(__name__)

_RETRY_S = 1.0
_KILL_S = 15.0  # between SIGKILL and the engine saying that the container has ended
# What a look at a container may take, for a session that is overdue when it is adopted.
_LAST_LOOK_S = 0.5
_LISTING_S = 10.0  # what a session waits for the list of its image's files, which is begun when it is
_OUTPUT_S = 60.0  # bringing home what an ended container has printed, which after a restart is a reading of its log
_COLLECT_S = 900.0  # collecting and hashing what a session has written, which may be gigabytes


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What every session of this host shares."""

    node: NodeName
    engine: Engine
    engine_version: str
    kernel: str
    images: Images
    listings: ImageListings
    watch: ContainerWatch
    inotify: Inotify
    tracer: TracerImage
    host_tracer: HostTracer | None  # None where the tracer is of another make
    ledger: Ledger
    stop_grace_s: float
    tracer_timeout_s: float
    tracer_ring_bytes: int
    outputs: Outputs
    max_output: int  # where a session names none
    tracing: TraceSpec  # what is used where a session does not say
    foreign: ForeignNeeds
    foreign_delay_s: float

    def tracing_of(self, wanted: TraceSpec) -> TraceSpec:
        """How a session is traced: as it wants, and where it does not say as this node is set up."""
        return msgspec.structs.replace(
            wanted,
            mode=wanted.mode or self.tracing.mode,
            max_size=self.tracing.max_size if wanted.max_size is None else wanted.max_size,
        )

    def trace(self, record: OrderRecord, volume: SessionVolume) -> SessionTracing:
        """What traces a session."""
        if record.order.trace.mode is TraceMode.OFF:
            return NoTracing(self.engine, record, volume)
        if self.host_tracer is not None:
            return HostTracing(
                self.host_tracer, record, volume, self.inotify, ring_bytes=self.tracer_ring_bytes,
                drain_timeout_s=self.tracer_timeout_s,
            )  # fmt: skip
        return ForeignTracing(
            self.engine, self.watch, self.tracer.info, record, volume, inotify=self.inotify, needs=self.foreign,
            ready_delay_s=self.foreign_delay_s, drain_timeout_s=self.tracer_timeout_s,
        )  # fmt: skip


class Step(enum.IntEnum):
    """Where a session enters :meth:`SessionRun.run`."""

    PREPARE = 1
    OPEN_GATE = 2  # the target is held at the gate, which has not been seen open
    WATCH = 3  # the target's own program runs, or has run
    SETTLE = 4  # why it is over is written down


class SessionRun:
    """One session. ``on_change`` is called whenever there is something new to report of it."""

    def __init__(
        self, host: Host, record: OrderRecord, volume: SessionVolume, on_change: Callable[[SessionId], None]
    ) -> None:
        self.id: SessionId = record.session_id
        self.progress = ""
        self.started_at: datetime | None = None
        self.is_ending = False  # what it leaves is being collected
        self._host = host
        self._record = record
        self._volume = volume
        self._on_change = on_change
        self._pair = Pair(record.session_id)
        self._tracing = host.trace(record, volume)
        self._image: ImageInfo | None = None
        self._stop_reason: Reason | None = None
        self._stop_scope = trio.CancelScope()
        self._hurry = trio.Event()
        self._output: SessionOutput | None = None
        self._losses: list[str] = []

    def request_stop(self, reason: Reason, *, at_once: bool = False) -> None:
        """End the session, from whatever step it is in. The first request's reason stands.

        ``at_once``: without the time that its target, or a list of its image's files, would otherwise be given.
        """
        if self._stop_reason is None:
            self._stop_reason = reason
            self._stop_scope.cancel()
        if at_once:
            self._hurry.set()

    async def run(self, step: Step) -> Outcome:
        """Take the session from ``step`` to its end; return how it ended, with the volume unlocked.

        Cancelling this leaves everything as it is for a successor, which goes on from there.
        """
        ending = await self._live(step) if step < Step.SETTLE else None
        self.is_ending = True
        while True:
            try:
                with trio.fail_after(self._teardown_limit_s):
                    return await self._settle(ending)
            except (EngineError, OSError, trio.TooSlowError) as error:
                log.error("tearing the session down failed; trying again", error=str(error))
            await trio.sleep(_RETRY_S)

    @property
    def _max_output(self) -> int:
        return self._record.order.max_output or self._host.max_output

    @property
    def _teardown_limit_s(self) -> float:
        return self._host.stop_grace_s + self._host.tracer_timeout_s + 3 * _KILL_S + _COLLECT_S

    # -- living

    async def _live(self, step: Step) -> Ending:
        """Steps 1 to 5: until it is known how the session ends. The containers may still run then."""
        with self._stop_scope:
            try:
                if step > Step.PREPARE:
                    self._output = self._host.outputs.resume(self._pair.target, self._volume, self._max_output)
                if step <= Step.PREPARE:
                    await self._prepare_volume()
                    await self._create_containers(await self._ensure_image())
                    await self._start_target()
                if step <= Step.OPEN_GATE:
                    await self._tracing.start()
                    await self._wait_gate()
                return await self._watch_until_end()
            except ImageMissing as error:
                return Ending(Status.FAILED, Reason.IMAGE_NOT_FOUND, str(error))
            except PullFailed as error:
                return Ending(Status.FAILED, Reason.PULL_ERROR, str(error))
            except TracerFailed as error:
                return Ending(Status.FAILED, Reason.TRACER_ERROR, str(error))
            except _NeverRan as error:
                return Ending(Status.FAILED, Reason.CREATE_ERROR, str(error), exit_code=error.exit_code)
            except EngineUnavailable as error:
                return Ending(Status.FAILED, Reason.RUNTIME_ERROR, str(error))
            except EngineError as error:
                return Ending(Status.FAILED, Reason.CREATE_ERROR, str(error))
        if self._stop_reason is Reason.SHUTDOWN:
            return Ending(Status.STOPPED, Reason.SHUTDOWN, "stopped because its node was shut down")
        return Ending(Status.STOPPED, Reason.STOP_REQUEST, "stopped on request")

    async def _prepare_volume(self) -> None:
        self._report("preparing")
        await trio.to_thread.run_sync(self._volume.prepare, self._record, self._host.tracer.gate)
        labels = {LABEL_SESSION: self.id, LABEL_NODE: self._host.node}
        await self._host.engine.create_bind_volume(self._volume.name, self._volume.path, labels)

    async def _ensure_image(self) -> ImageInfo:
        self._image = await self._host.images.ensure(self._record.order.image, self._report)
        if self._tracing.is_traced:
            self._host.listings.begin(self._image)
        return self._image

    async def _create_containers(self, image: ImageInfo) -> None:
        self._report("creating containers")
        target = target_plan(self._record, self._volume, image)
        if not (target.command or target.entrypoint):
            raise _NeverRan("no command was given, and the image has none of its own", exit_code=None)
        try:
            await all_of(lambda: self._host.engine.create(target), self._tracing.prepare)
        except BaseExceptionGroup as group:
            # Several have failed, or one has and then we were cancelled: one of these decides what becomes of us.
            cancelled, errors = group.split(trio.Cancelled)
            log.error("creating containers failed", errors=[str(error) for error in members(errors or group)])
            raise first_member(cancelled or group) from group

    async def _start_target(self) -> None:
        self._report("starting")
        self._output = await self._host.outputs.begin(self._pair.target, self._volume, self._max_output)
        await self._host.engine.start(self._pair.target)

    async def _wait_gate(self) -> None:
        """Return once the target's own first instruction is about to run; from here on the session is running."""
        report: TracerReport | None = None
        with trio.move_on_after(self._host.tracer_timeout_s) as patience_scope:
            report = await first_of(
                self._tracing.wait_let_go,
                lambda: self._after_end_of(self._tracing.wait_lost),
                lambda: self._after_end_of(lambda: self._host.watch.wait_end(self._pair.target)),
            )
        if patience_scope.cancelled_caught:
            raise TracerFailed(f"the tracer was not ready within {self._host.tracer_timeout_s:.0f} s")
        if report is None:
            raise TracerFailed("the target or its tracer ended before the gate was opened; their output may say why")
        if report.state == "failed":
            raise TracerFailed(f"the tracer failed: {report.error}")
        if report.state == "exec_failed":
            raise _NeverRan(report.error or "the command could not be started", exit_code=report.exit_code)

    async def _after_end_of(self, wait: Callable[[], Awaitable[object]]) -> TracerReport | None:
        """The target or its tracer has ended too early: what the tracer wrote last may still be on its way."""
        await wait()
        with trio.move_on_after(1):
            return await wait_gate_open(self._volume, self._host.inotify)
        return None

    async def _watch_until_end(self) -> Ending:
        report = await trio.to_thread.run_sync(report_of, self._volume)
        self.started_at = report.started_at if report is not None and report.started_at else utc_now()
        self._on_change(self.id)
        log.info("session running")
        left_s = self._record.order.ttl / 1e9 - (utc_now() - self.started_at).total_seconds()
        # An adopted session may be overdue; if it ended before anybody looked, it ended by itself all the same.
        with trio.move_on_after(left_s if left_s > 0 else _LAST_LOOK_S) as ttl_scope:
            await first_of(lambda: self._host.watch.wait_end(self._pair.target), self._tracing.wait_lost)
        if ttl_scope.cancelled_caught:
            return Ending(
                Status.FINISHED, Reason.TTL, f"its time to live of {format_duration(self._record.order.ttl)} is over"
            )
        try:
            target = await self._host.engine.inspect(self._pair.target)
        except ContainerMissing:
            return Ending(Status.FAILED, Reason.RUNTIME_ERROR, "the container was removed by somebody else")
        if not target.has_ended:
            return Ending(Status.FAILED, Reason.TRACER_ERROR, "the tracer died while the target was running")
        return ending_of_exit(target)

    # -- ending

    async def _settle(self, ending: Ending | None) -> Outcome:
        """Steps 6 and 7: stop what runs, collect, write down, remove, unlock. Doing it again is harmless."""
        session = await trio.to_thread.run_sync(self._volume.read_session)
        if session is None:
            session = await self._collect(await trio.to_thread.run_sync(self._decide, ending))
        await trio.to_thread.run_sync(self._volume.write_manifest, session, trio.from_thread.check_cancelled)
        await self._host.engine.remove(self._pair.target)
        await self._tracing.remove()
        await self._host.engine.remove_volume(self._volume.name)
        # The report must be safe before FileMD may take the volume away.
        await self._host.ledger.add(self.id, session.outcome)
        await trio.to_thread.run_sync(self._volume.unlock)
        log.info("session ended", status=session.outcome.status, reason=session.outcome.reason)
        return session.outcome

    def _decide(self, ending: Ending | None) -> Ending:
        """Write down why the session is over, unless that has been done: what was decided first stands.

        It comes before anything is done about it. A successor would take a target that was killed because its time was
        over for one that failed.
        """
        decided = self._volume.read_ending()
        if decided is None:
            assert ending is not None, "a session that is entered here has its ending written down"
            # A session may be stopped before its directory has been made.
            self._volume.claim(self._host.node)
            self._volume.write_ending(ending)
            return ending
        report = report_of(self._volume)
        self.started_at = report.started_at if report is not None else None
        return decided

    async def _collect(self, ending: Ending) -> SessionRecord:
        target = await self._stop_target()
        self._losses += await self._tracing.finish()
        output = await self._finish_output(target)
        await trio.to_thread.run_sync(self._volume.release_reserve)

        listing = None
        if target is not None and self._tracing.is_traced:
            patience_s = 0 if self._hurry.is_set() else _LISTING_S
            listing = await self._host.listings.get(target.image_id, patience_s=patience_s)

        def write() -> SessionRecord:
            self._volume.pack_nested()
            if listing is not None:
                with suppress(OSError):
                    shutil.copyfile(listing, self._volume.path / IMAGE_FILES)
            report = report_of(self._volume)
            started_at = report.started_at if report is not None else None
            outcome = make_outcome(ending, target, started_at, verdict_of(self._volume))
            message = "; ".join(filter(None, [outcome.message, *self._losses, output.message if output else ""]))
            record = SessionRecord(
                session_id=self.id,
                node=self._host.node,
                order=self._record.order,
                outcome=msgspec.structs.replace(outcome, message=message, output=output),
                image_id=target.image_id if target is not None else "",
                image_digests=self._image.digests if self._image is not None else [],
                engine_version=self._host.engine_version,
                kernel=self._host.kernel,
            )
            self._volume.write_session(record)
            return record

        return await trio.to_thread.run_sync(write)

    async def _finish_output(self, container: ContainerState | None) -> Output | None:
        """Have everything in the volume that the container has printed."""
        if self._output is None:
            return None
        if container is not None and container.status == "created":
            await self._output.abandon()
            return None
        return await self._output.finish(_OUTPUT_S)

    async def _stop_target(self) -> ContainerState | None:
        """SIGTERM (or the image's own stop signal), grace, SIGKILL. Returns the container's last state."""
        try:
            state = await self._host.engine.inspect(self._pair.target)
        except ContainerMissing:
            return None
        if state.status == "created" or state.has_ended:
            return state
        if self.started_at is not None:
            await self._host.engine.kill(state.id, state.labels.get(LABEL_STOP_SIGNAL, "SIGTERM"))
            with trio.move_on_after(self._host.stop_grace_s):
                await first_of(lambda: self._host.watch.wait_end(self._pair.target), self._hurry.wait)
                if not self._hurry.is_set():
                    return await self._host.watch.wait_end(self._pair.target)
        # A target that is held at the gate has run nothing that could want to say goodbye.
        return await self._kill(self._pair.target)

    async def _kill(self, container: str) -> ContainerState | None:
        await self._host.engine.kill(container, "SIGKILL")
        with trio.fail_after(_KILL_S):
            return await self._host.watch.wait_end(container)

    def _report(self, progress: str) -> None:
        self.progress = progress
        self._on_change(self.id)


class _NeverRan(Exception):
    """The target's own program could not be started, through its own fault."""

    def __init__(self, message: str, *, exit_code: int | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
