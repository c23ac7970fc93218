"""The blocks of a trace file, hopped over without unpacking any and without numpy: all that a node needs of a trace."""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

from bedrock.errors import BedrockError
from bedrock.tracer.format import BLOCK_HEADER, FILE_HEADER, MAGIC, SKIPPABLE, Field

_CODES = {"u16": "H", "u32": "I", "u64": "Q", "i32": "i", "i64": "q"}


def _struct_of(fields: Sequence[Field]) -> struct.Struct:
    return struct.Struct("<" + "".join(_CODES[field.kind] for field in fields))


_HEADER = _struct_of(FILE_HEADER)
_BLOCK = _struct_of(BLOCK_HEADER)


class TraceError(BedrockError):
    """The file is no trace, or of another version, or damaged."""


class TraceHead(NamedTuple):
    """The head of a trace file. ``first_block`` is where the first block begins, in bytes."""

    version: int
    realtime_offset_ns: int
    first_block: int


class BlockHeader(NamedTuple):
    """What can be known of a block without unpacking it. ``offset`` is where its frames begin, in bytes."""

    offset: int
    calls: int
    notes: int
    note_bytes: int
    packed_notes: int
    packed_calls: int
    reserved: int
    first_call: int
    first_ns: int
    last_ns: int


def read_head(path: Path) -> TraceHead:
    """Read the head of a trace of version 2 or later. Raises :class:`TraceError`."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except OSError as error:
        raise TraceError(f"{path} can't be read: {error.strerror}") from None
    if head[:8] == MAGIC:
        raise TraceError(f"{path} has version 1, which this Bedrock does not read any more")
    if len(head) < _HEADER.size or head[8:16] != MAGIC:
        raise TraceError(f"{path} is no trace of Bedrock's")
    _, frame_size, _, version, _, realtime_offset_ns = _HEADER.unpack(head)
    return TraceHead(version, realtime_offset_ns, 8 + frame_size)


def hop(path: Path, first_block: int) -> Generator[BlockHeader, None, bool]:
    """Yield the header of each block that is whole; return whether the file is, to its last byte.

    Raises :class:`TraceError` where a header makes no sense.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        at, calls = first_block, 0
        while at < size:
            file.seek(at)
            raw = file.read(_BLOCK.size)
            if len(raw) < _BLOCK.size:
                return False
            frame, frame_size, *numbers = _BLOCK.unpack(raw)
            if frame != SKIPPABLE or frame_size != _BLOCK.size - 8:
                raise TraceError(f"{path} is damaged: no block begins at byte {at}")
            at += _BLOCK.size
            header = BlockHeader(at, *numbers)
            if header.first_call != calls or not header.first_ns <= header.last_ns < 1 << 63:
                raise TraceError(f"{path} is damaged: the head of the block at byte {at} makes no sense")
            calls += header.calls
            at += header.packed_notes + header.packed_calls
            if at > size:
                return False
            yield header
        return True


def count_records(path: Path) -> int:
    """How many records a trace holds, as far as it is whole; 0 where there is none that can be read."""
    try:
        return sum(header.calls + header.notes for header in hop(path, read_head(path).first_block))
    except (TraceError, OSError):
        return 0
