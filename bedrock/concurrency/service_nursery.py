"""A nursery whose tasks serve the body of its block, and so outlive it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio

from bedrock.concurrency.nursery import open_hidden_nursery


class ServiceNursery:
    """Made by :func:`open_service_nursery`. Starts tasks as :class:`trio.Nursery` does."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scopes: set[trio.CancelScope] = set()
        self._body_is_done = False

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run a task until the body is done. One that is started later than that is cancelled at once."""
        self._nursery.start_soon(self._serve, function, args)

    async def start(self, function: Callable[..., Awaitable[object]], *args: object) -> Any:
        """Run a task, wait until it calls ``task_status.started``, and return what it hands over there.

        An error of the task before that is raised here. When the caller is cancelled before that, so is the task.
        """
        start = _Start()
        self._nursery.start_soon(self._serve_from_start, function, args, start)
        try:
            await start.settled.wait()
        except trio.Cancelled:
            start.scope.cancel()
            raise
        if start.error is not None:
            raise start.error
        return start.value

    async def _serve(self, function: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        with self._own_scope():
            await function(*args)

    async def _serve_from_start(
        self, function: Callable[..., Awaitable[object]], args: tuple[object, ...], start: _Start
    ) -> None:
        with self._own_scope(), start.scope:
            try:
                await function(*args, task_status=start)
            except Exception as error:
                if start.settled.is_set() or start.scope.cancel_called:
                    raise
                start.error = error
            else:
                if not start.settled.is_set() and not start.scope.cancel_called:
                    start.error = RuntimeError("the task ended without calling task_status.started()")
            finally:
                start.settled.set()

    @contextmanager
    def _own_scope(self) -> Iterator[None]:
        with trio.CancelScope(shield=True) as scope:
            if self._body_is_done:
                scope.cancel()
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    def _end(self) -> None:
        self._body_is_done = True
        for scope in self._scopes:
            scope.cancel()


class _Start(trio.TaskStatus[Any]):
    """One task that is being started. ``settled`` is set when that has succeeded or failed."""

    def __init__(self) -> None:
        self.settled = trio.Event()
        self.scope = trio.CancelScope()
        self.value: Any = None
        self.error: Exception | None = None

    def started(self, value: Any = None) -> None:
        self.value = value
        self.settled.set()


@asynccontextmanager
async def open_service_nursery() -> AsyncIterator[ServiceNursery]:
    """A nursery for tasks that the body depends on, also while the body is being cancelled.

    A cancellation from outside reaches the body alone. The tasks go on until the body is done, however long its
    clean-up takes and however it ends; then they are cancelled. A task that fails cancels the body at once and leaves
    the other tasks alone until the body is done. Errors come out as with :func:`open_hidden_nursery`.

    The body decides how long all of this takes: each shield in it needs a deadline of its own.
    """
    async with open_hidden_nursery() as nursery:
        services = ServiceNursery(nursery)
        try:
            yield services
        finally:
            services._end()
