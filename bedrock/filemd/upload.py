"""One finished volume: brought to the API file by file, compared, and only then removed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import structlog
import trio

from bedrock.client import ApiError, Client
from bedrock.errors import BedrockError
from bedrock.model import LogsState, StoredFile
from bedrock.untrusted import MalformedJson, decode_json
from bedrock.volume import MANIFEST, MAX_MANIFEST_BYTES, Manifest

log = structlog.get_logger(__name__)

DONE_PREFIX = ".done-"


class UploadFailed(BedrockError):
    """A volume is not home yet; another try may succeed."""


class UnknownToApi(BedrockError):
    """The API has no session of this id, so nobody there wants the volume."""


async def upload_volume(client: Client, path: Path) -> None:
    """Upload what the manifest names and the API does not have yet, then the manifest itself.

    Returns once the API says that it has all of it, with the same checksums. Raises :class:`UploadFailed`,
    :class:`UnknownToApi` or what the client raises; the volume is as it was then, and a later try goes on from there.
    """
    manifest = await trio.to_thread.run_sync(_read_manifest, path / MANIFEST)
    try:
        stored = {item.filename: item for item in await _stored_files(client, path.name)}
        # The smallest first: what the API does not know is found out before much has been sent.
        for item in sorted(manifest.files, key=lambda item: item.size):
            if stored.get(item.filename) != item:
                await _upload_file(client, path / item.filename, item)
        receipt = await client.upload(path.name, path / MANIFEST)
    except ApiError as error:
        if error.status == 404:
            raise UnknownToApi(f"the API does not know session {path.name}") from None
        raise
    if receipt.logs is not LogsState.COMPLETE:
        raise UploadFailed(f"the API does not have all files of session {path.name} yet ({receipt.logs})")


async def _stored_files(client: Client, session_id: str) -> Sequence[StoredFile]:
    """What the API has. It may say 404 where it has nothing yet; whether it knows the session, the upload shows."""
    try:
        return await client.files(session_id)
    except ApiError as error:
        if error.status == 404:
            return []
        raise


async def _upload_file(client: Client, path: Path, expected: StoredFile) -> None:
    try:
        receipt = await client.upload(path.parent.name, path)
    except OSError as error:
        raise UploadFailed(f"{path} can't be read: {error.strerror}") from None
    if receipt.files != [expected]:
        raise UploadFailed(f"{path.name} arrived as {receipt.files}, but the manifest has {expected}")


def _read_manifest(path: Path) -> Manifest:
    try:
        return decode_json(path.read_bytes(), Manifest, max_bytes=MAX_MANIFEST_BYTES)
    except (OSError, MalformedJson) as error:
        raise UploadFailed(f"{path} can't be read: {error}") from None


def remove_volume(path: Path) -> None:
    """Remove an uploaded volume. The rename comes first: half a volume must never look like one to be uploaded."""
    done = path.with_name(DONE_PREFIX + path.name)
    path.rename(done)
    shutil.rmtree(done, ignore_errors=True)


def set_aside(path: Path, unclaimed_dir: Path) -> Path:
    """Keep a volume that the API does not want where a person can find it."""
    unclaimed_dir.mkdir(parents=True, exist_ok=True)
    kept = unclaimed_dir / path.name
    path.rename(kept)
    return kept
