"""At which step a session is: found out from its containers and its volume, which are all that is remembered of it.

That is asked when a DockerD takes up what its predecessor has left, and when an engine is back that was away.
"""

from __future__ import annotations

import enum

import trio

from bedrock.dockerd.containers import Pair
from bedrock.dockerd.engine import Engine
from bedrock.dockerd.engine_values import ContainerMissing, ContainerState
from bedrock.dockerd.tracing import report_of
from bedrock.trace.verdict import TracerReport
from bedrock.volume import SessionVolume


class Step(enum.IntEnum):
    """Where a session enters :meth:`bedrock.dockerd.session.SessionRun.run`."""

    PREPARE = 1
    OPEN_GATE = 2  # the target is held at the gate, which has not been seen open
    WATCH = 3  # the target's own program runs, or has run
    SETTLE = 4  # why it is over is written down


def choose_step(*, is_over: bool, target: ContainerState | None, gate_was_opened: bool) -> Step:
    """Return the step at which a session goes on.

    A target that was never started may be made again; one that was started never is, so that no session runs twice. Nor
    is one that ran and is not there any more.
    """
    if is_over:
        return Step.SETTLE
    if gate_was_opened:
        return Step.WATCH
    return Step.PREPARE if target is None or target.status == "created" else Step.OPEN_GATE


async def find_step(engine: Engine, volume: SessionVolume) -> Step:
    """Look at a session's containers and its volume. Containers that have run nothing are removed, to be made anew.

    Raises :class:`bedrock.dockerd.engine_values.EngineError` when the engine can't be asked.
    """
    pair = Pair(volume.session_id)

    def read() -> tuple[bool, TracerReport | None]:
        return volume.read_ending() is not None or volume.read_session() is not None, report_of(volume)

    try:
        target = await engine.inspect(pair.target)
    except ContainerMissing:
        target = None
    is_over, report = await trio.to_thread.run_sync(read)
    step = choose_step(
        is_over=is_over, target=target, gate_was_opened=report is not None and report.started_at is not None
    )
    if step is Step.PREPARE:
        await engine.remove(pair.target)
        await engine.remove(pair.tracer)
    return step
