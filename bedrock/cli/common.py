"""What the client commands share: running a coroutine, errors in one line, words for what sessions are."""

from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import ParamSpec

import click
import trio

from bedrock.cli.output import fail
from bedrock.concurrency.groups import first_member
from bedrock.duration import format_duration
from bedrock.errors import BedrockError
from bedrock.model import Session, utc_now

_P = ParamSpec("_P")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of a table.")


def async_command(function: Callable[_P, Awaitable[int | None]]) -> Callable[_P, None]:
    """Make a click callback of a coroutine function, whose result is the exit code."""

    @functools.wraps(function)
    def command(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            code = trio.run(functools.partial(function, *args, **kwargs))
        except* BedrockError as group:
            fail(first_member(group))
        except* KeyboardInterrupt:
            sys.exit(130)
        except* BrokenPipeError:
            # `bedrock ps | head`: whoever read us has seen enough.
            sys.stderr.close()
            sys.exit(141)
        sys.exit(code or 0)

    return command


def age(moment: datetime | None) -> str:
    """How long ago, in the two largest units."""
    if moment is None:
        return ""
    seconds = max(0, int((utc_now() - moment).total_seconds()))
    if seconds >= 86_400:
        return f"{seconds // 86_400}d{seconds % 86_400 // 3_600}h"
    if seconds >= 3_600:
        seconds -= seconds % 60
    return format_duration(seconds * 10**9)


def outcome_of(session: Session) -> str:
    """How a session ended, in a few words."""
    if session.reason is None:
        return session.message if not session.status.is_terminal else ""
    return f"{session.reason} {session.exit_code}" if session.exit_code is not None else str(session.reason)


def size_text(size: int) -> str:
    """Bytes for people: 999 B, 1.5 MB."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
