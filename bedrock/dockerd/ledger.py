"""The ends that the API has not acknowledged yet, kept on disk until it has.

A session's volume may be uploaded and gone long before the API is told how the session ended, so the report needs a
place of its own: one small file an end under ``<data_dir>/dockerd/<node>/ended/``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec
import structlog
import trio

from bedrock.errors import BedrockError
from bedrock.lifecycle import Outcome
from bedrock.model import SessionId
from bedrock.untrusted import MalformedJson, decode_json
from bedrock.volume import write_durably

log = structlog.get_logger(__name__)

_MAX_BYTES = 16 << 20


class Ledger:
    """Outcomes by session, in memory and on disk. Made by :func:`open_ledger`.

    Only Trio's thread touches what is in memory; the files are written and removed in other threads.
    """

    def __init__(self, directory: Path, outcomes: Mapping[SessionId, Outcome]) -> None:
        self._directory = directory
        self._outcomes = dict(outcomes)

    @property
    def outcomes(self) -> Mapping[SessionId, Outcome]:
        return self._outcomes

    async def add(self, session_id: SessionId, outcome: Outcome) -> None:
        """Keep how a session ended; it is on disk when this returns. Raises OSError where it can't be written."""
        await trio.to_thread.run_sync(write_durably, self._path(session_id), msgspec.json.encode(outcome))
        self._outcomes[session_id] = outcome

    async def acknowledge(self, session_ids: Collection[SessionId]) -> None:
        """The API has stored these ends. One that is not in the ledger is not an error: acknowledgements repeat."""
        paths = [self._path(session_id) for session_id in session_ids if session_id in self._outcomes]
        for session_id in session_ids:
            self._outcomes.pop(session_id, None)

        def remove() -> None:
            for path in paths:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    # After a restart it is reported, and acknowledged, once more.
                    log.warning("the end of a session can't be removed", path=str(path), error=str(error))

        if paths:
            await trio.to_thread.run_sync(remove)

    def _path(self, session_id: SessionId) -> Path:
        return self._directory / f"{session_id}.json"


async def open_ledger(directory: Path) -> Ledger:
    """Read the ledger that is kept in ``directory``, which is made when it is not there."""

    def read() -> dict[SessionId, Outcome]:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BedrockError(f"{directory} can't be made: {error.strerror}") from None
        return dict(_read_all(directory))

    return Ledger(directory, await trio.to_thread.run_sync(read))


def _read_all(directory: Path) -> Iterator[tuple[SessionId, Outcome]]:
    for path in directory.glob("*.json"):
        try:
            yield SessionId(path.stem), decode_json(path.read_bytes(), Outcome, max_bytes=_MAX_BYTES)
        except (OSError, MalformedJson) as error:
            log.warning("unreadable end of a session is left aside", path=str(path), error=str(error))
