"""The comparison of two accounts of one run, thread by thread and call by call. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from oracle.calls import Call

_AHEAD = 40  # how far to look for where two accounts agree again
_AGREEING = 3  # so many calls in a row that are the same in both
_NEIGHBOURS = 3
_SHOWN_THREADS = 5


class Known(NamedTuple):
    """A difference that is known, and why. ``facts`` may differ where it ``applies``.

    It is asked with our call and strace's. With "missing" among the facts it is also asked for calls that only strace
    has, with "invented" for calls that only we have.
    """

    reason: str
    facts: frozenset[str]
    applies: Callable[[Call | None, Call | None], bool]


class Difference(NamedTuple):
    """Where the accounts of a thread differ. ``what`` is "missing" or "invented", or names the facts that differ."""

    tid: int
    what: str
    ours: Call | None
    theirs: Call | None
    context: str

    def __str__(self) -> str:
        return f"thread {self.tid}: {self.what}\n{self.context}"


class Comparison(NamedTuple):
    """What was found. ``compared`` counts the calls that are in both accounts, ``known`` the uses of each known one."""

    differences: list[Difference]
    known: Counter[str]
    compared: int

    def __str__(self) -> str:
        """The first difference of each of some threads, with what is around it."""
        firsts = {difference.tid: difference for difference in reversed(self.differences)}
        shown = [str(firsts[tid]) for tid in sorted(firsts)[:_SHOWN_THREADS]]
        return "\n\n".join([f"{len(self.differences)} differences in {len(firsts)} threads", *shown])


def compare(
    ours: Mapping[int, Sequence[Call]], theirs: Mapping[int, Sequence[Call]], known: Sequence[Known] = ()
) -> Comparison:
    """Compare what our trace says with what strace says: by thread, calls in order."""
    result = Comparison([], Counter(), 0)
    for tid in sorted({*ours, *theirs}):
        mine = ours.get(tid, ())
        needed = list(settled(mine, theirs.get(tid, ()), known, result.known))
        compared = _Thread(tid, mine, needed, known, result).compare()
        result = result._replace(compared=result.compared + compared)
    return result


def settled(ours: Sequence[Call], theirs: Sequence[Call], known: Sequence[Known], used: Counter[str]) -> Iterator[Call]:
    """strace's calls without those that our trace does not have, and need not have; ``used`` counts why."""
    excuses = [item for item in known if "missing" in item.facts]
    found: dict[str, list[Call]] = {}
    for call in ours:
        found.setdefault(call.name, []).append(call)
    for call in theirs:
        candidates = found.get(call.name, [])
        at = next(
            (n for n, mine in enumerate(candidates[:_AHEAD]) if not _differing_unknown(mine, call, known)[0]), None
        )
        if at is not None:
            del candidates[: at + 1]
        elif call.is_optional:
            continue
        else:
            excuse = next((item for item in excuses if item.applies(None, call)), None)
            if excuse is not None:
                used[excuse.reason] += 1
                continue
        yield call


def _differing(ours: Call, theirs: Call) -> set[str]:
    """The names of strace's facts that our call does not have, or has otherwise."""
    if ours.name != theirs.name:
        return {"name"}
    return {name for name, value in theirs.facts.items() if name not in ours.facts or ours.facts[name] != value}


def _differing_unknown(ours: Call, theirs: Call, known: Sequence[Known]) -> tuple[set[str], list[Known]]:
    """What differs without being known, and which entries have explained the rest."""
    differing, used = _differing(ours, theirs), []
    for item in known if differing else ():
        if differing & item.facts and item.applies(ours, theirs):
            differing -= item.facts
            used.append(item)
    return differing, used


class _Thread:
    """The two accounts of one thread, while they are compared."""

    def __init__(
        self, tid: int, ours: Sequence[Call], theirs: Sequence[Call], known: Sequence[Known], result: Comparison
    ) -> None:
        self._tid = tid
        self._ours = ours
        self._theirs = theirs
        self._known = known
        self._result = result

    def compare(self) -> int:
        """Add what differs to the result; returns how many calls are in both."""
        i = j = compared = 0
        while i < len(self._ours) or j < len(self._theirs):
            invented, missing = self._out_of_step(i, j)
            for n in range(i, i + invented):
                if not self._is_excused(self._ours[n]):
                    self._note("invented", n, j, self._ours[n], None)
            i += invented
            for n in range(j, j + missing):
                self._note("missing", i, n, None, self._theirs[n])
            j += missing
            if i < len(self._ours) and j < len(self._theirs):
                differing = self._unexplained(self._ours[i], self._theirs[j])
                if differing:
                    self._note(", ".join(sorted(differing)), i, j, self._ours[i], self._theirs[j])
                i, j, compared = i + 1, j + 1, compared + 1
        return compared

    def _out_of_step(self, i: int, j: int) -> tuple[int, int]:
        """How many of our calls, and of strace's, to step over until the accounts agree again."""
        if self._agree(i, j, 1):
            return 0, 0
        has_same_name = i < len(self._ours) and j < len(self._theirs) and self._ours[i].name == self._theirs[j].name
        if has_same_name and self._agree(i + 1, j + 1, _AGREEING - 1):
            return 0, 0
        for steps in range(1, 2 * _AHEAD):
            for invented in range(steps + 1):
                missing = steps - invented
                if self._agree(i + invented, j + missing, _AGREEING):
                    return (0, 0) if self._has_names(i, j, invented, missing) else (invented, missing)
        if has_same_name:
            return 0, 0
        # They never agree again: nothing that follows could be paired.
        return len(self._ours) - i, len(self._theirs) - j

    def _has_names(self, i: int, j: int, mine: int, their: int) -> bool:
        """Whether what is between two places are the same calls, of which only facts differ."""
        return [call.name for call in self._ours[i : i + mine]] == [call.name for call in self._theirs[j : j + their]]

    def _agree(self, i: int, j: int, count: int) -> bool:
        """Whether so many calls in a row are the same, or both accounts end there."""
        if i > len(self._ours) or j > len(self._theirs):
            return False
        for n in range(count):
            if i + n == len(self._ours) and j + n == len(self._theirs):
                return True
            if i + n >= len(self._ours) or j + n >= len(self._theirs):
                return False
            if _differing_unknown(self._ours[i + n], self._theirs[j + n], self._known)[0]:
                return False
        return True

    def _unexplained(self, ours: Call, theirs: Call) -> set[str]:
        differing, used = _differing_unknown(ours, theirs, self._known)
        self._result.known.update(known.reason for known in used)
        return differing

    def _is_excused(self, ours: Call) -> bool:
        for known in self._known:
            if "invented" in known.facts and known.applies(ours, None):
                self._result.known[known.reason] += 1
                return True
        return False

    def _note(self, what: str, i: int, j: int, ours: Call | None, theirs: Call | None) -> None:
        context = [
            f"  {name}{'>' if n == at and is_here else ' '} {call.text}"
            for name, calls, at, is_here in (
                ("trace ", self._ours, i, ours is not None),
                ("strace", self._theirs, j, theirs is not None),
            )
            for n, call in enumerate(calls[max(0, at - _NEIGHBOURS) : at + _NEIGHBOURS + 1], max(0, at - _NEIGHBOURS))
        ]
        self._result.differences.append(Difference(self._tid, what, ours, theirs, "\n".join(context)))
