"""The ends that the API has not acknowledged yet, kept on disk until it has.

A session's volume may be uploaded and gone long before the API is told how the session ended, so the report needs a
place of its own: one small file an end under ``<data_dir>/dockerd/<node>/ended/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from bedrock.errors import BedrockError
from bedrock.lifecycle import Outcome
from bedrock.model import SessionId
from bedrock.volume import write_durably

log = structlog.get_logger(__name__)


class Ledger:
    """Outcomes by session, in memory and on disk. The methods block for one small write."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._outcomes: dict[SessionId, Outcome] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BedrockError(f"{directory} can't be made: {error.strerror}") from None
        for path in directory.glob("*.json"):
            try:
                self._outcomes[SessionId(path.stem)] = msgspec.json.decode(path.read_bytes(), type=Outcome)
            except (OSError, msgspec.DecodeError) as error:
                log.warning("unreadable end of a session is left aside", path=str(path), error=str(error))

    @property
    def outcomes(self) -> Mapping[SessionId, Outcome]:
        return self._outcomes

    def add(self, session_id: SessionId, outcome: Outcome) -> None:
        write_durably(self._directory / f"{session_id}.json", msgspec.json.encode(outcome))
        self._outcomes[session_id] = outcome

    def acknowledge(self, session_id: SessionId) -> None:
        """The API has stored this end. One that is not in the ledger is not an error: acknowledgements repeat."""
        if self._outcomes.pop(session_id, None) is not None:
            (self._directory / f"{session_id}.json").unlink(missing_ok=True)
