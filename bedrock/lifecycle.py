"""The life of a session: which status may follow which, and what each change writes down.

Pure functions of values. Every writer of a session (a client's request, a node's report, the API's own judgement that a
node is lost) goes through one of these, inside one atomic compare-and-set of the store: two writers that race are
serialised there, and the second one is judged against what the first one left.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from bedrock.errors import BedrockError
from bedrock.model import ExitCode, Logs, LogsState, NodeName, Output, Reason, Session, Status, Verdict

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.RUNNING, Status.FAILED, Status.STOPPED}),
    Status.RUNNING: frozenset({Status.FINISHED, Status.FAILED, Status.STOPPED}),
    Status.FINISHED: frozenset(),
    Status.FAILED: frozenset(),
    Status.STOPPED: frozenset(),
}


class TransitionRefused(BedrockError):
    """The state machine has no arrow from the session's present status to the one asked for."""

    def __init__(self, present: Status, wanted: Status) -> None:
        allowed = sorted(TRANSITIONS[present])
        way_out = f"from there it may become {', '.join(allowed)}" if allowed else "an ended session never changes"
        super().__init__(f"the session is {present}, which cannot become {wanted}: {way_out}")
        self.present = present
        self.wanted = wanted


class Ending(msgspec.Struct, frozen=True):
    """Why a session is over. ``exit_code`` only where it is known otherwise than from the container."""

    status: Status
    reason: Reason
    message: str
    exit_code: int | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a session ended, as its node saw it."""

    status: Status
    reason: Reason
    message: str
    finished_at: datetime
    exit_code: ExitCode | None = None
    started_at: datetime | None = None
    trace: Verdict | None = None
    output: Output | None = None  # None where nothing was started


def check_transition(present: Status, wanted: Status) -> None:
    """Raise :class:`TransitionRefused` unless ``wanted`` may follow ``present``."""
    if wanted not in TRANSITIONS[present]:
        raise TransitionRefused(present, wanted)


def assign(session: Session, node: NodeName) -> Session:
    """Give a waiting session to a node. Only a pending session without a node can be given to one."""
    if session.status is not Status.PENDING or session.dockerd_id is not None:
        raise TransitionRefused(session.status, Status.PENDING)
    return msgspec.structs.replace(session, dockerd_id=node)


def start(session: Session, *, started_at: datetime) -> Session:
    """The target's first instruction is about to run. A session that already runs stays as it is."""
    if session.status is Status.RUNNING:
        return session if session.started_at else msgspec.structs.replace(session, started_at=started_at)
    check_transition(session.status, Status.RUNNING)
    return msgspec.structs.replace(session, status=Status.RUNNING, started_at=started_at, message="")


def end(session: Session, outcome: Outcome) -> Session:
    """Record how a session ended.

    A session that has already ended (a stop request, say, that was faster than the node's report) keeps its status and
    its reason; the facts that only the node knows (exit code, times, the trace's verdict) are added where they are
    still missing. A report of the end that overtakes the report of the start implies it.
    """
    if session.status.is_terminal:
        return msgspec.structs.replace(
            session,
            exit_code=session.exit_code if session.exit_code is not None else outcome.exit_code,
            started_at=session.started_at or outcome.started_at,
            trace=session.trace or outcome.trace,
            output=session.output or outcome.output,
        )
    if session.status is Status.PENDING and outcome.status is Status.FINISHED:
        session = start(session, started_at=outcome.started_at or outcome.finished_at)
    check_transition(session.status, outcome.status)
    return msgspec.structs.replace(
        session,
        status=outcome.status,
        reason=outcome.reason,
        message=outcome.message,
        exit_code=outcome.exit_code,
        started_at=session.started_at or outcome.started_at,
        finished_at=outcome.finished_at,
        trace=outcome.trace,
        output=outcome.output,
    )


def expire(session: Session, *, at: datetime) -> Session:
    """The time of a session is over, and its node does not see to that. One that has ended stays as it is."""
    message = f"its time to live of {session.ttl} is over"
    return end(session, Outcome(status=Status.FINISHED, reason=Reason.TTL, message=message, finished_at=at))


def request(session: Session, wanted: Status, *, at: datetime) -> Session:
    """Apply a client's ``PUT {"status": ...}``."""
    check_transition(session.status, wanted)
    if wanted is Status.RUNNING:
        return start(session, started_at=at)
    reason = Reason.STOP_REQUEST if wanted is Status.STOPPED else Reason.CLIENT_REQUEST
    message = "stopped on request" if wanted is Status.STOPPED else f"a client set the status to {wanted}"
    ended = msgspec.structs.replace(session, status=wanted, reason=reason, message=message, finished_at=at)
    if session.dockerd_id is None:
        # No node ever had it, so there is nothing to wait for.
        ended = msgspec.structs.replace(ended, logs=Logs(state=LogsState.NONE, message="no node had taken the session"))
    return ended
