"""The calls that change the names of files, out of a block's calls."""

from __future__ import annotations

import enum
import itertools
import posixpath
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bedrock.trace.columns import NONE, codes_of
from bedrock.trace.decode import Calls
from bedrock.tracer.format import CallFlag
from bedrock.tracer.operations import Op

_RENAMES = {Op.RENAME, Op.RENAMEAT, Op.RENAMEAT2, Op.URING_RENAME}
_LINKS = {Op.LINK, Op.LINKAT, Op.URING_LINK}
_REMOVALS = {Op.UNLINK, Op.UNLINKAT, Op.URING_UNLINK, Op.RMDIR}
_CHANGES = np.zeros(256, bool)
_CHANGES[[*_RENAMES, *_LINKS, *_REMOVALS]] = True
_RENAME_EXCHANGE = 2
# What the kernel has really acted on is not known of these.
_UNCERTAIN = CallFlag.UNFINISHED | CallFlag.ARGUMENT_CHANGED


class ChangeKind(enum.Enum):
    RENAME = enum.auto()
    EXCHANGE = enum.auto()
    LINK = enum.auto()
    REMOVE = enum.auto()


class Change(NamedTuple):
    """One change: the call's place in its block, its paths, its file and its process; what there is not is NONE."""

    row: int
    kind: ChangeKind
    path: int
    second: int
    file: int
    process: int


def changes_of(
    calls: Calls, texts: tuple[NDArray[np.int64], ...], subjects: tuple[NDArray[np.int64], ...], raws: list[bytes]
) -> list[Change]:
    """The changes that succeeded, in order, as far as it is certain what they changed.

    ``texts`` are four numbers for each call, or NONE: its path, its second path, and the two as they were given;
    ``raws`` has the bytes of each number. ``subjects`` are the numbers of its file and of its process.
    """
    is_change = _CHANGES[calls["op"]]
    if not is_change.any():
        return []
    path, second, *given = texts
    file, process = subjects
    chosen = is_change & ~calls.failed & ((calls["flags"] & _UNCERTAIN) == 0) & (path != NONE)
    changes = []
    for row in np.flatnonzero(chosen).tolist():
        kind = _kind_of(int(calls["op"][row]), int(calls["arg"][row]))
        if kind is not ChangeKind.REMOVE and second[row] == NONE:
            continue
        if not any(text[row] != NONE and _turns_back(raws[text[row]]) for text in given):
            changes.append(Change(row, kind, *(int(column[row]) for column in (path, second, file, process))))
    return changes


def _turns_back(raw: bytes) -> bool:
    """Whether a path has ``..`` behind a name: where that is a symbolic link, it leads elsewhere than the text says."""
    if b".." not in raw:
        return False
    parts = [part for part in raw.split(b"/") if part not in {b"", b"."}]
    return any(part != b".." and after == b".." for part, after in itertools.pairwise(parts))


def _kind_of(op: int, arg: int) -> ChangeKind:
    if op in _LINKS:
        return ChangeKind.LINK
    if op in _REMOVALS:
        return ChangeKind.REMOVE
    return ChangeKind.EXCHANGE if op == Op.RENAMEAT2 and arg & _RENAME_EXCHANGE else ChangeKind.RENAME


class RealDirectories:
    """What directories are really called that programs reach through symbolic links.

    The paths of calls are put together as text and links in them are not followed, while the paths of files are the
    kernel's own. An open shows both: where only the directories differ, the one is the other. Where the longer one ends
    like the other (``/usr/bin`` and ``/bin``) the process may also have another root, so that says nothing of others.
    """

    def __init__(self, intern: Callable[[bytes], int], raws: list[bytes]) -> None:
        self._intern = intern
        self._raws = raws
        self._real: dict[tuple[int, bytes], bytes] = {}  # by process, or NONE for all, and directory

    def learn(self, calls: Calls, raw: NDArray[np.int64], path: NDArray[np.int64], process: NDArray[np.int64]) -> None:
        """Take in the opens of a block; ``raw``, ``path`` and ``process`` are those of its calls."""
        op = calls["op"]
        opens = np.flatnonzero((op >= Op.OPEN) & (op <= Op.CREAT) & (raw != NONE) & (path != NONE) & (raw != path))
        if not len(opens):
            return
        pairs, codes = codes_of(raw[opens] << 32 | path[opens])
        one_of = np.empty(len(pairs), np.int64)
        one_of[codes] = process[opens]
        for pair, opener in zip(pairs.tolist(), one_of.tolist(), strict=True):
            given, found = self._raws[pair >> 32], self._raws[pair & 0xFFFFFFFF]
            if not given.startswith(b"/"):
                continue
            given_directory, _, given_name = posixpath.normpath(given).rpartition(b"/")
            directory, _, name = found.rpartition(b"/")
            if name == given_name and directory != given_directory:
                whose = opener if directory.endswith(given_directory) else NONE
                self._real[whose, given_directory] = directory

    def real(self, path: int, process: int) -> int:
        """A path, as a process names it, with its directory as that is really called."""
        directory, _, name = self._raws[path].rpartition(b"/")
        found = self._real.get((NONE, directory)) or self._real.get((process, directory))
        return path if found is None else self._intern(found + b"/" + name)
