"""What the tests of this part share: proof that nothing is left behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import pytest


def _in_use() -> tuple[int, int]:
    gc.collect()
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


@pytest.fixture
def in_use() -> Callable[[], tuple[int, int]]:
    """Count the threads and the descriptors of this process. Trio keeps idle threads of its own for ten seconds, so
    what is counted must have run once before the first count."""
    return _in_use
