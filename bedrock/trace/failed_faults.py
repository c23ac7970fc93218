"""Which page faults ended in a signal: what the notes of that say of the fault before them, of the same thread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bedrock.trace.columns import NONE, as_of, codes_of
from bedrock.trace.decode import Calls
from bedrock.tracer.operations import Op


class Failed(NamedTuple):
    """Which calls of a block are faults that failed, and the files of those that are in an earlier block."""

    mask: NDArray[np.bool_]
    earlier: list[int]


class FailedFaults:
    """Matches FAULT_FAILED with FAULT, up to the block that was read last."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}  # by thread: the file of its last fault

    def read(self, calls: Calls, file: NDArray[np.int64]) -> Failed:
        """``file`` has the number of each call's file, or NONE."""
        op, mask = calls["op"], np.zeros(len(calls), bool)
        faults = np.flatnonzero(op == Op.FAULT)
        notes = np.flatnonzero(op == Op.FAULT_FAILED)
        earlier = []
        if len(notes):
            tids = calls["tid"].astype(np.int64)
            nothing = np.full(len(notes), NONE, np.int64)
            fault = as_of(tids[notes], notes, noted=tids[faults], positions=faults, values=faults, before=nothing)
            mask[fault[fault != NONE]] = True
            earlier = [self._last.pop(tid, NONE) for tid in tids[notes[fault == NONE]].tolist()]
        if len(faults):
            threads, codes = codes_of(calls["tid"][faults])
            last = np.empty(len(threads), np.int64)
            last[codes] = file[faults]  # where one index comes several times the last value stays
            self._last.update(zip(threads.tolist(), last.tolist(), strict=True))
        return Failed(mask, [number for number in earlier if number != NONE])
