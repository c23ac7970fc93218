"""Running one long-lived part as a process: signals, readiness, and errors in words."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator

import structlog
import trio

from bedrock.errors import BedrockError

log = structlog.get_logger(__name__)

_EXIT_USER_ERROR = 1
_EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
_EXIT_IMPATIENT = 130


def backoff_delays(first_s: float, maximum_s: float, *, factor: float = 2.0, jitter: float = 0.25) -> Iterator[float]:
    """Yield the pauses between attempts for ever: growing, capped, each up to ``jitter`` shorter than its nominal
    value.

    The jitter keeps many clients that failed together from coming back together.
    """
    delay = first_s
    while True:
        yield delay * (1 - jitter * random.random())
        delay = min(delay * factor, maximum_s)


class ServiceContext:
    """What a service's main function is handed. ``stopping`` is set by the first SIGTERM or SIGINT."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopping = trio.Event()

    def ready(self) -> None:
        """Say that the service can be used: to the log, and to systemd where it asked for that (sd_notify(3))."""
        log.info("ready", service=self.name)
        _notify("READY=1")

    def _stop(self, signal_name: str) -> None:
        log.info("stopping", service=self.name, signal=signal_name)
        _notify("STOPPING=1")
        self.stopping.set()


def _notify(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        try:
            notifier.sendto(message.encode(), address)
        except OSError as error:
            log.warning("systemd can't be notified", error=str(error))


def run_service(main: Callable[[ServiceContext], Awaitable[None]], *, name: str) -> int:
    """Run ``main`` until it returns; return the process's exit code.

    The first SIGTERM or SIGINT sets ``stopping``, the second cancels ``main``. What a user can mend
    (:class:`BedrockError`) becomes one line on stderr and 1; anything else is logged with its traceback and becomes 70.
    """
    impatient = False

    async def supervise() -> None:
        nonlocal impatient
        context = ServiceContext(name)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:

                async def obey() -> None:
                    nonlocal impatient
                    async for number in signals:
                        if context.stopping.is_set():
                            impatient = True
                            nursery.cancel_scope.cancel()
                        context._stop(signal.Signals(number).name)

                nursery.start_soon(obey)
                await main(context)
                nursery.cancel_scope.cancel()

    try:
        trio.run(supervise)
    except BaseException as error:
        own, other = _split(error)
        for item in own:
            print(f"bedrock: {item}", file=sys.stderr)
        if other is not None:
            log.error("service failed", service=name, exc_info=other)
            return _EXIT_INTERNAL
        return _EXIT_USER_ERROR
    return _EXIT_IMPATIENT if impatient else 0


def _split(error: BaseException) -> tuple[list[BedrockError], BaseException | None]:
    """The errors for users, wherever in the group they are, and the rest."""
    group = error if isinstance(error, BaseExceptionGroup) else BaseExceptionGroup("", [error])
    own, other = group.split(BedrockError)
    found: list[BedrockError] = []
    pending: list[BaseException] = [own] if own is not None else []
    while pending:
        item = pending.pop()
        if isinstance(item, BaseExceptionGroup):
            pending.extend(item.exceptions)
        elif isinstance(item, BedrockError):
            found.append(item)
    return found, other
