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

# How long the end waits for the last uploads, and how long when it is to come at once.
_FAREWELL_S = 30.0
_FAREWELL_AT_ONCE_S = 0.7


@asynccontextmanager
async def open_bedrock(settings: Settings) -> AsyncIterator[str]:
    """Run an API, a DockerD and a FileMD until the context is left; yield the API's URL.

    Ports may be 0, which means any. Leaving stops the sessions that run, and brings their files home first. Cancelling
    it, also while it is being left, and an error of the body mean at once: a few seconds at most.
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
        await stack.enter_async_context(_bringing_home(carrier))
        await stack.enter_async_context(open_dockerd(settings, stops_sessions=True))
        try:
            yield api.url
        finally:
            api.leaving.set()


@asynccontextmanager
async def _bringing_home(carrier: Carrier) -> AsyncIterator[None]:
    """At the end, carry what the sessions left to the API before that goes, too; the next start carries the rest."""
    try:
        yield
        with trio.move_on_after(_FAREWELL_S):
            await carrier.carry_all()
    except BaseException:
        with trio.move_on_after(_FAREWELL_AT_ONCE_S, shield=True):
            await carrier.carry_all()
        raise
