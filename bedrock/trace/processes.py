"""Which process and which program each call of a trace belongs to.

The host gives the number of a process that has ended to another one, so a process is its number together with when it
began. A PROCESS note of a thread that is known is another thread with its number, or the same one in another process:
what comes after it belongs to that. Traces of version 2 don't say when a process began; there, a second note of a
process's first thread is another process.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bedrock.trace.columns import NONE, as_of, codes_of
from bedrock.trace.decode import Calls
from bedrock.trace.notes import Argv, Notes, Process


class Task(NamedTuple):
    """A thread, in the container's numbers, while it runs one program.

    ``program`` is a text's number or NONE; ``process`` counts :attr:`Processes.starts`.
    """

    pid: int
    tid: int
    program: int
    process: int


class ProcessStart(NamedTuple):
    """A process: its number in the container and on the host, and which process made it (or NONE)."""

    pid: int
    host_tgid: int
    parent: int


class Processes:
    """The processes of a trace and their threads, by number, up to the block that was read last."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.starts: list[ProcessStart] = []
        self._task_of_thread: dict[int, int] = {}
        self._leader_task: dict[int, int] = {}  # by process
        self._latest: dict[int, int] = {}  # by number on the host: the process
        self._by_start: dict[tuple[int, int], int] = {}
        self._argv_parts: dict[tuple[int, int], list[bytes]] = {}

    def process_of(self, host_tgid: int, started_ns: int) -> int:
        """The process that had a number on the host and began then; the last one of that number where that is 0."""
        if started_ns:
            return self._by_start.get((host_tgid, started_ns), NONE)
        return self._latest.get(host_tgid, NONE)

    def read(
        self, calls: Calls, notes: Notes, index: NDArray[np.int64], chosen: NDArray[np.int64], programs: list[int]
    ) -> NDArray[np.int64]:
        """Take a block's PROCESS and ARGV notes in, which are ``chosen``, and return the task of each call, or NONE.

        ``programs`` has the text that came with each of the notes, ``index`` the numbers of the calls in the trace.
        """
        threads, positions, tasks = [], [], []
        before: dict[int, int] = {}
        for at, program in zip(chosen.tolist(), programs, strict=True):
            note = notes.note(at)
            if isinstance(note, Process):
                task = self._introduce(note)
            elif isinstance(note, Argv):
                parts = self._argv_parts.setdefault((note.tid, note.time_ns), [])
                parts.append(note.text)
                running = self._task_of_thread.get(note.tid)
                if running is None or len(parts) > 1:
                    continue
                task = self.tasks[running]._replace(program=program)
            else:
                continue
            number = len(self.tasks)
            self.tasks.append(task)
            before.setdefault(note.tid, self._task_of_thread.get(note.tid, NONE))
            self._task_of_thread[note.tid] = number
            if task.tid == task.pid:
                self._leader_task[task.process] = number
            threads.append(note.tid)
            positions.append(int(notes.position[at]))
            tasks.append(number)
        if not len(calls):
            return np.empty(0, np.int64)
        found, codes = codes_of(calls["tid"])
        held = np.array([before.get(tid, self._task_of_thread.get(tid, NONE)) for tid in found.tolist()], np.int64)
        task_of_call = as_of(
            calls["tid"].astype(np.int64),
            index,
            noted=np.array(threads, np.int64),
            positions=np.array(positions, np.int64),
            values=np.array(tasks, np.int64),
            before=held[codes],
        )
        return self._checked(task_of_call, calls["tgid"])

    @property
    def has_vectors(self) -> bool:
        """Whether argument vectors wait for their calls."""
        return bool(self._argv_parts)

    def argv_of(self, tid: int, time_ns: int) -> list[bytes] | None:
        """The argument vector that came with an exec, once; None where none did."""
        parts = self._argv_parts.pop((tid, time_ns), None)
        return None if parts is None else b"".join(parts).removesuffix(b"\0").split(b"\0")

    def _checked(self, task: NDArray[np.int64], tgid: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same without tasks of other processes: those whose own introduction was lost have no task."""
        used, codes = codes_of(task)
        host = [NONE if n == NONE else self.starts[self.tasks[n].process].host_tgid for n in used.tolist()]
        return np.where(np.array(host, np.int64)[codes] == tgid, task, NONE)

    def _introduce(self, note: Process) -> Task:
        """A thread runs what its process runs, a process what its parent ran when it was made."""
        number = self.process_of(note.tgid, note.started_ns)
        if number == NONE or (not note.started_ns and note.tid == note.tgid and number in self._leader_task):
            parent = self._latest.get(note.parent, NONE)
            number = len(self.starts)
            self.starts.append(ProcessStart(note.container_pid, note.tgid, parent))
            self._latest[note.tgid] = number
            if note.started_ns:
                self._by_start[note.tgid, note.started_ns] = number
        parent = self.starts[number].parent
        model = self._leader_task.get(number, self._leader_task.get(parent, NONE))
        program = NONE if model == NONE else self.tasks[model].program
        return Task(note.container_pid, note.container_tid, program, number)
