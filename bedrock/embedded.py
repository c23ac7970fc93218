"""All of Bedrock in one process: what `bedrock up` runs, and the self-test of `bedrock doctor` for a moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import trio

from bedrock.api.service import open_api
from bedrock.dockerd.service import open_dockerd
from bedrock.filemd.watch import Carrier, open_filemd
from bedrock.settings import Settings, reachable_host

# How long the end waits for the last uploads.
_FAREWELL_S = 30.0


@asynccontextmanager
async def open_bedrock(settings: Settings) -> AsyncIterator[str]:
    """Run an API, a DockerD and a FileMD until the context is left; yield the API's URL.

    Ports may be 0, which means any. Leaving stops the sessions that run, and brings their files home first.
    """
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(open_api(settings))
        # The other two are told which ports they became.
        host, _, port = api.socket_endpoint.removeprefix("tcp://").rpartition(":")
        settings = replace(
            settings,
            dockerd=replace(settings.dockerd, api_socket_host=reachable_host(host), api_socket_port=int(port)),
            filemd=replace(settings.filemd, api_url=api.url),
        )
        carrier = await stack.enter_async_context(open_filemd(settings))
        stack.push_async_callback(_bring_home, carrier)
        await stack.enter_async_context(open_dockerd(settings, stops_sessions=True))
        yield api.url


async def _bring_home(carrier: Carrier) -> None:
    """Carry what the sessions left to the API before that goes, too; the next start carries the rest."""
    with trio.move_on_after(_FAREWELL_S):
        await carrier.look()
        await carrier.wait_idle()
