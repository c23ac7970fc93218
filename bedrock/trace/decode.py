"""From the bytes of a trace to columns and notes, block by block: memory is bounded by the largest block.

Everything that there is much of is handled by numpy as whole columns. A trace that breaks off (its tracer was killed)
is read up to where it is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

from bedrock.trace.blocks import BlockHeader, TraceError, hop, read_head
from bedrock.trace.layouts import LAYOUTS, PRESENT
from bedrock.trace.notes import Notes, Start
from bedrock.tracer.format import NOTE_ENTRY, CallFlag, dtype_of
from bedrock.tracer.operations import MAX_OPS, Op

_ENTRY = dtype_of(NOTE_ENTRY)
# What a block may need when it is unpacked. The tracer's own are a tenth of this; a damaged size must not be believed.
_MAX_UNPACKED = 256 << 20


class Calls:
    """The calls of one block as columns: ``calls["time_ns"]`` is an array, as is every other field of CALL."""

    def __init__(self, columns: dict[str, NDArray[np.generic]]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns["op"])

    def __getitem__(self, name: str) -> NDArray[np.int64]:
        # All columns are whole numbers; those of 64 bits without a sign are identities, which nobody adds up.
        return self._columns[name]  # type: ignore[return-value]

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which calls did nothing: those that returned an error, and those that the kernel was never asked."""
        result = self["result"]
        has_error = (result < 0) & (result > -4096) & (self["op"] != Op.EXIT)
        failed: NDArray[np.bool_] = has_error | ((self["flags"] & CallFlag.DENIED) != 0)
        return failed

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Calls:
        """The calls that a mask, or an array of indices, chooses."""
        return Calls({name: column[chosen] for name, column in self._columns.items()})


class Block(NamedTuple):
    """A stretch of the trace. ``calls`` is empty where only the notes were asked for."""

    header: BlockHeader
    calls: Calls
    notes: Notes


class Trace:
    """One trace file. Iterate :meth:`blocks`; afterwards ``is_truncated`` says whether it broke off in a block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        head = read_head(path)
        if head.version not in LAYOUTS:
            known = " and ".join(map(str, LAYOUTS))
            raise TraceError(f"{path} has version {head.version}, this Bedrock reads versions {known}")
        self._layout = LAYOUTS[head.version]
        self._first_block = head.first_block
        self.page_size = head.page_size
        self.realtime_offset_ns = head.realtime_offset_ns
        self.is_truncated = False

    def start(self) -> Start | None:
        """The trace's own head, which is in its first block; None where the trace breaks off before that."""
        with self._path.open("rb") as file:
            for header in self.headers():
                for note in self._read(file, header, with_calls=False).notes:
                    if isinstance(note, Start):
                        return note
                break
        return None

    def headers(self) -> Iterator[BlockHeader]:
        """Hop from block to block without unpacking any."""
        is_whole = yield from hop(self._path, self._first_block)
        self.is_truncated = not is_whole

    def blocks(self, *, since_ns: int = 0, until_ns: int | None = None) -> Iterator[Block]:
        """Yield the trace from its head to its tail.

        Of blocks whose calls all lie outside ``since_ns`` and ``until_ns`` (on the trace's clock) only the notes are
        unpacked: names that are given there hold further on.
        """
        with self._path.open("rb") as file:
            for header in self.headers():
                is_outside = header.last_ns < since_ns or (until_ns is not None and header.first_ns > until_ns)
                yield self._read(file, header, with_calls=not is_outside)

    def _read(self, file: BinaryIO, header: BlockHeader, *, with_calls: bool) -> Block:
        entry_bytes = header.notes * _ENTRY.itemsize
        file.seek(header.offset)
        raw = self._unpack(file.read(header.packed_notes), entry_bytes + header.note_bytes)
        entries = np.frombuffer(raw, _ENTRY, header.notes)
        notes = Notes(entries, raw[entry_bytes:], header.first_call, self._layout)
        count = header.calls if with_calls else 0
        columns: dict[str, NDArray[np.generic]] = {}
        raw = b""
        if count:
            call_bytes = sum(dtype.itemsize for _, dtype in self._layout.columns)
            raw = self._unpack(file.read(header.packed_calls), count * call_bytes)
        at = 0
        for name, dtype in self._layout.columns:
            column: NDArray[np.generic] = np.frombuffer(raw, dtype, count, at) if count else np.empty(0, dtype)
            at += count * dtype.itemsize
            # Times are written as differences, since those are small.
            columns[name] = np.cumsum(column.view(np.int64)) if name == "time_ns" else column
        if count and int(columns["op"].max()) >= MAX_OPS:
            raise TraceError(f"{self._path} is damaged: a call has the operation {columns['op'].max()}")
        for name, dtype in PRESENT.columns:
            # A mark of version 3 has no room in the flags of version 2.
            columns[name] = columns[name].astype(dtype, copy=False) if name in columns else np.zeros(count, dtype)
        return Block(header, Calls(columns), notes)

    def _unpack(self, packed: bytes, size: int) -> bytes:
        if size > _MAX_UNPACKED:
            raise TraceError(f"{self._path} is damaged: a block claims to have {size} bytes")
        if not size:
            return b""
        try:
            # What a frame says of itself is allocated without being asked for.
            claimed = zstandard.frame_content_size(packed)
            if claimed not in {-1, size}:
                raise TraceError(f"{self._path} is damaged: a block of {size} bytes claims to have {claimed}")
            raw = zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
        except zstandard.ZstdError as error:
            raise TraceError(f"{self._path} is damaged: {error}") from None
        if len(raw) != size:
            raise TraceError(f"{self._path} is damaged: a block has {len(raw)} bytes instead of {size}")
        return raw
