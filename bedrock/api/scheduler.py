"""Which node takes the next session: round-robin over those that are alive and have a free slot. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bedrock.model import NodeName


class Candidate(NamedTuple):
    """A node as the scheduler sees it."""

    name: NodeName
    is_available: bool  # alive and not drained
    free_slots: int


def choose_node(candidates: Iterable[Candidate], *, after: NodeName | None) -> NodeName | None:
    """Return the first fitting node behind ``after`` in the circle of names, or None when none fits.

    Names, not positions, are remembered, so that nodes may come and go between two calls without one of them being
    passed over or served twice.
    """
    fitting = sorted(node.name for node in candidates if node.is_available and node.free_slots > 0)
    if not fitting:
        return None
    if after is None:
        return fitting[0]
    return next((name for name in fitting if name > after), fitting[0])
