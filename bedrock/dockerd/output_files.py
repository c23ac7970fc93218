"""``stdout.log`` and ``stderr.log`` of a session as they grow, up to an upper size. Plain file operations.

The size of each file is the only cursor: what is in it is what has been taken from the engine, also after a crash.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

# What the engine takes for a line at the most: it logs a longer one in pieces of this size, and a last, shorter one.
_PIECE_BYTES = 16 << 10


class OutputFiles:
    """The files of one container's streams, by the number of the stream. One thread at a time may use it.

    ``limit`` is what they may have together. What is over it is counted in ``over``, which a successor finds again in
    the file ``counter``. A disk that is full costs the output, not the session: ``error`` says why nothing is kept any
    more.
    """

    def __init__(self, paths: Mapping[int, Path], counter: Path, limit: int) -> None:
        self.limit = limit
        self.over = 0
        self.error = ""
        self.sizes = dict.fromkeys(paths, 0)
        self._paths = dict(paths)
        self._counter = counter
        self._descriptors: dict[int, int] = {}
        self._counter_descriptor: int | None = None

    def clear(self) -> None:
        """Begin anew, with nothing in the files."""
        try:
            for path in (*self._paths.values(), self._counter):
                path.unlink(missing_ok=True)
        except OSError as error:
            self._give_up(error)

    def open(self) -> None:
        """Open the files with what is in them."""
        with suppress(OSError, ValueError):
            self.over = int(self._counter.read_bytes())
        try:
            for stream, path in self._paths.items():
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._descriptors[stream] = os.open(path, flags, 0o644)
                self.sizes[stream] = os.fstat(self._descriptors[stream]).st_size
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the files. Doing it again is not an error."""
        descriptors = [*self._descriptors.values()]
        if self._counter_descriptor is not None:
            descriptors.append(self._counter_descriptor)
        self._descriptors, self._counter_descriptor = {}, None
        for descriptor in descriptors:
            os.close(descriptor)

    def append(self, stream: int, data: memoryview) -> bool:
        """Keep what there is room for and count the rest. Always returns True: whoever reads must go on reading."""
        room = 0 if self.over or self.error else max(0, self.limit - sum(self.sizes.values()))
        wanted = data[:room]
        try:
            while wanted:
                written = os.write(self._descriptors[stream], wanted)
                self.sizes[stream] += written
                wanted = wanted[written:]
        except OSError as error:
            self._give_up(error)
        lost = len(wanted) + len(data[room:])
        if lost:
            self._count(lost)
        return True

    def read(self, stream: int, offset: int, size: int) -> bytes:
        """Return what is kept of a stream at a place."""
        return os.pread(self._descriptors[stream], size, offset)

    def _count(self, lost: int) -> None:
        self.over += lost
        with suppress(OSError):
            if self._counter_descriptor is None:
                self._counter_descriptor = os.open(self._counter, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.pwrite(self._counter_descriptor, b"%20d" % self.over, 0)

    def _give_up(self, error: OSError) -> None:
        if not self.error:
            self.error = error.strerror or str(error)
            log.error("the output of a container can't be kept", error=self.error)


class Replay:
    """Reads the engine's log from its beginning: compares what is in the files already, and appends the rest.

    ``differs`` is set when the two are not the same, because the log has lost its beginning to newer lines; then
    nothing is appended.
    """

    def __init__(self, files: OutputFiles) -> None:
        self.differs = False
        self._files = files
        self._offsets = dict.fromkeys(files.sizes, 0)
        self._in_piece = dict.fromkeys(files.sizes, False)
        self._owes_newline = dict.fromkeys(files.sizes, False)

    @property
    def is_unsure(self) -> bool:
        """Whether the log does not show if the last line of a stream, which is a long one, has an end."""
        sizes = self._files.sizes
        return any(owes and sizes[stream] == self._offsets[stream] for stream, owes in self._owes_newline.items())

    def feed(self, stream: int, data: memoryview) -> bool:
        """Take one entry of the log; return whether more is wanted."""
        if self._owes_newline[stream]:
            self._put(stream, memoryview(b"\n"))
        is_line = len(data) > 0 and data[-1] == ord("\n")
        # Of a line that was logged in pieces engines forget the newline. It shows in that another entry follows a piece
        # that is shorter than the others; one that nothing follows may as well be an end without a newline.
        self._owes_newline[stream] = self._in_piece[stream] and not is_line and len(data) < _PIECE_BYTES
        self._in_piece[stream] = not is_line and len(data) == _PIECE_BYTES
        self._put(stream, data)
        return not self.differs and not self._files.over

    def _put(self, stream: int, data: memoryview) -> None:
        offset = self._offsets[stream]
        self._offsets[stream] += len(data)
        known = min(len(data), max(0, self._files.sizes[stream] - offset))
        if known and self._files.read(stream, offset, known) != data[:known]:
            self.differs = True
        if not self.differs:
            self._files.append(stream, data[known:])
