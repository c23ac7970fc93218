"""What the API holds in memory of each node: when it was last heard, and what it must do.

The store is the truth of which session belongs to which node; this is its working copy for the polls, so that a poll
costs what has changed for its node and nothing else. Each change of a node's work gets the next revision of that node;
a poll that has seen revision R is answered with what came after R. Revisions live as long as this API process, which is
why every answer names the process (``api_boot``) beside the revision.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import trio

from bedrock.api.scheduler import Candidate, choose_node
from bedrock.model import Node, NodeName, SessionId, utc_now

# A node that names no protocol names no slots either, and takes whatever it is given.
UNLIMITED_SLOTS = 1_000_000


class Duty(enum.Enum):
    """What a node owes one session."""

    RESERVED = "reserved"  # the slot is taken, the session is not stored yet
    START = "start"
    KEEP = "keep"  # it runs; nothing to say
    STOP = "stop"  # it has ended here; the node must end it and report


@dataclass
class WorkItem:
    duty: Duty
    revision: int
    ends_at_s: float = math.inf  # on Trio's clock: when the time of a session that runs is over


@dataclass
class NodeState:
    """One node. ``last_seen_s`` is on Trio's clock."""

    name: NodeName
    last_seen_s: float
    last_seen_at: datetime
    slots: int = UNLIMITED_SLOTS
    version: str = ""
    boot: str = ""
    has_polled: bool = False  # since this API started
    keeps_ttl: bool = True  # it ends its sessions itself when their time is over
    revision: int = 0
    work: dict[SessionId, WorkItem] = field(default_factory=dict)
    _changed: trio.Event = field(default_factory=trio.Event)

    @property
    def free_slots(self) -> int:
        return self.slots - len(self.work)

    def set_duty(self, session_id: SessionId, duty: Duty, *, ends_at_s: float = math.inf) -> None:
        """Record what the node owes a session, and wake the poll that waits for it."""
        item = self.work.get(session_id)
        if item is not None and item.duty is duty:
            return
        self.revision += 1
        self.work[session_id] = WorkItem(duty, self.revision, ends_at_s)
        if duty in {Duty.START, Duty.STOP}:
            self._changed.set()
            self._changed = trio.Event()

    def drop(self, session_id: SessionId) -> bool:
        """The node owes this session nothing any more. Returns whether it did."""
        return self.work.pop(session_id, None) is not None

    def duties_since(self, revision: int) -> list[tuple[SessionId, WorkItem]]:
        """Starts and stops that came after ``revision``, oldest first."""
        found = [
            (session_id, item)
            for session_id, item in self.work.items()
            if item.revision > revision and item.duty in {Duty.START, Duty.STOP}
        ]
        return sorted(found, key=lambda entry: entry[1].revision)

    def overdue(self) -> list[SessionId]:
        """The sessions that run on this node and that it should have ended, had it a clock for them."""
        if self.keeps_ttl:
            return []
        now = trio.current_time()
        return [
            session_id for session_id, item in self.work.items() if item.duty is Duty.KEEP and item.ends_at_s <= now
        ]

    async def wait_change(self) -> None:
        """Return when a start or a stop has been added after this call. Cancellation loses nothing."""
        await self._changed.wait()


class Fleet:
    """All nodes that this API knows."""

    def __init__(self, *, node_timeout_s: float) -> None:
        self._node_timeout_s = node_timeout_s
        self._nodes: dict[NodeName, NodeState] = {}
        self._last_assigned: NodeName | None = None

    def __iter__(self) -> Iterator[NodeState]:
        return iter(list(self._nodes.values()))

    def get(self, name: NodeName) -> NodeState | None:
        return self._nodes.get(name)

    def know(self, name: NodeName) -> NodeState:
        """Return the state of a node, making it when the node is new; hearing from it is :meth:`heard`'s matter."""
        state = self._nodes.get(name)
        if state is None:
            state = self._nodes[name] = NodeState(name, trio.current_time(), utc_now())
        return state

    def heard(self, name: NodeName) -> NodeState:
        """A packet of this node has arrived."""
        state = self.know(name)
        state.last_seen_s = trio.current_time()
        state.last_seen_at = utc_now()
        state.has_polled = True
        return state

    def is_alive(self, state: NodeState) -> bool:
        return state.has_polled and trio.current_time() - state.last_seen_s <= self._node_timeout_s

    def reserve(self, session_id: SessionId) -> NodeState | None:
        """Take a slot for a session on the next node in turn, or return None when no node has one.

        The slot is held until :meth:`NodeState.drop`; without a checkpoint between choice and reservation two
        sessions can't take the same one.
        """
        chosen = choose_node(
            (Candidate(node.name, self.is_alive(node), node.free_slots) for node in self._nodes.values()),
            after=self._last_assigned,
        )
        if chosen is None:
            return None
        self._last_assigned = chosen
        state = self._nodes[chosen]
        state.set_duty(session_id, Duty.RESERVED)
        return state

    def silent_for(self, seconds: float) -> list[NodeState]:
        """Nodes that have not been heard for at least ``seconds``."""
        now = trio.current_time()
        return [node for node in self._nodes.values() if now - node.last_seen_s >= seconds]

    def view(self) -> list[Node]:
        return [
            Node(
                name=node.name,
                alive=self.is_alive(node),
                slots=node.slots,
                used=len(node.work),
                last_seen=node.last_seen_at,
                version=node.version,
            )
            for node in sorted(self._nodes.values(), key=lambda node: node.name)
        ]
