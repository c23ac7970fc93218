"""Running one long-lived part as a process: signals, readiness, and errors in words."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import structlog
import trio

from bedrock.concurrency.groups import members
from bedrock.errors import BedrockError
from bedrock.printable import printable_lines

log = structlog.get_logger(__name__)

_EXIT_USER_ERROR = 1
_EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
_EXIT_IMPATIENT = 130  # what shells call an end by Ctrl-C


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

    The first SIGTERM or SIGINT sets ``stopping``, the second cancels ``main`` and makes the code 130. What a user can
    mend (:class:`BedrockError`, in whatever group) becomes a line on stderr and 1; anything else is logged with its
    traceback and becomes 70.
    """
    context = ServiceContext(name)
    main_scope = trio.CancelScope()

    def obey(number: signal.Signals) -> None:
        if context.stopping.is_set():
            log.warning("stopping at once", service=name, signal=number.name)
            main_scope.cancel()
        else:
            context._stop(number.name)

    async def supervise() -> None:
        with _signals_to(obey), main_scope:
            await main(context)

    try:
        trio.run(supervise)
    except KeyboardInterrupt:
        return _EXIT_IMPATIENT  # it came before the signals were ours, or after
    except BaseException as error:
        own, other = _split(error)
        for item in own:
            print(printable_lines(f"bedrock: {item}", indent="    "), file=sys.stderr)
        if other is not None:
            log.error("service failed", service=name, exc_info=other)
            return _EXIT_INTERNAL
        return _EXIT_USER_ERROR
    log.info("stopped", service=name)
    return _EXIT_IMPATIENT if main_scope.cancelled_caught else 0


@contextmanager
def _signals_to(obey: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Have ``obey`` called in Trio for each signal.

    Trio's own receiver hands those that nobody has taken yet to the handlers from before it, at its end; that would
    let a repeated SIGTERM kill a process that has just finished cleaning up.
    """
    token = trio.lowlevel.current_trio_token()

    def handle(number: int, frame: FrameType | None) -> None:
        token.run_sync_soon(obey, signal.Signals(number))

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _split(error: BaseException) -> tuple[list[BaseException], BaseException | None]:
    """The errors for users, wherever in a group they are, and the rest."""
    if isinstance(error, BedrockError):
        return [error], None
    if not isinstance(error, BaseExceptionGroup):
        return [], error
    own, other = error.split(BedrockError)
    return [] if own is None else list(members(own)), other
