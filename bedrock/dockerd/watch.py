"""One reader of the engine's events for all sessions.

Events are hints, the engine's own answer is the truth: an event, a lost connection or the safety interval makes whoever
waits for a container look at it again. So it does not matter that the engine forgets events after 256, drops them for
slow readers, and loses them all when it restarts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
import trio

from bedrock.concurrency.backoff import backoff_delays
from bedrock.concurrency.service_nursery import open_service_nursery
from bedrock.dockerd.engine import Engine
from bedrock.dockerd.engine_values import ContainerMissing, ContainerState, EngineError, EngineUnavailable

log = structlog.get_logger(__name__)

_SAFETY_INTERVAL_S = 30.0
_RETRY_S = 1.0


class ContainerWatch:
    """Made by :func:`open_watch`."""

    def __init__(self, engine: Engine, labels: Mapping[str, str]) -> None:
        self._engine = engine
        self._labels = dict(labels)
        self._hints: dict[str, trio.Event] = {}

    async def wait_end(self, container: str) -> ContainerState | None:
        """Return a container's state once it has ended; None when it is gone.

        While the engine can't be reached this goes on waiting: a container is not over because nobody can be asked.
        """
        try:
            while True:
                hint = self._hints.setdefault(container, trio.Event())
                try:
                    state = await self._engine.inspect(container)
                except ContainerMissing:
                    return None
                except EngineUnavailable:
                    await self._engine.wait_back()
                    continue
                except EngineError as error:
                    log.warning("a container can't be looked at", container=container, error=str(error))
                    await trio.sleep(_RETRY_S)
                    continue
                if state.has_ended:
                    return state
                with trio.move_on_after(_SAFETY_INTERVAL_S):
                    await hint.wait()
        finally:
            self._hints.pop(container, None)

    def _hint(self, *names: str) -> None:
        for name in names:
            event = self._hints.pop(name, None)
            if event is not None:
                event.set()

    async def run(self) -> None:
        """Follow the engine's events until cancelled, through any number of lost connections."""
        delays = backoff_delays(0.1, 5.0)
        while True:
            try:
                async with self._engine.open_events(self._labels) as events:
                    # Whatever happened while nobody was listening must be looked at now.
                    self._hint(*list(self._hints))
                    async for batch in events:
                        delays = backoff_delays(0.1, 5.0)
                        if batch.overflowed:
                            self._hint(*list(self._hints))
                        for event in batch.items:
                            actor = event.get("Actor", {})
                            self._hint(actor.get("ID", ""), actor.get("Attributes", {}).get("name", ""))
            except EngineUnavailable:
                await self._engine.wait_back()
            except EngineError as error:
                log.warning("the engine's events can't be followed", error=str(error))
            self._hint(*list(self._hints))
            await trio.sleep(next(delays))


@asynccontextmanager
async def open_watch(engine: Engine, labels: Mapping[str, str]) -> AsyncIterator[ContainerWatch]:
    """Watch the containers that carry ``labels`` until the context is left."""
    watch = ContainerWatch(engine, labels)
    async with open_service_nursery() as services:
        services.start_soon(watch.run)
        yield watch
