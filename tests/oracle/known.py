"""Where our traces are known to differ from what strace shows. An entry is to be deleted once its cause is mended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from oracle.calls import Call
from oracle.compare import Known

# Not all kernels and engines have io_uring, or need threads for it.
WORKER_ENDS = "the end of a thread that the kernel made for an io_uring is recorded, and its beginning is not"
_FIRST_PROGRAM = "/usr/local/bin/witness"
_RESTARTS = {"ERESTARTSYS": "512", "ERESTARTNOINTR": "513", "ERESTARTNOHAND": "514", "ERESTART_RESTARTBLOCK": "516"}


def known_differences(ours: Mapping[int, Sequence[Call]], theirs: Mapping[int, Sequence[Call]]) -> list[Known]:
    """The table, for one run: entries may ask for what else was called in it."""
    everything = [call for calls in theirs.values() for call in calls]
    renames, links = _Aliases(everything, "rename"), _Aliases(everything, "link")
    has_ring = any(call.facts.get("path") == "anon:[io_uring]" for call in everything)
    ends_alone = {calls[0].text for tid, calls in ours.items() if tid not in theirs and len(calls) == 1}
    return [
        Known(
            "fork's result is the child's number on the host",
            frozenset({"result"}),
            _on_both(lambda ours, theirs: theirs.name == "fork" and theirs.facts["error"] is None),
        ),
        Known(
            "a fork that fails is not recorded",
            frozenset({"missing"}),
            lambda ours, theirs: theirs is not None and theirs.name == "fork" and theirs.facts["error"] is not None,
        ),
        Known(
            "an interrupted call that the kernel restarts has a number as its error",
            frozenset({"error"}),
            _on_both(lambda ours, theirs: ours.facts.get("error") == _RESTARTS.get(str(theirs.facts["error"]))),
        ),
        Known(
            "a file that is renamed while it is open keeps its old path",
            frozenset({"path"}),
            _on_both(lambda ours, theirs: renames.lead(ours.facts.get("path"), theirs.facts["path"])),
        ),
        Known(
            "a file that has two names is recorded under the one by which it was opened last",
            frozenset({"path"}),
            _on_both(lambda ours, theirs: links.lead(theirs.facts["path"], ours.facts.get("path"))),
        ),
        Known(
            "a pidfd has no name",
            frozenset({"path"}),
            _on_both(lambda ours, theirs: (ours.facts.get("path"), theirs.facts["path"]) == ("anon:", "anon:[pidfd]")),
        ),
        Known(
            "the path that was given to execveat is recorded as the kernel's own name for it",
            frozenset({"raw"}),
            _on_both(
                lambda ours, theirs: theirs.name == "execveat" and str(ours.facts.get("raw")).startswith("/dev/fd/")
            ),
        ),
        Known(
            "a process whose maker has ended before its first call has the program of the container's first process",
            frozenset({"program"}),
            _on_both(lambda ours, theirs: ours.facts.get("program") == _FIRST_PROGRAM),
        ),
        Known(
            WORKER_ENDS,
            frozenset({"invented"}),
            lambda ours, theirs: ours is not None and ours.name == "exit" and has_ring and ours.text in ends_alone,
        ),
    ]


# Differences that are no defects: both are right, and mean different things.
TOLERATED = [
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
