"""This node's sessions: begun, stopped, reported, forgotten.

What the API says is compared with what is here, never replayed: an order for a session that is here already changes
nothing, a stop for one that is not here is answered with its end. So packets may be lost, doubled or reordered.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog
import trio

from bedrock.concurrency.service_nursery import ServiceNursery
from bedrock.dockerd.host import Host
from bedrock.dockerd.session import SessionRun
from bedrock.dockerd.steps import Step
from bedrock.errors import InvalidInput
from bedrock.lifecycle import Outcome
from bedrock.model import Reason, SessionId, Status, parse_session_id, utc_now
from bedrock.volume import OrderRecord, SessionVolume
from bedrock.wire import (
    Event,
    EventType,
    PacketError,
    Progress,
    Started,
    StartOrder,
    decode_order,
    encode_payload,
)

log = structlog.get_logger(__name__)


class Agent:
    """The sessions of one node, each a task in the nursery that the agent is handed."""

    def __init__(self, host: Host, volumes_dir: Path, services: ServiceNursery) -> None:
        self._host = host
        self._volumes_dir = volumes_dir
        self._services = services
        self._sessions: dict[SessionId, SessionRun] = {}
        self._accepts_work = True
        self._news: set[SessionId] = set()
        self._has_news = trio.Event()
        self._session_is_gone = trio.Event()
        self._all_acknowledged = trio.Event()

    def begin(self, record: OrderRecord, volume: SessionVolume, step: Step) -> None:
        """Take a session up at ``step``."""
        session = SessionRun(self._host, record, volume, self._mark)
        self._sessions[session.id] = session
        self._services.start_soon(self._run, session, step)

    async def _run(self, session: SessionRun, step: Step) -> None:
        with structlog.contextvars.bound_contextvars(session=session.id):
            try:
                await session.run(step)
            except Exception as error:
                # A defect in the handling of one session must not take the node's other sessions down with it. Its
                # volume stays locked and is taken up again when DockerD starts the next time.
                log.exception("session broke off")
                outcome = _never_ran(Status.FAILED, Reason.RUNTIME_ERROR, f"DockerD failed: {error!r}")
                await self._keep(session.id, outcome)
        del self._sessions[session.id]
        self._mark(session.id)
        self._session_is_gone.set()

    async def stop_all(self, *, at_once: bool = False) -> None:
        """Take no more work, end every session, and return when they are gone. ``at_once``: without their grace."""
        self._accepts_work = False
        for session in self._sessions.values():
            session.request_stop(Reason.SHUTDOWN, at_once=at_once)
        while self._sessions:
            self._session_is_gone = trio.Event()
            await self._session_is_gone.wait()

    async def wait_settled(self) -> None:
        """Take no more work, and return when no session is just being torn down."""
        self._accepts_work = False
        while any(session.is_ending for session in self._sessions.values()):
            self._session_is_gone = trio.Event()
            await self._session_is_gone.wait()

    async def wait_acknowledged(self) -> None:
        """Return when the API has acknowledged every end."""
        while self._host.ledger.outcomes:
            self._all_acknowledged = trio.Event()
            await self._all_acknowledged.wait()

    # -- what is said to the API

    async def wait_news(self) -> None:
        """Return when there is something that has not been taken by :meth:`take_news` yet."""
        await self._has_news.wait()

    def take_news(self) -> set[SessionId]:
        """The sessions that have changed since the last call."""
        news, self._news = self._news, set()
        self._has_news = trio.Event()
        return news

    def put_back(self, news: set[SessionId]) -> None:
        """What was taken did not reach the API."""
        self._news |= news

    def report(self, only: set[SessionId] | None) -> list[Event]:
        """Events for what this node has: of the sessions ``only``, or of all; always every unacknowledged end."""
        events = [_state_of(session) for session in self._sessions.values() if only is None or session.id in only]
        for session_id, outcome in self._host.ledger.outcomes.items():
            kind = EventType.FAILED if outcome.status is Status.FAILED else EventType.END
            events.append(Event(kind, session_id, encode_payload(outcome)))
        return events

    def is_unacknowledged(self, session_id: str) -> bool:
        return session_id in self._host.ledger.outcomes

    # -- what the API says

    async def apply(self, events: Iterable[Event]) -> None:
        """Bring this node nearer to what the API wants. A bad event is refused alone.

        One task at a time may call it, since it waits for the disk between events.
        """
        acknowledged = []
        for event in events:
            try:
                session_id = parse_session_id(event.session_id)
                if event.event_type == EventType.START:
                    self._start(session_id, decode_order(event))
                elif event.event_type == EventType.STOPPED:
                    await self._stop(session_id)
                elif event.event_type == EventType.CLEANUP:
                    acknowledged.append(session_id)
            except (InvalidInput, PacketError) as error:
                log.warning("event from the API refused", event_type=event.event_type, error=str(error))
        await self._host.ledger.acknowledge(acknowledged)
        if not self._host.ledger.outcomes:
            self._all_acknowledged.set()

    def _start(self, session_id: SessionId, order: StartOrder) -> None:
        if session_id in self._sessions or session_id in self._host.ledger.outcomes or not self._accepts_work:
            return
        # What the site's defaults are is decided now: they may be others when the session is adopted.
        order = msgspec.structs.replace(
            order,
            trace=self._host.tracing_of(order.trace),
            max_output=order.max_output or self._host.max_output,
        )
        record = OrderRecord(session_id=session_id, node=self._host.node, order=order)
        log.info("session received", session=session_id, image=order.image)
        self.begin(record, SessionVolume(self._volumes_dir, session_id), Step.PREPARE)

    async def _stop(self, session_id: SessionId) -> None:
        session = self._sessions.get(session_id)
        if session is not None:
            log.info("stop received", session=session_id)
            session.request_stop(Reason.STOP_REQUEST)
        elif session_id not in self._host.ledger.outcomes:
            message = "stopped before its node had begun it"
            await self._keep(session_id, _never_ran(Status.STOPPED, Reason.STOP_REQUEST, message))
            self._mark(session_id)

    async def _keep(self, session_id: SessionId, outcome: Outcome) -> None:
        try:
            await self._host.ledger.add(session_id, outcome)
        except OSError as error:
            # The API asks again for what it is not told of.
            log.error("the end of a session can't be written down", session=session_id, error=str(error))

    def _mark(self, session_id: SessionId) -> None:
        self._news.add(session_id)
        self._has_news.set()


def _state_of(session: SessionRun) -> Event:
    if session.started_at is not None:
        return Event(EventType.RUNNING, session.id, encode_payload(Started(started_at=session.started_at)))
    return Event(EventType.PROGRESS, session.id, encode_payload(Progress(message=session.progress)))


def _never_ran(status: Status, reason: Reason, message: str) -> Outcome:
    return Outcome(status=status, reason=reason, message=message, finished_at=utc_now())
