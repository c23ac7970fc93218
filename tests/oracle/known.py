"""Where our traces are known to differ from what strace shows. An entry is to be deleted once its cause is mended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oracle.calls import Call
from oracle.compare import Known


def known_differences(ours: Mapping[int, Sequence[Call]], theirs: Mapping[int, Sequence[Call]]) -> list[Known]:
    """The table, for one run: entries may ask for what else was called in it. There is none at present."""
    return []


# Differences that are no defects: both are right, and mean different things.
TOLERATED = [
    Known(
        "with RESOLVE_IN_ROOT a path counts from the descriptor, which the comparison does not follow where opening failed",
        frozenset({"path"}),
        lambda ours, theirs: theirs is not None and theirs.name == "openat2" and theirs.facts["error"] is not None,
    ),
    Known(
        "a script's arguments are recorded as its interpreter gets them, and strace shows those that were given",
        frozenset({"argv"}),
        lambda ours, theirs: ours is not None and theirs is not None and _is_script(ours, theirs),
    ),
]


def _is_script(ours: Call, theirs: Call) -> bool:
    mine, their = ours.facts.get("argv"), theirs.facts["argv"]
    if not isinstance(mine, tuple) or not isinstance(their, tuple):
        return False
    return len(mine) > len(their) and mine[-len(their) :] == (theirs.facts["raw"], *their[1:])
