"""Where the files of a process stand: strace does not show it, but it follows from what strace shows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from oracle.calls import Fact

_CLONE = re.compile(r"clone3?\(.*\bflags=(?P<flags>[0-9a-fx|]+).* = (?P<child>\d+)$")
_SHARES = 0x400 | 0x10000  # CLONE_FILES, CLONE_THREAD
_OPENS = {"open", "openat", "creat"}
_DUPS = {"dup", "dup2", "dup3", "fcntl_dupfd"}


def tasks_that_share(threads: Iterable[tuple[int, Sequence[str]]]) -> set[int]:
    """Which of some threads, with their lines, have descriptors in common with others."""
    sharing = set()
    for tid, lines in threads:
        for line in lines:
            clone = _CLONE.match(line)
            if clone is not None and any(int(flag, 0) & _SHARES for flag in clone["flags"].split("|")):
                sharing |= {tid, int(clone["child"])}
    return sharing


class Positions:
    """The positions of those files that only one process can move: opened by itself, since its last fork.

    One that has other threads has none of these. Files that are appended to are left out.
    """

    def __init__(self, *, is_alone: bool) -> None:
        self._is_alone = is_alone
        self._at: dict[int, int] = {}

    def of(self, fd: int) -> int | None:
        """Where a file stands; None when that is not known."""
        return self._at.get(fd)

    def move(self, fd: int, moved: Fact) -> None:
        """So many bytes have been read or written there."""
        if fd in self._at and isinstance(moved, int):
            self._at[fd] += moved

    def learn(self, name: str, facts: dict[str, Fact], *, has_positions: bool) -> None:
        """Take in a call that has returned."""
        fd, result = facts.get("fd"), facts.get("result")
        if not isinstance(result, int):
            return
        if name == "fork":
            self._at.clear()
        elif name in _OPENS and self._is_alone and has_positions:
            flags = facts.get("arg", 0)
            assert isinstance(flags, int)
            self._at.pop(result, None)
            if not flags & (os.O_APPEND | os.O_DIRECTORY):
                self._at[result] = 0
        elif name in _DUPS:
            self._at.pop(result, None)
            self._at.pop(fd if isinstance(fd, int) else -1, None)
        elif name == "lseek" and fd in self._at:
            self._at[int(str(fd))] = result
        elif name == "close":
            self._at.pop(fd if isinstance(fd, int) else -1, None)
