"""Where our traces are known to differ from what strace shows. An entry is to be deleted once its cause is mended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oracle.calls import Call
from oracle.compare import Known

_PAGE = 4096


def known_differences(ours: Mapping[int, Sequence[Call]], theirs: Mapping[int, Sequence[Call]]) -> list[Known]:
    """The table, for one run: entries may ask for what else was called in it. There is none at present."""
    return []


# Differences that are no defects: both are right, and mean different things.
TOLERATED = [
    Known(
        "a munmap that concerns several mappings has a record for each that a file is mapped to",
        frozenset({"requested", "arg"}),
        lambda ours, theirs: ours is not None and theirs is not None and _is_piece(ours, theirs),
    ),
    Known(
        "with RESOLVE_IN_ROOT a path counts from the descriptor, which is not followed here where opening failed",
        frozenset({"path"}),
        lambda ours, theirs: theirs is not None and theirs.name == "openat2" and theirs.facts["error"] is not None,
    ),
    Known(
        "a script's arguments are recorded as its interpreter gets them, and strace shows those that were given",
        frozenset({"argv"}),
        lambda ours, theirs: ours is not None and theirs is not None and _is_script(ours, theirs),
    ),
]


def _is_piece(ours: Call, theirs: Call) -> bool:
    if theirs.name not in {"munmap", "msync"}:
        return False
    numbers = [call.facts.get(name) for call in (ours, theirs) for name in ("arg", "requested")]
    if not all(isinstance(number, int) for number in numbers):
        return False
    begin, size, whole_begin, whole_size = (int(str(number)) for number in numbers)
    end, whole_end = begin + size, whole_begin + whole_size
    # Mappings end with pages.
    ends_with_page = end == whole_end or end % _PAGE == 0
    return whole_begin <= begin and end <= whole_end and ends_with_page


def _is_script(ours: Call, theirs: Call) -> bool:
    mine, their = ours.facts.get("argv"), theirs.facts["argv"]
    if not isinstance(mine, tuple) or not isinstance(their, tuple):
        return False
    return len(mine) > len(their) and mine[-len(their) :] == (theirs.facts["raw"], *their[1:])
