"""Where our traces are known to differ from what strace shows. An entry is to be deleted once its cause is mended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from oracle.calls import Call
from oracle.compare import Known

# Not all kernels and engines have io_uring, or need threads for it.
WORKER_ENDS = "the end of a thread that the kernel made for an io_uring is recorded, and its beginning is not"
_FIRST_PROGRAM = "/usr/local/bin/witness"


def known_differences(ours: Mapping[int, Sequence[Call]], theirs: Mapping[int, Sequence[Call]]) -> list[Known]:
    """The table, for one run: entries may ask for what else was called in it."""
    everything = [call for calls in theirs.values() for call in calls]
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
