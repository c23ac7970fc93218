"""Which file a device and an inode number mean, and which path it had, at each point of a trace.

A number that has become free is given to the next file, and a file may be renamed: so both are what the last FILE note
before a call says. A new generation is a new file, unless it was 0 before: then an overlay has copied the file up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bedrock.trace.columns import NONE, as_of, codes_of
from bedrock.trace.decode import FileIdentity, Notes, path_of
from bedrock.tracer.format import RecordType, TextFlag

_KINDS = {
    0o100000: "file",
    0o040000: "directory",
    0o010000: "pipe",
    0o140000: "socket",
    0o020000: "char",
    0o060000: "block",
    0o120000: "link",
}


class File(NamedTuple):
    """A file, by what it is. ``kind`` is file, directory, pipe, socket, char, block, link or other."""

    identity: FileIdentity
    kind: str


class Told(NamedTuple):
    """What the notes of one block say: which identity had which file and path from how many calls on.

    ``before`` has what each of these identities had before: file and path. All are numbers.
    """

    identity: NDArray[np.int64]
    position: NDArray[np.int64]
    file: NDArray[np.int64]
    path: NDArray[np.int64]
    before: dict[int, tuple[int, int]]


class Files:
    """The files of a trace by number, up to the block that was read last. Paths are numbers that ``intern`` gives."""

    def __init__(self, intern: Callable[[bytes], int]) -> None:
        self._intern = intern
        self._files: list[File] = []
        self._paths: list[list[int]] = []
        self._generations: list[int] = []
        self._identities: dict[FileIdentity, int] = {}
        self._now: list[tuple[int, int]] = []  # by identity: file and path
        self._by_generation: dict[tuple[FileIdentity, int], int] = {}
        self._path_numbers: dict[tuple[bytes, int, int, int], int] = {}

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> File:
        return self._files[number]

    def paths(self, number: int) -> Sequence[int]:
        """All paths of a file, in the order in which they were seen."""
        return self._paths[number]

    def of_generation(self, identity: FileIdentity, generation: int) -> int:
        """The number of a file, which is given one when it has none yet."""
        number = self._by_generation.get((identity, generation))
        return self._now[self._identity(identity)][0] if number is None else number

    def read(self, notes: Notes) -> Told:
        """Take a block's FILE notes in."""
        chosen = notes.of(RecordType.FILE)
        fixed = notes.fixed(chosen, RecordType.FILE)
        told = [np.empty(len(chosen), np.int64) for _ in range(3)]
        before: dict[int, tuple[int, int]] = {}
        columns = (fixed[name].tolist() for name in ("device", "inode", "generation", "mode", "flags", "text_size"))
        for row, (at, device, inode, generation, mode, flags, size) in enumerate(
            zip(chosen.tolist(), *columns, strict=True)
        ):
            identity = FileIdentity(device, inode)
            path = self._path(notes.text(at, RecordType.FILE, size), identity, mode, flags)
            known = self._identity(identity)
            before.setdefault(known, self._now[known])
            file = self._incarnation(identity, generation, self._now[known][0])
            if self._files[file].kind == "unknown":
                self._files[file] = File(identity, _KINDS.get(mode & 0o170000, "other"))
            if path not in self._paths[file]:
                self._paths[file].append(path)
            self._now[known] = (file, path)
            for column, value in zip(told, (known, file, path), strict=True):
                column[row] = value
        identities, files, paths = told
        return Told(identities, notes.position[chosen], files, paths, before)

    def as_of(
        self, device: NDArray[np.int64], inode: NDArray[np.int64], at: NDArray[np.int64], told: Told
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which file each device and inode meant after ``at`` calls, and which path it had then (or NONE)."""
        inodes, inode_codes = codes_of(inode)
        devices, device_codes = codes_of(device)
        keys, codes = codes_of(inode_codes * len(devices) + device_codes)
        identities = np.array(
            [
                self._identity(FileIdentity(int(devices[key % len(devices)]), int(inodes[key // len(devices)])))
                for key in keys.tolist()
            ],
            np.int64,
        )
        before = np.array([told.before.get(known, self._now[known]) for known in identities.tolist()])[codes]
        file, path = (
            as_of(
                identities[codes], at, noted=told.identity, positions=told.position, values=values, before=before[:, n]
            )
            for n, values in enumerate((told.file, told.path))
        )
        return file, path

    def _identity(self, identity: FileIdentity) -> int:
        known = self._identities.get(identity)
        if known is None:
            known = self._identities[identity] = len(self._now)
            self._now.append((self._add(identity), NONE))
        return known

    def _add(self, identity: FileIdentity) -> int:
        self._files.append(File(identity, "unknown"))
        self._paths.append([])
        self._generations.append(0)
        return len(self._files) - 1

    def _incarnation(self, identity: FileIdentity, generation: int, number: int) -> int:
        """The file of a generation, where the number of its inode has last meant another one, or the same."""
        if generation and self._generations[number] not in {0, generation}:
            number = self._add(identity)
        self._generations[number] = generation or self._generations[number]
        self._by_generation[identity, generation] = number
        return number

    def _path(self, text: bytes, identity: FileIdentity, mode: int, flags: int) -> int:
        is_outside = flags & TextFlag.OUTSIDE
        key = (text, mode & 0o170000, is_outside, identity.inode if is_outside else 0)
        path = self._path_numbers.get(key)
        if path is None:
            path = self._path_numbers[key] = self._intern(path_of(text, identity, mode, TextFlag(flags)))
        return path
