"""Whole columns of numbers joined with each other. Pure, and without a loop over their rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NONE = -1  # where there is no number


def codes_of(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct values in order of appearance, and for each value which of them it is: by hashing, not sorting."""
    encoded = pa.array(np.ascontiguousarray(values)).dictionary_encode()
    return np.asarray(encoded.dictionary), np.asarray(encoded.indices).astype(np.int64)


def as_of(
    key: NDArray[np.int64],
    at: NDArray[np.int64],
    *,
    noted: NDArray[np.int64],
    positions: NDArray[np.int64],
    values: NDArray[np.int64],
    before: NDArray[np.int64],
) -> NDArray[np.int64]:
    """For each call the value of the last note of its key that came before it, or ``before``.

    A note at position n came after n calls, so it holds from call number n on.
    """
    if not len(noted):
        return before
    distinct = np.unique(noted)
    found = np.searchsorted(distinct, key)
    found[found == len(distinct)] = 0
    concerned = np.flatnonzero(distinct[found] == key)
    if not len(concerned):
        return before
    base = int(min(positions.min(), at.min()))
    span = int(max(positions.max(), at.max())) - base + 2
    ranks = np.searchsorted(distinct, noted) * span + (positions - base)
    order = np.argsort(ranks, kind="stable")
    wanted = found[concerned] * span + (at[concerned] - base)
    last = np.searchsorted(ranks[order], wanted, side="right") - 1
    is_same = last >= 0
    is_same[is_same] = noted[order][last[is_same]] == key[concerned][is_same]
    result = before.copy()
    result[concerned[is_same]] = values[order][last[is_same]]
    return result


def join(
    tid: NDArray[np.int64],
    time_ns: NDArray[np.int64],
    values: NDArray[np.int64],
    wanted_tid: NDArray[np.int64],
    wanted_time_ns: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The value of each wanted pair of thread and time, or NONE. The first three columns go together."""
    result = np.full(len(wanted_tid), NONE, np.int64)
    if not len(tid) or not len(wanted_tid):
        return result
    order = np.lexsort((tid, time_ns))
    times, tids = time_ns[order], tid[order]
    at = np.searchsorted(times, wanted_time_ns)
    # Several threads may begin a call in the same nanosecond: a step further for each of them.
    while True:
        inside = at < len(times)
        same_time = inside.copy()
        same_time[inside] = times[at[inside]] == wanted_time_ns[inside]
        hit = same_time.copy()
        hit[same_time] = tids[at[same_time]] == wanted_tid[same_time]
        result[hit] = values[order][at[hit]]
        again = same_time & ~hit
        if not again.any():
            return result
        at = at + again


def contains(
    tid: NDArray[np.int64],
    time_ns: NDArray[np.int64],
    wanted_tid: NDArray[np.int64],
    wanted_time_ns: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Which of the wanted pairs of thread and time are there."""
    return np.not_equal(join(tid, time_ns, np.zeros(len(tid), np.int64), wanted_tid, wanted_time_ns), NONE)
