"""Pauses between attempts."""

from __future__ import annotations

import random
from collections.abc import Iterator


def backoff_delays(first_s: float, maximum_s: float, *, factor: float = 2.0, jitter: float = 0.25) -> Iterator[float]:
    """Yield the pauses between attempts for ever: growing, capped, each up to ``jitter`` shorter than its nominal
    value.

    The jitter keeps many clients that failed together from coming back together.
    """
    delay = min(first_s, maximum_s)
    while True:
        yield delay * (1 - jitter * random.random())
        delay = min(delay * factor, maximum_s)
