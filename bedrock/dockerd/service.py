"""One DockerD: the engine, the watch, the sessions and the poll, in one nursery."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
import trio

from bedrock.concurrency.inotify import open_inotify
from bedrock.concurrency.service_nursery import open_service_nursery
from bedrock.concurrency.sockets import open_dealer
from bedrock.dockerd.adopt import find_adoptable
from bedrock.dockerd.agent import Agent
from bedrock.dockerd.containers import LABEL_NODE, ForeignNeeds
from bedrock.dockerd.engine import open_engine
from bedrock.dockerd.host import Host
from bedrock.dockerd.host_tracer import open_host_tracer
from bedrock.dockerd.image_files import open_image_listings
from bedrock.dockerd.images import open_images
from bedrock.dockerd.ledger import open_ledger
from bedrock.dockerd.output import open_outputs
from bedrock.dockerd.poll import Poller
from bedrock.dockerd.tracing import tracer_image
from bedrock.dockerd.watch import open_watch
from bedrock.model import TraceSpec
from bedrock.ownership import sole_owner
from bedrock.settings import Settings

log = structlog.get_logger(__name__)

# How long a DockerD that has stopped its sessions waits for the API to hear of it.
_FAREWELL_S = 5.0
# What sessions that are just being torn down are given when their DockerD goes; a successor does the rest.
_TEARDOWN_S = 10.0
# What ending sessions takes at most when it is to be done at once; what is not done then is left to a successor.
_AT_ONCE_S = 2.5
# What each of the last calls to the engine may take, which otherwise has minutes, and what it may take at once.
_LAST_CALLS_S = 10.0
_LAST_CALLS_AT_ONCE_S = 1.5


@asynccontextmanager
async def open_dockerd(settings: Settings, *, stops_sessions: bool = False) -> AsyncIterator[Agent]:
    """Run one DockerD until the context is left.

    It yields when this node has taken up what its predecessor left and begins to poll. Leaving it leaves the sessions
    running for a successor, unless ``stops_sessions``: then they are stopped, and the API is told. Cancelling that, or
    an error of the body, means at once: sessions are killed without their grace, and what can't be brought to its end
    within a few seconds is taken up again by a successor.
    """
    own = settings.dockerd
    directory = settings.common.data_dir / "dockerd" / own.name
    async with AsyncExitStack() as stack:
        stack.enter_context(
            sole_owner(
                directory / "lock",
                f"a DockerD of the name {own.name!r} is already running with this data_dir; "
                "stop it, or give this one another name ([dockerd] name)",
            )
        )
        settings.volumes_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        engine = await stack.enter_async_context(open_engine(own.docker_host))
        info = await engine.info()
        tracer = await tracer_image(
            engine, own.bedrock_tracer_image, directory, node=own.name, docker_host=own.docker_host,
            machine=str(info.get("Architecture", "")),
        )  # fmt: skip
        watch = await stack.enter_async_context(open_watch(engine, {LABEL_NODE: own.name}))
        host_tracer = None
        if tracer.is_ours:
            host_tracer = await stack.enter_async_context(
                open_host_tracer(
                    engine, watch, tracer.info, node=own.name, directory=directory / "tracers",
                    volumes_dir=settings.volumes_dir, ring_bytes=own.tracer_ring, start_timeout_s=own.tracer_timeout,
                )
            )  # fmt: skip
        host = Host(
            node=own.name,
            engine=engine,
            engine_version=str(info.get("ServerVersion", "")),
            kernel=str(info.get("KernelVersion", "")),
            images=await stack.enter_async_context(open_images(engine, pull_timeout_s=own.pull_timeout)),
            listings=await stack.enter_async_context(open_image_listings(engine, directory / "images", node=own.name)),
            watch=watch,
            inotify=await stack.enter_async_context(open_inotify()),
            tracer=tracer,
            host_tracer=host_tracer,
            ledger=await open_ledger(directory / "ended"),
            stop_grace_s=own.stop_grace,
            engine_timeout_s=own.engine_timeout,
            tracer_timeout_s=own.tracer_timeout,
            tracer_ring_bytes=own.tracer_ring,
            tracing=TraceSpec(mode=own.trace_mode, max_size=own.trace_max_size),
            outputs=await stack.enter_async_context(open_outputs(engine)),
            max_output=own.max_output,
            foreign=ForeignNeeds(capabilities=own.other_tracer_capabilities, binds=own.other_tracer_binds),
            foreign_delay_s=own.other_tracer_delay,
        )
        adopted = await find_adoptable(engine, own.name, settings.volumes_dir)
        if host_tracer is not None:
            await host_tracer.end_all_but({item.record.session_id for item in adopted})
        endpoint = f"tcp://{own.api_socket_host}:{own.api_socket_port}"
        socket = await stack.enter_async_context(open_dealer(endpoint, identity=own.name.encode()))
        async with open_service_nursery() as services:
            agent = Agent(host, settings.volumes_dir, services)
            for item in adopted:
                agent.begin(item.record, item.volume, item.step)
            poller = Poller(agent, socket, own.name, slots=own.slots, wait_s=own.pull_interval)
            services.start_soon(poller.receive)
            services.start_soon(poller.run)
            log.info("DockerD ready", node=own.name, engine=host.engine_version, api=endpoint, adopted=len(adopted))
            try:
                yield agent
                await _leave(agent, stops_sessions=stops_sessions)
                engine.hurry(_LAST_CALLS_S)
            except BaseException:
                if stops_sessions:
                    with trio.move_on_after(_AT_ONCE_S, shield=True):
                        await agent.stop_all(at_once=True)
                        await agent.wait_acknowledged()
                engine.hurry(_LAST_CALLS_AT_ONCE_S)
                raise


async def _leave(agent: Agent, *, stops_sessions: bool) -> None:
    if stops_sessions:
        await agent.stop_all()
        with trio.move_on_after(_FAREWELL_S):
            await agent.wait_acknowledged()
    else:
        with trio.move_on_after(_TEARDOWN_S):
            await agent.wait_settled()
