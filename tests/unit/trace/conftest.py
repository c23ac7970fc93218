"""Trace files made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from traces import trace


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a trace of these records; return where it is."""

    def make(records: list[bytes], *, per_block: int = 1 << 16) -> Path:
        path = tmp_path / "trace.bdt"
        path.write_bytes(trace(records, per_block=per_block))
        return path

    return make
