"""Uploads: from the parts of a request to stored files, and how complete a session's files are then."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from contextlib import AsyncExitStack

import trio

from bedrock.api.artifacts import ArtifactDir, FileWriter
from bedrock.api.coordinator import Coordinator
from bedrock.api.multipart import PartBegin, PartData, iter_parts
from bedrock.api.problems import Problem
from bedrock.model import Logs, LogsState, SessionId, StoredFile
from bedrock.untrusted import MalformedJson, decode_json, shortened
from bedrock.volume import MANIFEST, MAX_MANIFEST_BYTES, Manifest


class Uploads:
    """Takes files in for the sessions of one API."""

    def __init__(self, coordinator: Coordinator, artifacts: ArtifactDir) -> None:
        self._coordinator = coordinator
        self._artifacts = artifacts
        self._locks: dict[SessionId, tuple[trio.Lock, int]] = {}

    async def receive(
        self, session_id: SessionId, body: AsyncIterable[bytes], content_type: str | None
    ) -> list[StoredFile]:
        """Store every part of an upload under its file name (or, without one, its field's name).

        Each file is stored and recorded by itself, as soon as it is whole: what came before a broken connection need
        not be sent again. Raises :class:`Problem`, :class:`UnknownSession`, :class:`InvalidInput`,
        :class:`StorageFull`.
        """
        await self._coordinator.sessions.get(session_id)
        stored: list[StoredFile] = []
        async with AsyncExitStack() as stack:
            writer: FileWriter | None = None
            async for event in iter_parts(body, content_type):
                if isinstance(event, PartBegin):
                    name = event.filename or event.field
                    writer = await stack.enter_async_context(self._artifacts.receive(session_id, name))
                elif writer is None:
                    raise Problem(400, "the upload has data outside of any part")
                elif isinstance(event, PartData):
                    await writer.write(event.data)
                else:
                    stored.append(await self._publish(session_id, writer))
                    await stack.pop_all().aclose()
                    writer = None
        if not stored:
            raise Problem(400, "the upload holds no file; send at least one part, as in curl -F file=@NAME")
        return stored

    async def _publish(self, session_id: SessionId, writer: FileWriter) -> StoredFile:
        # Two uploads of one name: what is on disk and what the store says of it must be of the same one.
        lock, users = self._locks.get(session_id, (trio.Lock(), 0))
        self._locks[session_id] = (lock, users + 1)
        try:
            async with lock:
                item = await writer.commit()
                known = {known.filename: known for known in await self._coordinator.sessions.files(session_id)}
                known[item.filename] = item
                logs = await self._judge(session_id, known.values())
                await self._coordinator.file_stored(session_id, item, logs)
                return item
        finally:
            lock, users = self._locks[session_id]
            if users == 1:
                del self._locks[session_id]
            else:
                self._locks[session_id] = (lock, users - 1)

    async def _judge(self, session_id: SessionId, files: Iterable[StoredFile]) -> Logs:
        """How complete a session's files are, by the manifest that comes with them."""
        known = {item.filename: item for item in files}
        size = sum(item.size for item in known.values())
        if MANIFEST not in known:
            return Logs(state=LogsState.STORED, files=len(known), size=size)
        content = await self._artifacts.read_all(session_id, MANIFEST, limit=MAX_MANIFEST_BYTES + 1)
        try:
            manifest = decode_json(content, Manifest, max_bytes=MAX_MANIFEST_BYTES)
        except MalformedJson as error:
            return Logs(state=LogsState.STORED, files=len(known), size=size, message=f"unreadable manifest: {error}")
        wrong = [item.filename for item in manifest.files if known.get(item.filename) != item]
        if wrong:
            message = f"not as the manifest has them, or missing: {', '.join(map(shortened, wrong[:10]))}"
            return Logs(state=LogsState.STORED, files=len(known), size=size, message=message)
        return Logs(state=LogsState.COMPLETE, files=len(known), size=size)
