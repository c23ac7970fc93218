"""The files of sessions on disk: ``<root>/<session-id>/<filename>``.

A file is written under a temporary name, synced, renamed, and its directory synced, so that what has a name is whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import trio

from bedrock.errors import BedrockError, InvalidInput
from bedrock.model import SessionId, StoredFile
from bedrock.volume import sync_directory

_INCOMING = ".incoming"
_MAX_NAME_BYTES = 200
# One hop to a thread costs as much as writing some hundred kilobytes.
_BATCH_BYTES = 1 << 20
_READ_BYTES = 256 << 10
_THREADS = 8
_CLEAN_UP_S = 10.0


class StorageFull(BedrockError):
    """There is no room for the file."""


def check_filename(name: str) -> str:
    """Return ``name`` when it may be a file's name in a session's directory; raise :class:`InvalidInput` otherwise."""
    if not name:
        raise InvalidInput("filename", "is empty")
    if "/" in name or "\\" in name:
        raise InvalidInput("filename", f"{name[:80]!r} contains a path; give a bare name")
    if name.startswith("."):
        raise InvalidInput("filename", f"{name[:80]!r} begins with a dot")
    if not name.isprintable():
        raise InvalidInput("filename", f"{name[:80]!r} contains characters that can't be printed")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise InvalidInput("filename", f"is longer than {_MAX_NAME_BYTES} bytes")
    return name


class FileWriter:
    """One file on its way in. Made by :meth:`ArtifactDir.receive`."""

    def __init__(self, file: BinaryIO, temporary: Path, final: Path, limiter: trio.CapacityLimiter) -> None:
        self._file = file
        self._temporary = temporary
        self._final = final
        self._limiter = limiter
        self._digest = hashlib.sha256()
        self._size = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    async def write(self, chunk: bytes) -> None:
        """Add bytes. Raises :class:`StorageFull`."""
        self._pending.append(chunk)
        self._pending_bytes += len(chunk)
        if self._pending_bytes >= _BATCH_BYTES:
            await self._flush()

    async def commit(self) -> StoredFile:
        """Make the file what its name stands for from now on. Raises :class:`StorageFull`."""
        await self._flush()

        def publish() -> None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._final.parent.mkdir(exist_ok=True)
            self._temporary.rename(self._final)
            sync_directory(self._final.parent)
            sync_directory(self._final.parent.parent)

        with _disk_errors():
            await trio.to_thread.run_sync(publish, limiter=self._limiter)
        return StoredFile(filename=self._final.name, size=self._size, sha256=self._digest.hexdigest())

    async def _flush(self) -> None:
        chunks, self._pending, self._pending_bytes = self._pending, [], 0

        def write() -> None:
            for chunk in chunks:
                self._digest.update(chunk)
                self._file.write(chunk)
                self._size += len(chunk)

        with _disk_errors():
            await trio.to_thread.run_sync(write, limiter=self._limiter)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StorageFull(f"the API's disk has no room for the file ({error.strerror})") from None
        raise


class ArtifactDir:
    """All sessions' files below ``root``, which is made when it is not there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / _INCOMING
        self._limiter = trio.CapacityLimiter(_THREADS)
        # What a crash left half-written has no name, and nobody waits for it any more.
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)

    def path(self, session_id: SessionId, filename: str) -> Path:
        return self._root / session_id / check_filename(filename)

    @asynccontextmanager
    async def receive(self, session_id: SessionId, filename: str) -> AsyncIterator[FileWriter]:
        """Take a file in. Unless the writer is committed, nothing of it stays."""
        final = self.path(session_id, filename)
        temporary = self._incoming / secrets.token_hex(16)
        file = await trio.to_thread.run_sync(lambda: temporary.open("xb"), limiter=self._limiter)
        try:
            yield FileWriter(file, temporary, final, self._limiter)
        finally:

            def clean_up() -> None:
                with contextlib.suppress(OSError):  # the last buffered bytes may not fit either
                    file.close()
                temporary.unlink(missing_ok=True)

            with trio.move_on_after(_CLEAN_UP_S, shield=True):
                await trio.to_thread.run_sync(clean_up, limiter=self._limiter)

    async def read(self, session_id: SessionId, filename: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes of ``[start, end)`` in chunks."""
        path = self.path(session_id, filename)
        file = await trio.to_thread.run_sync(lambda: path.open("rb"), limiter=self._limiter)
        try:
            file.seek(start)
            left = end - start
            while left > 0:
                chunk = await trio.to_thread.run_sync(file.read, min(_READ_BYTES, left), limiter=self._limiter)
                if not chunk:
                    return
                left -= len(chunk)
                yield chunk
        finally:
            file.close()

    async def read_all(self, session_id: SessionId, filename: str, *, limit: int) -> bytes:
        """Return a small file whole, at most its first ``limit`` bytes."""
        path = self.path(session_id, filename)

        def read() -> bytes:
            with path.open("rb") as file:
                return file.read(limit)

        return await trio.to_thread.run_sync(read, limiter=self._limiter)

    async def remove_session(self, session_id: SessionId) -> None:
        """Remove a session's files. That there are none is not an error."""
        path = self._root / session_id
        await trio.to_thread.run_sync(lambda: shutil.rmtree(path, ignore_errors=True), limiter=self._limiter)
