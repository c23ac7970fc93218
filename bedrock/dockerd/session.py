"""One session on this host, from the order to the unlocked volume.

Each step can be done again: names are derived from the session's id, files are replaced whole, and what has been done
can be seen in the containers and the volume. That is what makes :mod:`bedrock.dockerd.adopt` possible: after a crash a
session enters here again at the step that the host shows it to be in.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime

import msgspec
import structlog
import trio

from bedrock.concurrency.backoff import backoff_delays
from bedrock.concurrency.groups import first_member, members
from bedrock.concurrency.race import all_of, first_of
from bedrock.dockerd.containers import (
    LABEL_NODE,
    LABEL_SESSION,
    LABEL_STOP_SIGNAL,
    Pair,
    target_plan,
)
from bedrock.dockerd.engine_values import (
    ContainerMissing,
    ContainerState,
    EngineError,
    EngineUnavailable,
    ImageInfo,
)
from bedrock.dockerd.host import Host
from bedrock.dockerd.outcome import NeverRan, ending_of_error, ending_of_exit, make_outcome
from bedrock.dockerd.output import SessionOutput
from bedrock.dockerd.steps import Step, find_step
from bedrock.dockerd.tracing import TracerFailed, report_of, verdict_of, wait_gate_open
from bedrock.duration import format_duration
from bedrock.lifecycle import Ending, Outcome
from bedrock.model import Output, Reason, SessionId, Status, utc_now
from bedrock.trace.verdict import TracerReport
from bedrock.volume import IMAGE_FILES, OrderRecord, SessionRecord, SessionVolume

log = structlog.get_logger(__name__)

_RETRY_S = 1.0
_RETRY_FIRST_S, _RETRY_MAX_S = 0.05, 5.0  # of a session under which the engine went away
_KILL_S = 15.0  # between SIGKILL and the engine saying that the container has ended
# What a look at a container may take, for a session that is overdue when it is adopted.
_LAST_LOOK_S = 0.5
_LISTING_S = 10.0  # what a session waits for the list of its image's files, which is begun when it is
_OUTPUT_S = 60.0  # bringing home what an ended container has printed, which after a restart is a reading of its log
_LAST_OUTPUT_S = 1.0  # the same when there is a hurry
_COLLECT_S = 900.0  # collecting and hashing what a session has written, which may be gigabytes


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
        self._engine_patience_s = host.engine_timeout_s
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
            except EngineUnavailable:
                if ending is not None and self.started_at is None:
                    # Nothing that the engine has to say can change how this one ended.
                    await self._tell_early(ending)
                await self._host.engine.wait_back()
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
            delays = backoff_delays(_RETRY_FIRST_S, _RETRY_MAX_S)
            while True:
                try:
                    return await self._go_on(step)
                except EngineUnavailable as error:
                    log.warning("the engine went away under the session", error=str(error))
                    away = str(error)
                except (TracerFailed, NeverRan, EngineError) as error:
                    return ending_of_error(error)
                # What was under way may have been done or not: the engine will say when it is back.
                found = await self._find_step(away)
                if found is None:
                    limit = format_duration(int(self._host.engine_timeout_s * 1e9))
                    message = f"the Docker Engine was away for longer than {limit} before the session had started"
                    return Ending(Status.FAILED, Reason.RUNTIME_ERROR, message)
                step = found
                await trio.sleep(next(delays))
        if self._stop_reason is Reason.SHUTDOWN:
            return Ending(Status.STOPPED, Reason.SHUTDOWN, "stopped because its node was shut down")
        return Ending(Status.STOPPED, Reason.STOP_REQUEST, "stopped on request")

    async def _go_on(self, step: Step) -> Ending:
        if step > Step.PREPARE and self._output is None:
            self._output = self._resume_output()
        if step <= Step.PREPARE:
            await self._prepare_volume()
            await self._create_containers(await self._ensure_image())
            await self._start_target()
        if step <= Step.OPEN_GATE:
            await self._tracing.start()
            await self._wait_gate()
        return await self._watch_until_end()

    async def _find_step(self, away: str) -> Step | None:
        """Wait for an engine that is away; return where the session goes on.

        None: the session has not started, and has waited for long enough, all its waits taken together.
        """
        if self.started_at is not None:
            return await self._ask_step()
        self._report(f"waiting for the Docker Engine: {away}")
        begin = trio.current_time()
        with trio.move_on_after(self._engine_patience_s):
            step = await self._ask_step()
            self._engine_patience_s -= trio.current_time() - begin
            return step
        return None

    async def _ask_step(self) -> Step:
        while True:
            await self._host.engine.wait_back()
            try:
                return await find_step(self._host.engine, self._volume)
            except EngineError as error:
                log.warning("an engine that is back does not say what it has of the session", error=str(error))
                await trio.sleep(_RETRY_S)

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
            raise NeverRan("no command was given, and the image has none of its own", exit_code=None)
        try:
            await all_of(lambda: self._host.engine.create(target), self._tracing.prepare)
        except BaseExceptionGroup as group:
            # Several have failed, or one has and then we were cancelled: one of these decides what becomes of us.
            cancelled, errors = group.split(trio.Cancelled)
            log.error("creating containers failed", errors=[str(error) for error in members(errors or group)])
            away = group.subgroup(EngineUnavailable)
            raise first_member(cancelled or away or group) from group

    async def _start_target(self) -> None:
        self._report("starting")
        if self._output is not None:  # of a container that was made before the engine went away
            await self._output.end()
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
            raise NeverRan(report.error or "the command could not be started", exit_code=report.exit_code)

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

    async def _tell_early(self, ending: Ending) -> None:
        """Report the end while what is left of the session can't be removed yet."""
        verdict = await trio.to_thread.run_sync(verdict_of, self._volume)
        with suppress(OSError):  # then it is reported when all of it is written down
            await self._host.ledger.add(self.id, make_outcome(ending, None, None, verdict))
        self._on_change(self.id)

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
        is_started = container is not None and container.status != "created"
        if self._output is None and is_started:
            # Why it is over had been decided before this DockerD took the session up.
            self._output = self._resume_output()
        if self._output is None:
            return None
        if is_started:
            with trio.move_on_after(_OUTPUT_S):
                await first_of(self._output.wait, self._hurry.wait)
            with trio.move_on_after(_LAST_OUTPUT_S):
                await self._output.wait()
        output = await self._output.end()
        return output if is_started else None

    def _resume_output(self) -> SessionOutput:
        return self._host.outputs.resume(self._pair.target, self._volume, self._max_output)

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
