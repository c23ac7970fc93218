"""Traces made by hand, byte for byte as the tracer writes them."""

from __future__ import annotations

import numpy as np
import zstandard

from bedrock.tracer.format import (
    BLOCK_HEADER,
    COLUMNS,
    FILE_HEADER,
    LAYOUT,
    MAGIC,
    NOTE_ENTRY,
    SKIPPABLE,
    VERSION,
    CallFlag,
    Mode,
    RecordType,
    TextFlag,
    dtype_of,
)
from bedrock.tracer.operations import Op

HAS_FILE = CallFlag.HAS_FILE
WITH_OFFSET = CallFlag.HAS_FILE | CallFlag.HAS_OFFSET


def record(kind: RecordType, text: bytes = b"", **fields: object) -> bytes:
    """The bytes of one record."""
    row = np.zeros(1, dtype_of(LAYOUT[kind]))
    padding = -(row.itemsize + len(text)) % 8
    row["size"], row["type"] = row.itemsize + len(text) + padding, kind
    for name, value in fields.items():
        row[name] = value
    return row.tobytes() + text + bytes(padding)


def text_record(kind: RecordType, text: bytes, **fields: object) -> bytes:
    return record(kind, text, text_size=len(text), **fields)


def call(op: Op, time_ns: int, **fields: object) -> bytes:
    return record(RecordType.CALL, **{"op": op, "time_ns": time_ns, "tid": 7, "tgid": 7, "offset": -1, **fields})


def file(path: str | bytes, *, inode: int, time_ns: int = 0, tid: int = 7, device: int = 4, mode: int = 0o100644,
         flags: int = 0, generation: int = 0, link: int = 0) -> bytes:  # fmt: skip
    """A FILE record; the path is turned round as the kernel does."""
    raw = path.encode() if isinstance(path, str) else path
    text = b"".join(part + b"/" for part in reversed(raw.split(b"/")) if part)
    return text_record(
        RecordType.FILE, text, inode=inode, time_ns=time_ns, tid=tid, device=device, mode=mode, flags=flags,
        generation=generation, link=link,
    )  # fmt: skip


def process(tid: int = 7, *, tgid: int | None = None, pid: int = 1, container_tid: int | None = None, parent: int = 0,
            time_ns: int = 2, started_ns: int = 0) -> bytes:  # fmt: skip
    """A PROCESS record, by default of a process's first thread, which the container calls ``pid``, too."""
    return record(
        RecordType.PROCESS, tid=tid, tgid=tid if tgid is None else tgid, time_ns=time_ns, parent=parent,
        container_pid=pid, container_tid=pid if container_tid is None else container_tid, started_ns=started_ns,
    )  # fmt: skip


def start(time_ns: int = 1, mode: Mode = Mode.EVENTS, unsupported: int = 0) -> bytes:
    return record(RecordType.START, time_ns=time_ns, mode=mode, unsupported=unsupported)


def end(time_ns: int = 1_000_000_000) -> bytes:
    return record(RecordType.END, time_ns=time_ns, seen=9, written=9)


def header(version: int = VERSION) -> bytes:
    row = np.zeros(1, dtype_of(FILE_HEADER))
    row["frame"], row["frame_size"] = SKIPPABLE, row.itemsize - 8
    row["magic"], row["version"] = int.from_bytes(MAGIC, "little"), version
    row["page_size"], row["realtime_offset_ns"] = 4096, 5
    return row.tobytes()


def _block(records: list[bytes], first_call: int) -> tuple[bytes, int]:
    kinds = [int.from_bytes(item[2:4], "little") for item in records]
    calls = np.frombuffer(
        b"".join(item for item, kind in zip(records, kinds, strict=True) if kind == RecordType.CALL),
        dtype_of(LAYOUT[RecordType.CALL]),
    )
    entries, notes, before = [], b"", 0
    for item, kind in zip(records, kinds, strict=True):
        if kind == RecordType.CALL:
            before += 1
        else:
            entries.append((len(notes), before))
            notes += item
    columns = []
    for field in COLUMNS:
        column = calls[field.name]
        if field.name == "time_ns":
            column = np.diff(column.astype(np.int64), prepend=0)
        columns.append(np.ascontiguousarray(column).tobytes())
    compress = zstandard.ZstdCompressor(level=1, write_checksum=True).compress
    packed_notes = compress(np.array(entries, dtype_of(NOTE_ENTRY)).tobytes() + notes) if entries else b""
    packed_calls = compress(b"".join(columns)) if len(calls) else b""
    row = np.zeros(1, dtype_of(BLOCK_HEADER))
    row["frame"], row["frame_size"] = SKIPPABLE, row.itemsize - 8
    row["calls"], row["notes"], row["note_bytes"] = len(calls), len(entries), len(notes)
    row["packed_notes"], row["packed_calls"], row["first_call"] = len(packed_notes), len(packed_calls), first_call
    if len(calls):
        row["first_ns"], row["last_ns"] = calls["time_ns"].min(), calls["time_ns"].max()
    return row.tobytes() + packed_notes + packed_calls, first_call + len(calls)


def trace(records: list[bytes], *, per_block: int = 1 << 16) -> bytes:
    """A whole trace file of these records."""
    content, first_call = header(), 0
    for at in range(0, len(records), per_block):
        block, first_call = _block(records[at : at + per_block], first_call)
        content += block
    return content


def sample(reads: int = 3) -> list[bytes]:
    """A process that opens a file, fails to open another, and reads."""
    return [
        start(),
        process(),
        text_record(RecordType.STRING, b"/bin/cat", tid=7, time_ns=2),
        text_record(RecordType.ARGV, b"cat\0/", tid=7, time_ns=2, flags=TextFlag.MORE),
        text_record(RecordType.ARGV, b"x\0", tid=7, time_ns=2),
        call(Op.EXECVE, 2),
        text_record(RecordType.STRING, b"/x", tid=7, time_ns=3),
        file("/y/x", inode=9, time_ns=3),
        call(Op.OPENAT, 3, result=3, fd=3, inode=9, device=4, flags=HAS_FILE),
        text_record(RecordType.STRING, b"/no\xff", tid=7, time_ns=4),
        call(Op.OPENAT, 4, result=-2),
        *(
            call(
                Op.READ, 5 + number, result=100, requested=128, offset=100 * number, inode=9, device=4,
                flags=WITH_OFFSET, duration_ns=1000,
            )
            for number in range(reads)
        ),
        end(),
    ]  # fmt: skip
