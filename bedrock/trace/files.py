"""Which file a device, an inode number and a link mean, and which path it had, at each point of a trace.

A number that has become free is given to the next file, a file may be renamed, and it may have several names (hard
links), each with a link of its own. So file and path are what the last FILE note of that link says that came before a
call. A link of 0 means whichever name of the inode was last seen: traces of version 2 have no other.

A new generation is a new file. The exception is an overlay that copies a file up: its number stays, its generation was
0 and is not any more. Other names (hard links) of such a file stay what they were, so from then on there are two files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bedrock.trace.columns import NONE, as_of, codes_of
from bedrock.trace.notes import FileIdentity, Notes
from bedrock.trace.paths import path_of
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
_UNKNOWN = "unknown"
# Plain numbers: an enum's operators take as long as all else that is done for a note.
_DELETED, _OUTSIDE = int(TextFlag.DELETED), int(TextFlag.OUTSIDE)


class File(NamedTuple):
    """A file, by what it is. ``kind`` is file, directory, pipe, socket, char, block, link or other."""

    identity: FileIdentity
    kind: str


class Told(NamedTuple):
    """What a block says: which name (of an inode) meant which file and had which path from how many calls on.

    ``before`` has what each of these names meant before: file and path. All are numbers.
    """

    name: NDArray[np.int64]
    position: NDArray[np.int64]
    file: NDArray[np.int64]
    path: NDArray[np.int64]
    before: dict[int, tuple[int, int]]


class Sighting(NamedTuple):
    """A FILE note in numbers: after how many calls which name of which file had a path, and whether it still had it.

    ``before`` is the path that this name had until then, or NONE where it is new or is not told apart from others.
    """

    position: int
    name: int
    file: int
    path: int
    is_there: bool
    before: int


class Files:
    """The files of a trace by number, up to the block that was read last. Paths are numbers that ``intern`` gives."""

    def __init__(self, intern: Callable[[bytes], int]) -> None:
        self._intern = intern
        self._files: list[File] = []
        self._generations: list[int] = []
        self._names: dict[tuple[int, int, int], int] = {}  # device, inode and link
        self._now: list[tuple[int, int]] = []  # by name: file and path
        self._by_generation: dict[tuple[FileIdentity, int], int] = {}
        self._with_links: set[int] = set()  # files that have been seen under several names
        self._path_numbers: dict[tuple[bytes, int, int, int], int] = {}

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> File:
        return self._files[number]

    def of_total(self, identity: FileIdentity, link: int, generation: int) -> int:
        """The number of a file that was counted in the kernel, which is given one when it has none yet."""
        by_generation = self._by_generation.get((identity, generation))
        by_name = self._now[self._name(*identity, link)]
        if by_generation is None:
            return by_name[0]
        # What was counted before a file was copied up belongs to it, and not to its other names, which were not.
        is_another = not generation and link and by_name[1] != NONE and by_generation not in self._with_links
        return by_name[0] if is_another else by_generation

    def read(self, notes: Notes) -> tuple[Told, list[Sighting]]:
        """Take a block's FILE notes in."""
        chosen = notes.of(RecordType.FILE)
        fixed = notes.fixed(chosen, RecordType.FILE)
        rows: list[tuple[int, int, int, int]] = []
        sightings: list[Sighting] = []
        before: dict[int, tuple[int, int]] = {}
        fields = ("device", "inode", "link", "generation", "mode", "flags")
        columns = (fixed[name].tolist() for name in fields)
        positions, texts = notes.position[chosen].tolist(), notes.texts(chosen, RecordType.FILE, fixed["text_size"])
        for position, text, device, inode, link, generation, mode, flags in zip(
            positions, texts, *columns, strict=True
        ):
            identity = FileIdentity(device, inode)
            path = self._path(text, inode, mode, flags)
            any_name = self._name(device, inode, 0)
            name = self._name(device, inode, link) if link else any_name
            file = self._incarnation(identity, generation, name, any_name, path)
            if self._files[file].kind == _UNKNOWN:
                self._files[file] = File(identity, _KINDS.get(mode & 0o170000, "other"))
            path_before = self._now[name][1] if link else NONE
            for concerned in (name, any_name) if link else (name,):
                before.setdefault(concerned, self._now[concerned])
                self._now[concerned] = (file, path)
                rows.append((concerned, position, file, path))
            sightings.append(Sighting(position, name, file, path, not flags & _DELETED, path_before))
        table = np.array(rows, np.int64).reshape(-1, 4)
        return Told(table[:, 0], table[:, 1], table[:, 2], table[:, 3], before), sightings

    def rename(self, told: Told, moved: list[tuple[int, int, int, int]]) -> Told:
        """What a block says together with what follows from its renames: name, position, file and path of each."""
        last = dict(zip(told.name.tolist(), told.position.tolist(), strict=True))
        before = dict(told.before)
        for name, position, file, path in moved:
            before.setdefault(name, self._now[name])
            if last.get(name, -1) < position:
                self._now[name] = (file, path)
        # Of a note and a rename at one position the note comes second: it was made after the rename had returned.
        first = np.array(moved, np.int64).reshape(-1, 4)
        table = np.concatenate([first, np.stack([told.name, told.position, told.file, told.path], axis=1)])
        return Told(table[:, 0], table[:, 1], table[:, 2], table[:, 3], before)

    def as_of(
        self, device: NDArray[np.int64], inode: NDArray[np.int64], link: NDArray[np.int64], at: NDArray[np.int64],
        told: Told,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
        """Which file each device, inode and link meant after ``at`` calls, and which path it had then (or NONE)."""
        inodes, inode_codes = codes_of(inode)
        devices, device_codes = codes_of(device)
        links, link_codes = codes_of(link)
        keys, codes = codes_of((inode_codes * len(devices) + device_codes) * len(links) + link_codes)
        pairs, which = np.divmod(keys, len(links))
        names = np.array(
            [
                self._name(*key)
                for key in zip(
                    devices[pairs % len(devices)].tolist(),
                    inodes[pairs // len(devices)].tolist(),
                    links[which].tolist(),
                    strict=True,
                )
            ],
            np.int64,
        )
        before = np.array([told.before.get(name, self._now[name]) for name in names.tolist()])[codes]
        file, path = (
            as_of(names[codes], at, noted=told.name, positions=told.position, values=values, before=before[:, n])
            for n, values in enumerate((told.file, told.path))
        )
        return file, path

    def _name(self, device: int, inode: int, link: int) -> int:
        name = self._names.get((device, inode, link))
        if name is None:
            # A name that was never introduced: the file is the inode's, but which path it has is not known.
            file = self._now[self._name(device, inode, 0)][0] if link else self._add(FileIdentity(device, inode))
            name = self._names[device, inode, link] = len(self._now)
            self._now.append((file, NONE))
        return name

    def _add(self, identity: FileIdentity) -> int:
        self._files.append(File(identity, _UNKNOWN))
        self._generations.append(0)
        return len(self._files) - 1

    def _incarnation(self, identity: FileIdentity, generation: int, name: int, any_name: int, path: int) -> int:
        """Which file a note is about: one that is known, or the next one to which the number was given."""
        is_known_name = self._now[name][1] != NONE
        number, last_path = self._now[name if is_known_name else any_name]
        is_same_name = is_known_name or last_path == path
        was = self._generations[number]
        is_first = self._files[number].kind == _UNKNOWN
        if generation and (identity, generation) in self._by_generation:
            number = self._by_generation[identity, generation]
        elif is_first or generation == was:
            if not is_first and not is_same_name:
                self._with_links.add(number)
        elif not generation:
            if not is_same_name:
                lower = self._by_generation.get((identity, 0))
                number = self._add(identity) if lower is None else lower
        elif was or not is_same_name or number in self._with_links:
            number = self._add(identity)
        elif self._by_generation.get((identity, 0)) == number:
            del self._by_generation[identity, 0]
        self._generations[number] = generation or self._generations[number]
        self._by_generation[identity, self._generations[number]] = number
        return number

    def _path(self, text: bytes, inode: int, mode: int, flags: int) -> int:
        # What has no path is named by its kind and number.
        is_outside = flags & _OUTSIDE
        key = (text, mode & 0o170000, is_outside, inode if is_outside else 0)
        path = self._path_numbers.get(key)
        if path is None:
            path = self._path_numbers[key] = self._intern(path_of(text, inode, mode, TextFlag(flags)))
        return path
