"""After a restart: which sessions this node has, and at which step each of them is.

The containers and the volumes are the truth; nothing else is remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import structlog
import trio

from bedrock.dockerd.containers import LABEL_NODE, host_tracer_prefix
from bedrock.dockerd.engine import Engine
from bedrock.dockerd.steps import Step, find_step
from bedrock.errors import InvalidInput
from bedrock.model import NodeName, SessionId, parse_session_id
from bedrock.volume import OrderRecord, SessionVolume

log = structlog.get_logger(__name__)


class Adopted(NamedTuple):
    """A session to be taken up again at ``step``."""

    record: OrderRecord
    volume: SessionVolume
    step: Step


async def find_adoptable(engine: Engine, node: NodeName, volumes_dir: Path) -> list[Adopted]:
    """Look at this node's locked volumes and their containers, and remove what belongs to none of them.

    Raises :class:`bedrock.dockerd.engine.EngineError` when the engine can't be asked.
    """
    found = []
    for record, volume in await trio.to_thread.run_sync(lambda: list(_locked_volumes(node, volumes_dir))):
        step = await find_step(engine, volume)
        found.append(Adopted(record, volume, step))
        log.info("session adopted", session=record.session_id, step=step.name.lower())
    await _remove_orphans(engine, node, {item.record.session_id for item in found})
    return found


async def _remove_orphans(engine: Engine, node: NodeName, known: set[SessionId]) -> None:
    for name, session_id in (await engine.list_names({LABEL_NODE: node})).items():
        # The tracer of the host belongs to no session; it looks after itself.
        if session_id not in known and not name.startswith(host_tracer_prefix(node)):
            log.warning("removing a container that belongs to no session", container=name, session=session_id)
            await engine.remove(name)
    for name, session_id in (await engine.list_volumes({LABEL_NODE: node})).items():
        if session_id not in known:
            await engine.remove_volume(name)


def _locked_volumes(node: NodeName, volumes_dir: Path) -> Iterator[tuple[OrderRecord, SessionVolume]]:
    for path in sorted(volumes_dir.iterdir()) if volumes_dir.is_dir() else ():
        try:
            volume = SessionVolume(volumes_dir, parse_session_id(path.name))
        except InvalidInput:
            continue
        if volume.locked_by() != node:
            continue  # another node's that shares the directory, or FileMD's
        record = volume.read_order()
        if record is None:
            # A crash between the lock and the order: nothing was done yet, and the API still has the session to give.
            log.warning("removing a volume that was never finished being made", path=str(path))
            volume.discard()
            continue
        yield record, volume
