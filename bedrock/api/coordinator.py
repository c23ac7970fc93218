"""What may happen to sessions: the one place where requests, reports and time change them.

REST routes and node polls come here; nothing else writes a session. Each change is a pure function of
:mod:`bedrock.lifecycle` under the store's compare-and-set, followed by telling those who wait for it: the node that
must act, and the clients that watch.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import partial

import msgspec
import structlog
import trio

from bedrock import lifecycle
from bedrock.api.fleet import Duty, Fleet, NodeState
from bedrock.api.metrics import ApiMetrics
from bedrock.api.sessions import Sessions, Stored, UnknownSession
from bedrock.concurrency.service_nursery import open_service_nursery
from bedrock.errors import BedrockError
from bedrock.kv import KVStore, StoreError
from bedrock.lifecycle import Outcome
from bedrock.model import (
    Logs,
    Reason,
    Session,
    SessionId,
    Status,
    StoredFile,
    utc_now,
)

log = structlog.get_logger(__name__)

# How many waiting sessions are looked at in one go, and how often silence is judged.
_ASSIGN_BATCH = 64
_LIVENESS_INTERVAL_S = 1.0
_INSERT_S = 60.0


class NotEndedYet(BedrockError):
    """A session can only be deleted once it has ended and its node has reported so."""


class Coordinator:
    """Made by :func:`open_coordinator`."""

    def __init__(self, sessions: Sessions, fleet: Fleet, metrics: ApiMetrics, *, node_lost_after_s: float) -> None:
        self.sessions = sessions
        self.fleet = fleet
        self.metrics = metrics
        self._node_lost_after_s = node_lost_after_s
        self._progress: dict[SessionId, str] = {}
        self._watchers: dict[SessionId, trio.Event] = {}
        self._assignment_wanted = trio.Event()
        self._someone_waits = True  # until the store has been asked
        self._accepted_at: dict[SessionId, float] = {}

    # -- what clients ask for

    async def create(self, session: Session) -> Session:
        """Accept a session: store it, and give it to a node at once when one is free and nobody waits before it."""
        node = None if self._someone_waits else self.fleet.reserve(session.id)
        if node is not None:
            session = lifecycle.assign(session, node.name)
        try:
            # A client that hangs up now must not leave a session that is stored and that no node is told of. The
            # store answers or fails within its own deadlines, which are shorter than this one.
            with trio.fail_after(_INSERT_S, shield=True):
                await self.sessions.insert(session)
        except (StoreError, trio.TooSlowError):
            if node is not None:
                node.drop(session.id)
            raise
        self.metrics.sessions_created.inc()
        if node is None:
            self._someone_waits = True
            self._assignment_wanted.set()
        else:
            self._tell(node, session.id)
        log.info("session accepted", session=session.id, image=session.image, ttl=session.ttl, node=session.dockerd_id)
        return session

    async def get(self, session_id: SessionId) -> Stored:
        """Return a session as clients see it: while it is pending, ``message`` says what it waits for."""
        session, revision = await self.sessions.get(session_id)
        return Stored(self.present(session), revision)

    def present(self, session: Session) -> Session:
        """Add what is known but not stored to a session."""
        return self.present_all([session])[0]

    def present_all(self, sessions: Iterable[Session]) -> list[Session]:
        """Add what is known but not stored to many sessions."""
        alive = any(self.fleet.is_alive(node) for node in self.fleet)
        unassigned = "waiting for a free slot" if alive else "waiting for a node: no DockerD is alive"

        def present(session: Session) -> Session:
            if session.status is not Status.PENDING:
                return session
            message = unassigned
            if session.dockerd_id is not None:
                message = self._progress.get(session.id) or f"waiting for {session.dockerd_id}"
            return msgspec.structs.replace(session, message=message)

        return list(map(present, sessions))

    async def request_status(self, session_id: SessionId, wanted: Status) -> Session:
        """Apply a client's ``PUT``. Raises :class:`UnknownSession`, :class:`lifecycle.TransitionRefused`."""
        stored, before = await self.sessions.update(session_id, partial(lifecycle.request, wanted=wanted, at=utc_now()))
        session = stored.session
        log.info("status set by a client", session=session_id, status=session.status, before=before.status)
        if session.status.is_terminal:
            self._count_end(session)
            node = self.fleet.get(session.dockerd_id) if session.dockerd_id else None
            if node is not None and session_id in node.work:
                node.set_duty(session_id, Duty.STOP)
        self._changed(session_id)
        return self.present(session)

    async def delete(self, session_id: SessionId) -> None:
        """Forget an ended session. Raises :class:`UnknownSession` or :class:`NotEndedYet`."""

        def check(session: Session) -> None:
            if not session.status.is_terminal:
                raise NotEndedYet(f"the session is {session.status}; stop it first, then delete it")
            node = self.fleet.get(session.dockerd_id) if session.dockerd_id else None
            if node is not None and session_id in node.work:
                raise NotEndedYet(f"node {node.name} is still tearing the session down; try again when it has")

        await self.sessions.remove(session_id, check)
        self._changed(session_id)
        log.info("session deleted", session=session_id)

    @contextmanager
    def watching(self, session_id: SessionId) -> Iterator[trio.Event]:
        """Yield an event that is set when the session may have changed after this context was entered."""
        event = self._watchers.setdefault(session_id, trio.Event())
        try:
            yield event
        finally:
            if self._watchers.get(session_id) is event and not event.statistics().tasks_waiting:
                del self._watchers[session_id]

    async def file_stored(self, session_id: SessionId, item: StoredFile, logs: Logs) -> None:
        """Record a file that is safely on disk; ``logs`` says how far the session's files are with it."""
        await self.sessions.update(
            session_id, lambda session: msgspec.structs.replace(session, logs=logs), files=[item]
        )
        self.metrics.upload_bytes.inc(item.size)
        self._changed(session_id)
        log.info("file stored", session=session_id, file=item.filename, size=item.size, logs=logs.state)

    # -- what nodes report

    def node_ready(self, node: NodeState) -> None:
        """A node has been heard: if it has room, those who wait are looked at."""
        if self._someone_waits and node.free_slots > 0:
            self._assignment_wanted.set()

    def told(self, session_id: SessionId) -> None:
        """A node has been sent the order to start this session."""
        since = self._accepted_at.pop(session_id, None)
        if since is not None:
            self.metrics.dispatch_seconds.observe(trio.current_time() - since)

    def report_progress(self, node: NodeState, session_id: SessionId, message: str) -> None:
        """A pending session has come a step further on its node. Kept in memory only: it is news, not state."""
        if session_id in node.work and self._progress.get(session_id) != message:
            self._progress[session_id] = message
            self._changed(session_id)

    async def report_running(self, node: NodeState, session_id: SessionId, started_at: datetime) -> Duty:
        """A node says that a session runs. Returns what the node should do with it: keep it, or stop it.

        A report that says nothing new does not touch the store: there are nodes that report all they have each time.
        """
        item = node.work.get(session_id)
        if item is not None and item.duty in {Duty.KEEP, Duty.STOP}:
            return item.duty

        def change(session: Session) -> Session:
            _check_owner(session, node)
            return lifecycle.start(session, started_at=started_at)

        try:
            stored, before = await self.sessions.update(session_id, change)
        except UnknownSession:
            log.warning("node runs a session that is not in the store; stopping it", session=session_id, node=node.name)
            return Duty.STOP
        except lifecycle.TransitionRefused:
            return Duty.STOP
        self._progress.pop(session_id, None)
        node.set_duty(session_id, Duty.KEEP, ends_at_s=_end_of(stored.session))
        if before.status is not stored.session.status:
            log.info("session running", session=session_id, node=node.name)
            self._changed(session_id)
        return Duty.KEEP

    async def report_end(self, node: NodeState, session_id: SessionId, outcome: Outcome) -> None:
        """A node says how a session ended. When this returns the end is stored and may be acknowledged."""

        def change(session: Session) -> Session:
            _check_owner(session, node)
            return lifecycle.end(session, outcome)

        try:
            stored, before = await self.sessions.update(session_id, change, settle=True)
        except UnknownSession:
            log.warning("node ended a session that is not in the store", session=session_id, node=node.name)
            return
        self._forget(node, session_id)
        if not before.status.is_terminal:
            self._count_end(stored.session)
            log.info(
                "session ended",
                session=session_id,
                node=node.name,
                status=stored.session.status,
                reason=stored.session.reason,
                exit_code=stored.session.exit_code,
            )
        if before.trace is None and stored.session.trace is not None:
            self.metrics.traces.labels(stored.session.trace.state.value).inc()
        self._changed(session_id)

    async def report_everything(self, node: NodeState, reported: set[SessionId]) -> None:
        """A node has listed all that it has: what should be running there and isn't listed is lost."""
        missing = [session_id for session_id, item in node.work.items() if item.duty is Duty.KEEP]
        for session_id in missing:
            if session_id not in reported:
                await self._lose(node, session_id, f"node {node.name} no longer knows the session")

    # -- what time does

    async def _assign_waiting(self) -> None:
        while True:
            await self._assignment_wanted.wait()
            self._assignment_wanted = trio.Event()
            try:
                await self._assign_once()
            except StoreError as error:
                log.error("waiting sessions can't be assigned", error=str(error))
                await trio.sleep(_LIVENESS_INTERVAL_S)
                self._assignment_wanted.set()

    async def _assign_once(self) -> None:
        while True:
            # Whoever is accepted from here on sets it again, after being stored.
            self._someone_waits = False
            waiting = await self.sessions.waiting(limit=_ASSIGN_BATCH)
            for session_id in waiting:
                node = self.fleet.reserve(session_id)
                if node is None:
                    self._someone_waits = True
                    return
                try:
                    await self.sessions.update(session_id, partial(lifecycle.assign, node=node.name))
                except (lifecycle.TransitionRefused, UnknownSession):
                    node.drop(session_id)
                except BaseException:
                    self._someone_waits = True
                    node.drop(session_id)
                    raise
                else:
                    log.info("waiting session assigned", session=session_id, node=node.name)
                    self._tell(node, session_id)
                    self._changed(session_id)
            if len(waiting) < _ASSIGN_BATCH:
                return

    async def _watch_liveness(self) -> None:
        while True:
            self.metrics.nodes_alive.set(sum(self.fleet.is_alive(node) for node in self.fleet))
            for node in self.fleet.silent_for(self._node_lost_after_s):
                silence = f"node {node.name} has been silent for {self._node_lost_after_s:.0f} s"
                for session_id in list(node.work):
                    try:
                        await self._lose(node, session_id, silence)
                    except StoreError as error:
                        log.error("a lost node's session can't be ended", session=session_id, error=str(error))
            await self._end_overdue()
            await trio.sleep(_LIVENESS_INTERVAL_S)

    async def _end_overdue(self) -> None:
        """End the sessions whose time is over on nodes that don't see to that. What a silent node has is not known."""
        for node in self.fleet:
            for session_id in node.overdue() if self.fleet.is_alive(node) else []:
                try:
                    stored, before = await self.sessions.update(session_id, partial(lifecycle.expire, at=utc_now()))
                except StoreError as error:
                    log.error("a session can't be ended by its TTL", session=session_id, error=str(error))
                    continue
                except UnknownSession:
                    node.drop(session_id)
                    continue
                if session_id in node.work:
                    node.set_duty(session_id, Duty.STOP)
                if not before.status.is_terminal:
                    self._count_end(stored.session)
                    log.info("session ended by its TTL", session=session_id, node=node.name)
                    self._changed(session_id)

    async def _lose(self, node: NodeState, session_id: SessionId, message: str) -> None:
        log.error("session lost with its node", session=session_id, node=node.name, message=message)
        outcome = Outcome(status=Status.FAILED, reason=Reason.NODE_LOST, message=message, finished_at=utc_now())
        await self.report_end(node, session_id, outcome)

    async def _load_work(self) -> None:
        """Build the working copy of what every node still owes."""
        duties = {Status.PENDING: Duty.START, Status.RUNNING: Duty.KEEP}
        async for name, session in self.sessions.work():
            duty = duties.get(session.status, Duty.STOP)
            self.fleet.know(name).set_duty(session.id, duty, ends_at_s=_end_of(session))

    # -- telling those who wait

    def _tell(self, node: NodeState, session_id: SessionId) -> None:
        self._accepted_at[session_id] = trio.current_time()
        node.set_duty(session_id, Duty.START)

    def _forget(self, node: NodeState, session_id: SessionId) -> None:
        self._progress.pop(session_id, None)
        self._accepted_at.pop(session_id, None)
        if node.drop(session_id) and self._someone_waits:
            self._assignment_wanted.set()

    def _count_end(self, session: Session) -> None:
        self.metrics.sessions_ended.labels(session.status.value, session.reason.value if session.reason else "").inc()

    def _changed(self, session_id: SessionId) -> None:
        event = self._watchers.pop(session_id, None)
        if event is not None:
            event.set()


def _end_of(session: Session) -> float:
    """When the session's time is over, on Trio's clock; never for one that does not run."""
    if session.started_at is None:
        return math.inf
    return trio.current_time() + session.ttl_ns / 1e9 - (utc_now() - session.started_at).total_seconds()


class NotYours(BedrockError):
    """A node reported a session that belongs to another one."""


def _check_owner(session: Session, node: NodeState) -> None:
    if session.dockerd_id != node.name:
        raise NotYours(f"session {session.id} belongs to node {session.dockerd_id}, not to {node.name}")


@asynccontextmanager
async def open_coordinator(
    store: KVStore, metrics: ApiMetrics, *, node_timeout_s: float, node_lost_after_s: float
) -> AsyncIterator[Coordinator]:
    """Yield the coordinator of one store; its clock-driven work runs until the context is left."""
    coordinator = Coordinator(
        Sessions(store), Fleet(node_timeout_s=node_timeout_s), metrics, node_lost_after_s=node_lost_after_s
    )
    await coordinator._load_work()
    coordinator._assignment_wanted.set()
    async with open_service_nursery() as services:
        services.start_soon(coordinator._assign_waiting)
        services.start_soon(coordinator._watch_liveness)
        yield coordinator
