"""Summaries of stored traces, computed when they are asked for and kept for a while."""

from __future__ import annotations

from collections import OrderedDict

import msgspec
import trio

from bedrock.api.artifacts import ArtifactDir
from bedrock.model import SessionId, StoredFile
from bedrock.trace.summary import summarise

_KEPT = 64


class TraceReader:
    """Reads the traces of one artifact directory."""

    def __init__(self, artifacts: ArtifactDir) -> None:
        self._artifacts = artifacts
        # Adding a large trace up takes a core for seconds; more of them at once would only starve the polls.
        self._limiter = trio.CapacityLimiter(1)
        self._summaries: OrderedDict[tuple[SessionId, str], bytes] = OrderedDict()

    async def summary(self, session_id: SessionId, item: StoredFile) -> bytes:
        """The summary of a stored trace, as JSON. Raises :class:`bedrock.trace.decode.TraceError`."""
        key = (session_id, item.sha256)
        path = self._artifacts.path(session_id, item.filename)
        if key not in self._summaries:
            encoded = await trio.to_thread.run_sync(lambda: msgspec.json.encode(summarise(path)), limiter=self._limiter)
            self._summaries[key] = encoded
            while len(self._summaries) > _KEPT:
                self._summaries.popitem(last=False)
        return self._summaries[key]
