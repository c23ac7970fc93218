"""Images: present, or pulled once for all who wait for the same one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
import trio

from bedrock.concurrency.service_nursery import ServiceNursery, open_service_nursery
from bedrock.dockerd.engine import Engine
from bedrock.dockerd.engine_values import EngineError, EngineUnavailable, ImageInfo, ImageMissing, PullFailed

log = structlog.get_logger(__name__)

_PULLS_AT_ONCE = 3


class _Pull:
    """One fetch that is under way, and those who wait for it."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.error: EngineError | None = None
        self.listeners: list[Callable[[str], None]] = []


class Images:
    """Made by :func:`open_images`."""

    def __init__(self, engine: Engine, services: ServiceNursery, *, pull_timeout_s: float) -> None:
        self._engine = engine
        self._services = services
        self._pull_timeout_s = pull_timeout_s
        self._limiter = trio.CapacityLimiter(_PULLS_AT_ONCE)
        self._pulls: dict[str, _Pull] = {}

    async def ensure(self, name: str, on_progress: Callable[[str], None]) -> ImageInfo:
        """Return the image, pulling it when it is not on this host.

        Raises :class:`ImageMissing` when it is not to be had, :class:`PullFailed` when fetching it failed or took too
        long. A fetch goes on while at least one caller waits for it, and ends with the last one's cancellation.
        """
        try:
            return await self._engine.image(name)
        except ImageMissing:
            pass
        pull = self._pulls.get(name)
        if pull is None:
            pull = self._pulls[name] = _Pull()
            self._services.start_soon(self._run, name, pull)
        pull.listeners.append(on_progress)
        on_progress(f"pulling {name}")
        try:
            await pull.done.wait()
        finally:
            pull.listeners.remove(on_progress)
            if not pull.listeners and not pull.done.is_set():
                self._pulls.pop(name, None)
                pull.scope.cancel()
        if pull.error is not None:
            raise pull.error
        try:
            return await self._engine.image(name)
        except ImageMissing:
            # The stream of an engine that goes away ends as one does that is complete.
            raise EngineUnavailable(f"pulling {name} broke off") from None

    async def _run(self, name: str, pull: _Pull) -> None:
        try:
            with pull.scope:
                try:
                    with trio.fail_after(self._pull_timeout_s):
                        async with self._limiter:
                            log.info("pulling image", image=name)
                            await self._fetch(name, pull)
                            log.info("image pulled", image=name)
                except trio.TooSlowError:
                    pull.error = PullFailed(f"pulling {name} took longer than {self._pull_timeout_s:.0f} s")
                except EngineError as error:
                    pull.error = error
                except Exception as error:
                    # A defect in this must not take the node down.
                    log.exception("pulling an image failed", image=name)
                    pull.error = PullFailed(f"pulling {name} failed: {error!r}")
        finally:
            if self._pulls.get(name) is pull:
                del self._pulls[name]
            pull.done.set()

    async def _fetch(self, name: str, pull: _Pull) -> None:
        layers: dict[str, tuple[int, int]] = {}
        async with self._engine.open_pull(name) as messages:
            try:
                async for batch in messages:
                    for message in batch.items:
                        if "error" in message:
                            raise _refusal(name, str(message["error"]), has_begun=bool(layers))
                        _count(message, layers)
                    if layers:
                        text = f"pulling {name}: {_progress(layers)}"
                        for listener in pull.listeners:
                            listener(text)
            except (ImageMissing, PullFailed, EngineUnavailable):
                raise
            except EngineError as error:
                raise _refusal(name, str(error), has_begun=bool(layers)) from None


def _refusal(name: str, sentence: str, *, has_begun: bool) -> EngineError:
    if has_begun:
        return PullFailed(f"pulling {name} failed: {sentence}")
    return ImageMissing(f"image {name} is not on this host and could not be pulled: {sentence}")


def _count(message: dict[str, Any], layers: dict[str, tuple[int, int]]) -> None:
    detail = message.get("progressDetail") or {}
    if message.get("status") == "Downloading" and detail.get("total"):
        layers[message["id"]] = (detail["current"], detail["total"])
    elif message.get("status") in {"Download complete", "Pull complete"} and message.get("id") in layers:
        total = layers[message["id"]][1]
        layers[message["id"]] = (total, total)


def _progress(layers: dict[str, tuple[int, int]]) -> str:
    done, total = (sum(pair[index] for pair in layers.values()) for index in (0, 1))
    return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"


@asynccontextmanager
async def open_images(engine: Engine, *, pull_timeout_s: float) -> AsyncIterator[Images]:
    """Yield the images of one engine; leaving the context ends the pulls that are under way."""
    async with open_service_nursery() as services:
        yield Images(engine, services, pull_timeout_s=pull_timeout_s)
