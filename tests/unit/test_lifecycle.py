"""The state machine against a model, and the values around it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock import lifecycle
from bedrock.lifecycle import Outcome, TransitionRefused
from bedrock.model import LogsState, NodeName, Reason, Session, Status, TraceState, Verdict, new_session_id

_NOW = datetime(2026, 1, 2, tzinfo=UTC)
# The arrows of the original's README, written down once more: the machine must have these and no others.
_ARROWS = {
    ("pending", "running"),
    ("pending", "failed"),
    ("pending", "stopped"),
    ("running", "finished"),
    ("running", "failed"),
    ("running", "stopped"),
}


def make_session(status: Status = Status.PENDING, node: str | None = "alpha") -> Session:
    return Session(
        id=new_session_id(),
        created_at=_NOW,
        status=status,
        image="busybox",
        command="true",
        argv=["true"],
        ttl="10s",
        dockerd_id=None if node is None else NodeName(node),
    )


def make_outcome(status: Status = Status.FINISHED, code: int | None = 0) -> Outcome:
    verdict = Verdict(state=TraceState.COMPLETE, events=3)
    return Outcome(
        status=status, reason=Reason.EXIT, message="m", finished_at=_NOW, started_at=_NOW, exit_code=code, trace=verdict
    )


@pytest.mark.parametrize("present", list(Status))
@pytest.mark.parametrize("wanted", list(Status))
def test_a_client_may_take_exactly_the_arrows_of_the_readme(present: Status, wanted: Status) -> None:
    session = make_session(present)
    if (present.value, wanted.value) in _ARROWS:
        assert lifecycle.request(session, wanted, at=_NOW).status is wanted
    else:
        with pytest.raises(TransitionRefused) as refusal:
            lifecycle.request(session, wanted, at=_NOW)
        assert str(present) in str(refusal.value)


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("request"), st.sampled_from(list(Status))),
        st.tuples(st.just("start"), st.none()),
        st.tuples(st.just("end"), st.sampled_from([Status.FINISHED, Status.FAILED, Status.STOPPED])),
    ),
    max_size=12,
)


@given(_STEPS)
def test_whatever_happens_in_whatever_order_a_terminal_status_never_changes(
    steps: list[tuple[str, Status | None]],
) -> None:
    session = make_session()
    for kind, status in steps:
        before = session
        try:
            if kind == "request":
                assert status is not None
                session = lifecycle.request(session, status, at=_NOW)
            elif kind == "start":
                session = lifecycle.start(session, started_at=_NOW)
            else:
                assert status is not None
                session = lifecycle.end(session, make_outcome(status))
        except TransitionRefused:
            session = before
        if before.status.is_terminal:
            assert (session.status, session.reason, session.message) == (before.status, before.reason, before.message)
        elif session.status is not before.status:
            arrow = (before.status.value, session.status.value)
            # A report of the end may overtake the report of the start, and implies it.
            assert arrow in _ARROWS or (kind == "end" and arrow == ("pending", "finished"))
        assert session.status.is_terminal == (session.finished_at is not None)


def test_the_facts_of_a_late_report_are_added_to_a_stopped_session() -> None:
    stopped = lifecycle.request(make_session(Status.RUNNING), Status.STOPPED, at=_NOW)
    ended = lifecycle.end(stopped, make_outcome(Status.FAILED, 143))
    assert (ended.status, ended.reason, ended.exit_code) == (Status.STOPPED, Reason.STOP_REQUEST, 143)
    assert ended.trace == make_outcome().trace


def test_a_session_that_no_node_ever_had_expects_no_files_when_it_is_stopped() -> None:
    stopped = lifecycle.request(make_session(node=None), Status.STOPPED, at=_NOW)
    assert stopped.logs.state is LogsState.NONE


def test_only_a_waiting_session_can_be_given_to_a_node() -> None:
    assert lifecycle.assign(make_session(node=None), NodeName("beta")).dockerd_id == "beta"
    for session in (make_session(), make_session(Status.STOPPED, node=None)):
        with pytest.raises(TransitionRefused):
            lifecycle.assign(session, NodeName("beta"))
