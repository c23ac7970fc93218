"""Whether each part of the API does its work: what ``/readyz`` answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from bedrock.api.problems import Problem
from bedrock.errors import BedrockError

Check = Callable[[], Awaitable[None]]

_PATIENCE_S = 3.0


async def check_parts(parts: Mapping[str, Check]) -> None:
    """Ask all parts at once. Raises a :class:`Problem` (503) that names those that failed or did not answer in time."""
    complaints: list[str] = []

    async def ask(name: str, check: Check) -> None:
        try:
            with trio.fail_after(_PATIENCE_S):
                await check()
        except trio.TooSlowError:
            complaints.append(f"{name} has not answered for {_PATIENCE_S:g} s")
        except trio.ClosedResourceError:
            complaints.append(f"{name} is closed")
        except BedrockError as error:
            complaints.append(f"{name}: {error}")

    async with trio.open_nursery() as nursery:
        for name, check in parts.items():
            nursery.start_soon(ask, name, check)
    if complaints:
        raise Problem(503, "; ".join(sorted(complaints)))
