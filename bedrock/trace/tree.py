"""Which names each file of a trace has had, and which of them is the last one that is known.

Names come from FILE notes, which say what a file was called when it was opened, and from the calls that change names. A
file that is written under a temporary name and then renamed has its final name from the rename alone. Whatever is below
a directory that is renamed is renamed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from bedrock.trace.columns import NONE
from bedrock.trace.files import Sighting

# How many names may move because a directory above them does; whoever renames a large one all day gets no further. The
# names that were known until then stay, as other names of their files.
_MAX_MOVED_BELOW = 1 << 18


class Held(NamedTuple):
    """What a path leads to: a file, and which of its names (see :class:`bedrock.trace.files.Files`) that is."""

    file: int
    name: int


class Move(NamedTuple):
    """A name of a file that has a new path."""

    name: int
    file: int
    path: int


class NameTree:
    """The names of files, up to the call that was taken in last.

    Paths are numbers of texts: ``raws`` has the bytes of each, ``intern`` gives a number to bytes.
    """

    def __init__(self, intern: Callable[[bytes], int], raws: list[bytes]) -> None:
        self._intern = intern
        self._raws = raws
        self._held: dict[int, Held] = {}
        self._last: dict[int, int] = {}  # by file: its last known path
        # By file, its paths as they came, and whether it still has them; only where they are more than one, or none.
        self._names: dict[int, dict[int, bool]] = {}
        self._below: dict[bytes, set[bytes]] | None = None  # what is in a directory; from the first rename on
        self._may_move = _MAX_MOVED_BELOW

    def names_of(self, file: int) -> list[int]:
        """The paths of a file: the last one that is known, then the others in the order in which they were seen."""
        if file not in self._last:
            return []
        last = self._last[file]
        return [last, *(path for path in self._names.get(file, ()) if path != last)]

    def knows(self, path: int) -> bool:
        """Whether a path leads to a file, or to a directory with one somewhere below it."""
        return path in self._held or self._raws[path] in self._index_all()

    def is_gone(self, file: int) -> bool:
        """Whether the last known name of a file was removed, or given to another one."""
        return file in self._names and not self._names[file][self._last[file]]

    def see(self, sighting: Sighting) -> None:
        """Take in what a FILE note says. A name that the file is known to have stays as recent as it was."""
        _, name, file, path, is_there, before = sighting
        held = self._held.get(path)
        if held == (file, name) and is_there and before in {NONE, path}:
            return
        if is_there:
            old = self._held.get(before)
            if old is not None and old.name == name and before != path:
                # It was renamed, by a call that is not in the trace.
                del self._held[before]
                self._lose(before, old)
            self._put(path, Held(file, name))
            if held is None or held.file != file:
                self._last[file] = path
            return
        names = self._all_names(file)
        names.setdefault(path, False)
        if not any(names.values()):
            self._last[file] = path

    def rename(self, old: int, new: int, *, is_exchange: bool = False) -> list[Move]:
        """A path was renamed to another one, or they were exchanged; return the names that have moved."""
        source, target = self._held.get(old), self._held.get(new)
        # Of two names of one file both stay: see rename(2).
        if old == new or (source is not None and target is not None and source.file == target.file):
            return []
        taken = self._take(old)
        other = self._take(new)
        moves = list(self._lay(taken, old, new))
        if is_exchange:
            moves += self._lay(other, new, old)
        else:
            for path, held in other:
                self._lose(path, held)
        return moves

    def link(self, old: int, new: int, file: int = NONE) -> None:
        """A file was given another name. ``file`` is it where no path leads to it."""
        held = self._held.get(old)
        if held is not None or file != NONE:
            # Which of the file's names this is to the tracer is not known yet.
            self._put(new, Held(file if held is None else held.file, NONE))

    def remove(self, path: int) -> None:
        """A name was removed."""
        for old, held in self._take(path):
            self._lose(old, held)

    def _put(self, path: int, held: Held) -> None:
        before = self._held.get(path)
        if before is not None and before.file != held.file:
            self._lose(path, before)
        if self._last.setdefault(held.file, path) != path or held.file in self._names:
            names = self._all_names(held.file)
            names[path] = True
            if not names[self._last[held.file]]:
                self._last[held.file] = path
        # What has no path, such as a pipe, can't be renamed.
        if self._raws[path].startswith(b"/"):
            self._held[path] = held
            if self._below is not None:
                _index(self._below, self._raws[path])

    def _all_names(self, file: int) -> dict[int, bool]:
        if file not in self._names:
            self._names[file] = {self._last[file]: True} if file in self._last else {}
        return self._names[file]

    def _lose(self, path: int, held: Held) -> None:
        names = self._all_names(held.file)
        names[path] = False
        if self._last[held.file] == path:
            self._last[held.file] = next((other for other in reversed(names) if names[other]), path)

    def _index_all(self) -> dict[bytes, set[bytes]]:
        if self._below is None:
            self._below = {}
            for path in self._held:
                _index(self._below, self._raws[path])
        return self._below

    def _take(self, path: int) -> list[tuple[int, Held]]:
        """Take a path and all below it out; return those that led to a file."""
        below, root = self._index_all(), self._raws[path]
        below.get(root.rpartition(b"/")[0], set()).discard(root)
        found, left = [], [root]
        while left:
            raw = left.pop()
            number = self._intern(raw)
            held = self._held.pop(number, None)
            if held is not None:
                found.append((number, held))
            left += below.pop(raw, ())
        return found

    def _lay(self, taken: list[tuple[int, Held]], old: int, new: int) -> Iterator[Move]:
        """Put what was taken out at ``old`` in again at ``new``."""
        for path, held in taken:
            if path != old:
                if not self._may_move:
                    self._lose(path, held)
                    continue
                self._may_move -= 1
            number = self._intern(self._raws[new] + self._raws[path][len(self._raws[old]) :])
            self._all_names(held.file)[path] = False
            self._put(number, held)
            self._last[held.file] = number
            if held.name != NONE:
                yield Move(held.name, held.file, number)


def _index(below: dict[bytes, set[bytes]], raw: bytes) -> None:
    while raw:
        directory = raw.rpartition(b"/")[0]
        inside = below.setdefault(directory, set())
        if raw in inside:
            return
        inside.add(raw)
        raw = directory
