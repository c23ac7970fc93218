"""One API: the store, the coordinator, the nodes' socket and the REST server, each inside the one before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import structlog
import trio
import uuid_utils

from bedrock.api.app import make_app
from bedrock.api.artifacts import ArtifactDir
from bedrock.api.coordinator import open_coordinator
from bedrock.api.dispatch import open_dispatcher
from bedrock.api.metrics import ApiMetrics
from bedrock.api.server import open_http_server
from bedrock.kv import open_store
from bedrock.settings import Settings

log = structlog.get_logger(__name__)


class Api(NamedTuple):
    """Where a running API can be reached. Whoever ends what it works for sets ``leaving``."""

    url: str
    socket_endpoint: str
    leaving: trio.Event


@asynccontextmanager
async def open_api(settings: Settings) -> AsyncIterator[Api]:
    """Run the API until the context is left. Ports that are taken and files that can't be opened are named."""
    own = settings.api
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(own.store_url))
        metrics = ApiMetrics()
        coordinator = await stack.enter_async_context(
            open_coordinator(store, metrics, node_timeout_s=own.node_timeout, node_lost_after_s=own.node_lost_after)
        )
        dispatcher = await stack.enter_async_context(
            open_dispatcher(coordinator, f"tcp://{own.socket_host}:{own.socket_port}", boot=str(uuid_utils.uuid4()))
        )
        artifacts = ArtifactDir(settings.common.data_dir / "api" / "artifacts")
        stopping = trio.Event()
        leaving = trio.Event()
        parts = {"the store": coordinator.sessions.check, "the nodes' socket": dispatcher.check}
        app = make_app(
            coordinator, artifacts, parts=parts, max_upload=own.max_upload, stopping=stopping, leaving=leaving
        )
        server = await stack.enter_async_context(
            open_http_server(
                app,
                host=own.http_host,
                port=own.http_port,
                max_connections=own.max_connections,
                graceful_timeout_s=own.graceful_timeout,
                stopping=stopping,
            )
        )
        log.info("API ready", url=server.url, nodes=dispatcher.endpoint)
        yield Api(server.url, dispatcher.endpoint, leaving)
