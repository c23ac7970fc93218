"""The real curl."""

from __future__ import annotations

import json
from typing import Any

import trio


async def curl(*arguments: str) -> Any:
    """Run the real curl; return what it prints, as JSON where it is JSON."""
    done = await trio.run_process(["curl", "-sS", "--max-time", "20", *arguments], capture_stdout=True)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return done.stdout.decode()
