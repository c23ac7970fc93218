"""From what was seen of the containers to how the session ended. Pure."""

from __future__ import annotations

import signal
from datetime import datetime

from bedrock.dockerd.engine_values import ContainerState, ImageMissing, PullFailed
from bedrock.dockerd.tracing import TracerFailed
from bedrock.lifecycle import Ending, Outcome
from bedrock.model import Reason, Status, Verdict, utc_now

_REASONS = {
    ImageMissing: Reason.IMAGE_NOT_FOUND,
    PullFailed: Reason.PULL_ERROR,
    TracerFailed: Reason.TRACER_ERROR,
}


class NeverRan(Exception):
    """The target's own program could not be started, through its own fault."""

    def __init__(self, message: str, *, exit_code: int | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def ending_of_error(error: Exception) -> Ending:
    """Judge a session that could not be started."""
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return Ending(Status.FAILED, reason, str(error))
    exit_code = error.exit_code if isinstance(error, NeverRan) else None
    return Ending(Status.FAILED, Reason.CREATE_ERROR, str(error), exit_code)


def ending_of_exit(target: ContainerState) -> Ending:
    """Judge a container that ended by itself."""
    code = target.exit_code
    if code == 0:
        return Ending(Status.FINISHED, Reason.EXIT, "the command exited with code 0")
    if target.oom_killed:
        return Ending(Status.FAILED, Reason.OOM_KILLED, "the container ran out of memory and was killed")
    if target.error:
        return Ending(Status.FAILED, Reason.RUNTIME_ERROR, target.error)
    return Ending(Status.FAILED, Reason.EXIT, f"the command exited with code {code}{_signal_of(code)}")


def make_outcome(ending: Ending, target: ContainerState | None, started_at: datetime | None, trace: Verdict) -> Outcome:
    """Put the end together with what the container and the tracer left behind."""
    ran = target is not None and target.has_ended and started_at is not None
    code = ending.exit_code
    if code is None and ran and target is not None:
        code = target.exit_code
    finished_at = target.finished_at if ran and target is not None else None
    return Outcome(
        status=ending.status,
        reason=ending.reason,
        message=ending.message,
        exit_code=code,
        started_at=started_at,
        finished_at=finished_at or utc_now(),
        trace=trace,
    )


def _signal_of(code: int) -> str:
    """A code above 128 is by convention the number of the signal that killed the command."""
    try:
        return f" (killed by {signal.Signals(code - 128).name})" if code > 128 else ""
    except ValueError:
        return ""
