"""Which file, which path and which process each call of a trace belongs to.

The tracer writes names once, when something new turns up, and numbers from then on. Here the two come together: for
every call the name that held when it was made. Names change while a trace goes on (a file is renamed, a process runs
another program, a thread's number is used again), so a call takes the last one that was given before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bedrock.trace.columns import NONE, codes_of, contains, join
from bedrock.trace.decode import Block, Calls, Trace
from bedrock.trace.failed_faults import FailedFaults
from bedrock.trace.files import Files, Sighting, Told
from bedrock.trace.notes import Notes, Start
from bedrock.trace.paths import resolve, text_of
from bedrock.trace.processes import Processes, Task
from bedrock.trace.renames import Change, ChangeKind, RealDirectories, changes_of
from bedrock.trace.tree import NameTree
from bedrock.tracer.format import CallFlag, Mode, RecordType, TextFlag
from bedrock.tracer.operations import Op

_WITH_STRINGS = np.zeros(256, bool)
for _op in Op:
    _WITH_STRINGS[_op] = (
        Op.OPEN <= _op <= Op.CREAT
        or _op in {Op.EXECVE, Op.EXECVEAT, Op.URING_OPEN, Op.URING_STAT}
        or Op.STAT <= _op <= Op.FCHDIR
        or Op.STATFS <= _op <= Op.URING_LINK
        or Op.NAME_TO_HANDLE_AT <= _op <= Op.FILE_SETATTR
        or _op in {Op.BIND, Op.INOTIFY_ADD_WATCH}
    )
_SECOND_IS_PATH = np.zeros(256, bool)
_SECOND_IS_PATH[
    [Op.RENAME, Op.RENAMEAT, Op.RENAMEAT2, Op.LINK, Op.LINKAT, Op.URING_RENAME, Op.URING_LINK]
] = True  # fmt: skip
_MAX_WAITING = 1 << 16


class Rows(NamedTuple):
    """The calls of one block, and for each of them a number, or NONE.

    ``file`` counts :attr:`Names.files`; ``path``, ``raw``, ``second`` and ``second_raw`` count :attr:`Names.texts`;
    ``task`` counts :attr:`Names.tasks`, ``process`` the starts of :attr:`Names.processes`. ``argv`` has the argument
    vectors by row. ``failed`` are the calls that did nothing, with the faults that ended in a signal;
    ``failed_earlier`` has the files of such faults in an earlier block.
    """

    calls: Calls
    file: NDArray[np.int64]
    path: NDArray[np.int64]
    raw: NDArray[np.int64]
    second: NDArray[np.int64]
    second_raw: NDArray[np.int64]
    task: NDArray[np.int64]
    process: NDArray[np.int64]
    argv: dict[int, list[str]]
    failed: NDArray[np.bool_]
    failed_earlier: list[int]
    notes: Notes


class _Strings(NamedTuple):
    """Text arguments that wait for their calls; ``base`` is the path from which a second one counts."""

    tid: NDArray[np.int64]
    time_ns: NDArray[np.int64]
    text: NDArray[np.int64]
    base: NDArray[np.int64]
    is_second: NDArray[np.bool_]

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> _Strings:
        return _Strings._make(column[chosen] for column in self)

    def and_then(self, later: _Strings) -> _Strings:
        return _Strings._make(np.concatenate(pair) for pair in zip(self, later, strict=True))


_NO_STRINGS = _Strings._make([*(np.empty(0, np.int64) for _ in range(4)), np.empty(0, bool)])


class Names:
    """What has been learnt of a trace up to the block that was read last. Memory grows with the number of names."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.start: Start | None = None
        self.ended = False
        self._raw_texts: list[bytes] = []
        self._text_numbers: dict[bytes, int] = {}
        self._resolved: dict[tuple[int, int], int] = {}
        self._waiting = _NO_STRINGS
        self.files = Files(self._intern)
        self.processes = Processes()
        self._tree = NameTree(self._intern, self._raw_texts)
        self._directories = RealDirectories(self._intern, self._raw_texts)
        self._failed_faults = FailedFaults()

    @property
    def mode(self) -> Mode:
        return self.start.mode if self.start is not None else Mode.EVENTS

    def text(self, number: int) -> str | None:
        return None if number == NONE else self.texts[number]

    @property
    def tasks(self) -> list[Task]:
        """The threads, each once for every program that it has run."""
        return self.processes.tasks

    def paths_of_file(self, number: int) -> list[str]:
        """All names of a file, the last one that is known first; a made-up one where there is none."""
        paths = [self.texts[path] for path in self._tree.names_of(number)]
        return paths or [f"inode:[{self.files[number].identity.inode}]"]

    def is_gone(self, number: int) -> bool:
        """Whether the last known name of a file was removed, or given to another file."""
        return self._tree.is_gone(number)

    def read(self, block: Block) -> Rows:
        """Take a block's notes in, and give each of its calls its names."""
        calls, notes = block.calls, block.notes
        index = np.arange(len(calls), dtype=np.int64) + block.header.first_call
        for number in notes.of(RecordType.START, RecordType.END):
            note = notes.note(int(number))
            if isinstance(note, Start):
                self.start = note
            else:
                self.ended = True
        told, sightings = self.files.read(notes)
        strings = self._strings(notes, told)
        file, path = self._name_files(calls, told, index)
        task = self._name_tasks(calls, notes, index, strings)
        raw, second_raw, second_base = self._name_arguments(calls, strings)
        has_file = (calls["flags"] & CallFlag.HAS_FILE) != 0
        # Calls that gave no file are about what their argument names; without the argument, about nobody knows what.
        path = self._resolve(path, self._looked_up(calls, raw, path), ~has_file)
        path[~has_file & (raw == NONE)] = NONE
        is_path = _SECOND_IS_PATH[calls["op"]]
        second_base[second_raw == NONE] = NONE
        second = np.where(is_path, self._resolve(second_base, second_raw, is_path), second_raw)
        process = np.array([*(known.process for known in self.tasks), NONE], np.int64)[task]
        self._directories.learn(calls, raw, path, process)
        changes = changes_of(calls, (path, second, raw, second_raw), (file, process), self._raw_texts)
        moved = self._follow(sightings, changes, block.header.first_call)
        if moved:
            _, path_now = self._name_files(calls, self.files.rename(told, moved), index)
            path[has_file] = path_now[has_file]
        failed, failed_earlier = self._failed_faults.read(calls, file)
        return Rows(
            calls, file, path, raw, second, second_raw, task, process, self._vectors(calls), calls.failed | failed,
            failed_earlier, notes,
        )  # fmt: skip

    def _follow(
        self, sightings: list[Sighting], changes: list[Change], first_call: int
    ) -> list[tuple[int, int, int, int]]:
        """Take in, in their order, where files were seen and what changed their names.

        Returns which names of files have moved by that: name, position in the trace, file and path.
        """
        tree, moved, seen = self._tree, [], iter(sightings)
        next_one = next(seen, None)
        for change in changes:
            position = first_call + change.row
            while next_one is not None and next_one.position <= position:
                tree.see(next_one)
                next_one = next(seen, None)
            path, second = change.path, change.second
            if not tree.knows(path) and change.file == NONE:
                path = self._directories.real(path, change.process)
                second = NONE if second == NONE else self._directories.real(second, change.process)
            match change.kind:
                case ChangeKind.REMOVE:
                    tree.remove(path)
                case ChangeKind.LINK:
                    tree.link(path, second, change.file)
                case ChangeKind.RENAME | ChangeKind.EXCHANGE:
                    moves = tree.rename(path, second, is_exchange=change.kind is ChangeKind.EXCHANGE)
                    moved += [(move.name, position + 1, move.file, move.path) for move in moves]
        if next_one is not None:
            tree.see(next_one)
        for sighting in seen:
            tree.see(sighting)
        return moved

    def _intern(self, raw: bytes) -> int:
        number = self._text_numbers.get(raw)
        if number is None:
            number = self._text_numbers[raw] = len(self.texts)
            self.texts.append(text_of(raw))
            self._raw_texts.append(raw)
        return number

    def _name_files(
        self, calls: Calls, told: Told, index: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        has_any = np.flatnonzero(calls["flags"] & (CallFlag.HAS_FILE | CallFlag.FROM_BASE))
        file = np.full(len(calls), NONE, np.int64)
        path = file.copy()
        if not len(has_any):
            return file, path
        file[has_any], path[has_any] = self.files.as_of(
            calls["device"][has_any], calls["inode"][has_any], calls["link"][has_any], index[has_any], told
        )
        # A call that only counts from a directory has used no file.
        file[(calls["flags"] & CallFlag.HAS_FILE) == 0] = NONE
        return file, path

    # -- processes

    def _name_tasks(self, calls: Calls, notes: Notes, index: NDArray[np.int64], strings: _Strings) -> NDArray[np.int64]:
        chosen = notes.of(RecordType.PROCESS, RecordType.ARGV)
        programs = join(strings.tid, strings.time_ns, strings.text, notes.tid[chosen], notes.time_ns[chosen])
        return self.processes.read(calls, notes, index, chosen, programs.tolist())

    # -- arguments

    def _strings(self, notes: Notes, told: Told) -> _Strings:
        chosen = notes.of(RecordType.STRING)
        fixed = notes.fixed(chosen, RecordType.STRING)
        unreadable = ((fixed["flags"] & TextFlag.UNREADABLE) != 0).tolist()
        texts = [
            NONE if is_unreadable else self._intern(text)
            for text, is_unreadable in zip(
                notes.texts(chosen, RecordType.STRING, fixed["text_size"]), unreadable, strict=True
            )
        ]
        is_second = (fixed["flags"] & TextFlag.SECOND) != 0
        base = np.full(len(chosen), NONE, np.int64)
        with_base = np.flatnonzero(fixed["inode"])
        if len(with_base):
            some = fixed[with_base]
            _, base[with_base] = self.files.as_of(
                some["device"], some["inode"], some["link"], notes.position[chosen[with_base]], told
            )
        return self._waiting.and_then(
            _Strings(
                notes.tid[chosen].astype(np.int64), notes.time_ns[chosen], np.array(texts, np.int64), base, is_second
            )
        )

    def _name_arguments(
        self, calls: Calls, strings: _Strings
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """For each call its first and its second text, and the path of the directory from which the second counts."""
        raw, second, second_base = (np.full(len(calls), NONE, np.int64) for _ in range(3))
        rows = np.flatnonzero(_WITH_STRINGS[calls["op"]])
        is_used = np.zeros(len(strings.tid), bool)
        keys = (calls["tid"][rows], calls["time_ns"][rows])
        firsts = strings.where(~strings.is_second)
        raw[rows] = join(firsts.tid, firsts.time_ns, firsts.text, *keys)
        if strings.is_second.any():
            seconds = strings.where(strings.is_second)
            second[rows] = join(seconds.tid, seconds.time_ns, seconds.text, *keys)
            second_base[rows] = join(seconds.tid, seconds.time_ns, seconds.base, *keys)
        if len(strings.tid):
            # Those whose call is in a later block wait for it.
            is_used = contains(*keys, strings.tid, strings.time_ns)
        self._waiting = strings.where(np.flatnonzero(~is_used)[-_MAX_WAITING:])
        return raw, second, second_base

    def _looked_up(self, calls: Calls, raw: NDArray[np.int64], path: NDArray[np.int64]) -> NDArray[np.int64]:
        """``raw``, with paths that can't lead above their directory made absolute: that directory is their root."""
        rows = np.flatnonzero(((calls["flags"] & CallFlag.IN_ROOT) != 0) & (raw != NONE))
        if not len(rows):
            return raw
        looked_up = raw.copy()
        looked_up[rows] = [
            NONE if base == NONE else self._intern(b"/" + self._raw_texts[text])
            for base, text in zip(path[rows].tolist(), raw[rows].tolist(), strict=True)
        ]
        return looked_up

    def _resolve(self, path: NDArray[np.int64], raw: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """``path``, and in the rows that are chosen what the raw argument names when it counts from that path."""
        rows = np.flatnonzero((raw != NONE) & chosen)
        if not len(rows):
            return path
        pairs, codes = codes_of((path[rows] + 1) << 32 | raw[rows])
        found = []
        for pair in pairs.tolist():
            key = ((pair >> 32) - 1, pair & 0xFFFFFFFF)
            number = self._resolved.get(key)
            if number is None:
                base = None if key[0] == NONE else self._raw_texts[key[0]]
                named = resolve(base, self._raw_texts[key[1]])
                number = self._resolved[key] = NONE if named is None else self._intern(named)
            found.append(number)
        path[rows] = np.array(found, np.int64)[codes]
        return path

    def _vectors(self, calls: Calls) -> dict[int, list[str]]:
        vectors = {}
        if self.processes.has_vectors:
            rows = np.flatnonzero(np.isin(calls["op"], (Op.EXECVE, Op.EXECVEAT)))
            for row in rows.tolist():
                words = self.processes.argv_of(int(calls["tid"][row]), int(calls["time_ns"][row]))
                if words is not None:
                    vectors[row] = [text_of(word) for word in words]
        return vectors


def read_rows(trace: Trace, names: Names) -> Iterator[Rows]:
    """Yield the blocks of a trace with their names. Raises :class:`bedrock.trace.layouts.TraceError`."""
    for block in trace.blocks():
        yield names.read(block)


def program_name(text: str | None) -> str:
    """What people call a program, from its path."""
    return PurePosixPath(text).name if text else ""
