"""What is computed from stored traces when it is asked for: summaries, reports, exports."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio

from bedrock.api.artifacts import ArtifactDir
from bedrock.api.problems import Problem
from bedrock.model import Session, SessionId, StoredFile
from bedrock.trace.blocks import TraceError
from bedrock.trace.decode import Trace
from bedrock.trace.export import Format, about_session, export
from bedrock.trace.image_files import read_image_files
from bedrock.trace.page import page_of
from bedrock.trace.report import report_of
from bedrock.trace.summary import summarise
from bedrock.untrusted import shortened

log = structlog.get_logger(__name__)

_KEPT = 64
_KEPT_BYTES = 64 << 20


class TraceReader:
    """Reads the traces of one artifact directory. All raise :class:`Problem` for what is not a trace."""

    def __init__(self, artifacts: ArtifactDir) -> None:
        self._artifacts = artifacts
        # Adding a large trace up takes a core for seconds; more of them at once would only starve the polls.
        self._limiter = trio.CapacityLimiter(1)
        self._kept: OrderedDict[tuple[SessionId, str, str], bytes] = OrderedDict()

    async def summary(self, session_id: SessionId, item: StoredFile) -> bytes:
        """The summary of a stored trace, as JSON."""
        path = self._artifacts.path(session_id, item.filename)
        key = (session_id, item.sha256, "summary")
        return await self._keep(path, key, lambda: msgspec.json.encode(summarise(path)))

    async def report(
        self, session: Session, item: StoredFile, image_files: StoredFile | None, *, as_page: bool
    ) -> bytes:
        """The report on a stored trace: a page for people, or the same as JSON. ``image_files`` is optional."""
        path = self._artifacts.path(session.id, item.filename)
        listing = None if image_files is None else self._artifacts.path(session.id, image_files.filename)

        def make() -> bytes:
            found = report_of(path, session, None if listing is None else read_image_files(listing))
            return page_of(found).encode() if as_page else msgspec.json.encode(found)

        # The session's own state is in the report, so it is part of the key.
        kind = f"{'page' if as_page else 'json'} {session.status} {session.logs.state}"
        return await self._keep(path, (session.id, item.sha256, kind), make)

    def export(self, session: Session, item: StoredFile, wanted: Format) -> AsyncIterator[bytes]:
        """A stored trace in another format, piece by piece. What is no trace is refused before the first piece."""
        path = self._artifacts.path(session.id, item.filename)
        with _readable(path):
            Trace(path)
        about = about_session(session)

        async def stream() -> AsyncIterator[bytes]:
            pieces = export(path, wanted, about)
            while True:
                # One hop for each piece: whoever reads slowly holds nobody up.
                piece: bytes | None = await trio.to_thread.run_sync(_next_of, pieces, limiter=self._limiter)
                if piece is None:
                    return
                if piece:
                    yield piece

        return stream()

    async def _keep(self, path: Path, key: tuple[SessionId, str, str], make: Callable[[], bytes]) -> bytes:
        if key not in self._kept:
            with _readable(path):
                made = await trio.to_thread.run_sync(make, limiter=self._limiter)
            self._kept[key] = made
            while len(self._kept) > _KEPT or (len(self._kept) > 1 and self._size() > _KEPT_BYTES):
                self._kept.popitem(last=False)
            return made
        self._kept.move_to_end(key)
        return self._kept[key]

    def _size(self) -> int:
        return sum(len(content) for content in self._kept.values())


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whoever uploaded a file that is not a trace, or a damaged one, learns why, and not where it lies here."""
    try:
        yield
    except TraceError as error:
        raise Problem(422, str(error).replace(str(path), path.name)) from None
    except (ArithmeticError, LookupError, ValueError, MemoryError) as error:
        # What numbers a forged trace may hold is endless; that they make no sense shows in the arithmetic.
        log.exception("trace can't be read", path=str(path))
        raise Problem(422, f"{path.name} is damaged: {shortened(repr(error))}") from None


def _next_of(pieces: Any) -> bytes | None:
    piece: bytes | None = next(pieces, None)
    return piece
