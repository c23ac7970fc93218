"""Where our traces are known to differ from what strace shows. An entry is to be deleted once its cause is mended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from oracle.calls import Call
from oracle.compare import Known

_RESTARTS = {"ERESTARTSYS": "512", "ERESTARTNOINTR": "513", "ERESTARTNOHAND": "514", "ERESTART_RESTARTBLOCK": "516"}


def known_differences(ours: Mapping[int, Sequence[Call]], theirs: Mapping[int, Sequence[Call]]) -> list[Known]:
    """The table, for one run: entries may ask for what else was called in it."""
    everything = [call for calls in theirs.values() for call in calls]
    links = _Aliases(everything, "link")
    return [
        Known(
            "an interrupted call that the kernel restarts has a number as its error",
            frozenset({"error"}),
            _on_both(lambda ours, theirs: ours.facts.get("error") == _RESTARTS.get(str(theirs.facts["error"]))),
        ),
        Known(
            "a file that has two names is recorded under the one by which it was opened last",
            frozenset({"path"}),
            _on_both(lambda ours, theirs: links.lead(theirs.facts["path"], ours.facts.get("path"))),
        ),
    ]


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
    return whole_begin <= begin and begin + size <= whole_begin + whole_size


def _is_script(ours: Call, theirs: Call) -> bool:
    mine, their = ours.facts.get("argv"), theirs.facts["argv"]
    if not isinstance(mine, tuple) or not isinstance(their, tuple):
        return False
    return len(mine) > len(their) and mine[-len(their) :] == (theirs.facts["raw"], *their[1:])


def _on_both(applies: Callable[[Call, Call], bool]) -> Callable[[Call | None, Call | None], bool]:
    return lambda ours, theirs: ours is not None and theirs is not None and applies(ours, theirs)


class _Aliases:
    """All paths that were given other names in a run, by rename or by link. Which came first is not asked."""

    def __init__(self, calls: Iterable[Call], kind: str) -> None:
        self._moves: set[tuple[str, str]] = set()
        for call in calls:
            if call.name.startswith(kind) and call.facts.get("result") == 0:
                old, new = call.facts.get("path"), call.facts.get("second")
                if isinstance(old, str) and isinstance(new, str):
                    self._moves.add((old, new))

    def lead(self, old: object, new: object) -> bool:
        """Whether a file with one path may have got the other one, by itself or with a directory above it."""
        if not isinstance(old, str) or not isinstance(new, str):
            return False
        reached, waiting = {old}, [old]
        while waiting:
            path = waiting.pop()
            for source, target in self._moves:
                moved = target + path[len(source) :]
                if (path == source or path.startswith(f"{source}/")) and moved not in reached:
                    if moved == new:
                        return True
                    reached.add(moved)
                    waiting.append(moved)
        return False
