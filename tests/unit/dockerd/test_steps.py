"""At which step a session goes on, whatever has happened to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock.dockerd.engine_values import ContainerState
from bedrock.dockerd.steps import Step, choose_step

_STATUSES = ("created", "running", "exited", "dead")


def _target(status: str | None) -> ContainerState | None:
    if status is None:
        return None
    return ContainerState(
        id="1", name="target", status=status, pid=0, exit_code=0, oom_killed=False, error="", started_at=None,
        finished_at=None, labels={}, image_id="2",
    )  # fmt: skip


@pytest.mark.parametrize("status", [None, "created"])
def test_what_has_run_nothing_is_made_anew(status: str | None) -> None:
    assert choose_step(is_over=False, target=_target(status), gate_was_opened=False) is Step.PREPARE


@pytest.mark.parametrize("status", [None, *_STATUSES])
def test_what_has_run_is_never_made_anew_also_when_it_is_gone(status: str | None) -> None:
    assert choose_step(is_over=False, target=_target(status), gate_was_opened=True) is Step.WATCH


@pytest.mark.parametrize("status", ["running", "exited", "dead"])
def test_what_was_started_and_not_seen_to_run_is_looked_at(status: str) -> None:
    assert choose_step(is_over=False, target=_target(status), gate_was_opened=False) is Step.OPEN_GATE


@given(status=st.sampled_from([None, *_STATUSES]), gate_was_opened=st.booleans())
def test_what_is_decided_is_not_asked_again(status: str | None, gate_was_opened: bool) -> None:
    assert choose_step(is_over=True, target=_target(status), gate_was_opened=gate_was_opened) is Step.SETTLE
