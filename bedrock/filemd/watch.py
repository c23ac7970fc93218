"""FileMD: notices that a volume has been unlocked, and sees to it that it comes home.

The kernel's notifications make it quick, a rescan makes it certain.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
import trio

from bedrock.client import Client, open_client
from bedrock.concurrency.backoff import backoff_delays
from bedrock.concurrency.inotify import Inotify, open_inotify
from bedrock.concurrency.service_nursery import ServiceNursery, open_service_nursery
from bedrock.errors import BedrockError, InvalidInput
from bedrock.filemd.upload import DONE_PREFIX, UnknownToApi, remove_volume, set_aside, upload_volume
from bedrock.model import SessionId, parse_session_id
from bedrock.ownership import sole_owner
from bedrock.settings import Settings
from bedrock.volume import LOCK, MANIFEST

log = structlog.get_logger(__name__)

_UPLOADS_AT_ONCE = 4
_RETRY_FIRST_S = 0.2


class Carrier:
    """Brings finished volumes home, a few at a time, each until it is done. Made by :func:`open_filemd`."""

    def __init__(self, client: Client, settings: Settings, services: ServiceNursery) -> None:
        self._client = client
        self._volumes_dir = settings.volumes_dir
        self._unclaimed_dir = settings.common.data_dir / "unclaimed"
        self._rescan_s = settings.filemd.poll_interval
        self._retry_max_s = settings.filemd.retry_max
        self._services = services
        self._limiter = trio.CapacityLimiter(_UPLOADS_AT_ONCE)
        self._carried: set[SessionId] = set()
        self._no_more = trio.Event()

    async def run(self, inotify: Inotify) -> None:
        """Watch the volumes until cancelled."""
        async with inotify.watching_tree(self._volumes_dir) as changed:
            while True:
                await self.look()
                with trio.move_on_after(self._rescan_s):
                    await changed.wait()

    async def look(self) -> None:
        """Take up every volume that is ready and not being carried already."""
        for session_id in await trio.to_thread.run_sync(lambda: list(_finished_volumes(self._volumes_dir))):
            if session_id not in self._carried:
                self._carried.add(session_id)
                self._services.start_soon(self._carry, session_id)

    async def carry_all(self) -> None:
        """Return when every volume that is ready now has been carried."""
        await self.look()
        while self._carried:
            self._no_more = trio.Event()
            await self._no_more.wait()

    async def _carry(self, session_id: SessionId) -> None:
        path = self._volumes_dir / session_id
        delays = backoff_delays(_RETRY_FIRST_S, self._retry_max_s)
        with structlog.contextvars.bound_contextvars(session=session_id):
            for delay in delays:
                if await self._try(path):
                    break
                await trio.sleep(delay)
        self._carried.discard(session_id)
        if not self._carried:
            self._no_more.set()

    async def _try(self, path: Path) -> bool:
        """One attempt. Returns whether the volume needs no other."""
        try:
            async with self._limiter:
                await upload_volume(self._client, path)
            await trio.to_thread.run_sync(remove_volume, path)
        except UnknownToApi as error:
            kept = await trio.to_thread.run_sync(set_aside, path, self._unclaimed_dir)
            log.error("volume kept aside", path=str(kept), error=str(error))
        except (BedrockError, OSError) as error:
            log.warning("upload failed; it is tried again", error=str(error))
            return False
        else:
            log.info("volume is home")
        return True


def _finished_volumes(volumes_dir: Path) -> Iterator[SessionId]:
    """Unlocked directories with a manifest: one without may have been made a moment ago, before its lock."""
    for path in sorted(volumes_dir.iterdir()):
        try:
            session_id = parse_session_id(path.name)
        except InvalidInput:
            continue
        if (path / MANIFEST).exists() and not (path / LOCK).exists():
            yield session_id


@asynccontextmanager
async def open_filemd(settings: Settings) -> AsyncIterator[Carrier]:
    """Bring finished volumes to the API until the context is left; what is under way then is done again later."""
    settings.volumes_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    data_dir = settings.common.data_dir
    with sole_owner(data_dir / "filemd.lock", f"a FileMD is already running with data_dir {data_dir}; one is enough"):
        for leftover in settings.volumes_dir.glob(f"{DONE_PREFIX}*"):
            await trio.to_thread.run_sync(partial(shutil.rmtree, leftover, ignore_errors=True))
        async with (
            open_client(settings.filemd.api_url) as client,
            open_inotify() as inotify,
            open_service_nursery() as services,
        ):
            carrier = Carrier(client, settings, services)
            services.start_soon(carrier.run, inotify)
            log.info("FileMD ready", volumes=str(settings.volumes_dir), api=settings.filemd.api_url)
            yield carrier
