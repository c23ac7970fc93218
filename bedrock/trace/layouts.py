"""The layout of each version of the trace format that is read: the present one, and what was otherwise before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bedrock.tracer.format import COLUMNS, LAYOUT, VERSION, Field, RecordType, dtype_of

# Version 2, where it differs: the fields of a record in their order. Their meaning is that of the present fields of the
# same name; a field that is not there reads as 0.
_VERSION_2: dict[RecordType, str] = {
    RecordType.CALL: "duration_ns:u64 result:i64 inode:u64 offset:i64 requested:u64 arg:u64 device:u32 fd:i32 tgid:u32 "
    "op:u16 flags:u16",
    RecordType.FILE: "inode:u64 device:u32 mode:u32 text_size:u32 flags:u32 generation:u32 reserved:u32",
    RecordType.STRING: "text_size:u32 flags:u32 inode:u64 device:u32 reserved:u32",
    RecordType.PROCESS: "tgid:u32 parent:u32 container_tid:u32 container_pid:u32 comm_low:u64 comm_high:u64",
    RecordType.START: "namespace:u32 level:u32 mode:u32 is_filtered:u32",
    RecordType.FILE_TOTAL: "inode:u64 device:u32 tgid:u32 generation:u32 reserved:u32 opens:u64 reads:u64 "
    "read_bytes:u64 read_ns:u64 writes:u64 written_bytes:u64 write_ns:u64 maps:u64 faults:u64 others:u64 first_ns:u64 "
    "last_ns:u64 read_latency:u32[32] write_latency:u32[32]",
    RecordType.OP_TOTAL: "tgid:u32 op:u32 calls:u64 errors:u64 duration_ns:u64 latency:u32[32]",
}


class Layout(NamedTuple):
    """How one version lays its records out; ``columns`` are those of a block's calls, by name and in order."""

    records: dict[RecordType, np.dtype[np.void]]
    columns: list[tuple[str, np.dtype[np.void]]]


PRESENT = Layout(
    {kind: dtype_of(fields) for kind, fields in LAYOUT.items()},
    [(field.name, dtype_of([field])[0]) for field in COLUMNS],
)


def _old(changed: dict[RecordType, str]) -> Layout:
    records, columns = dict(PRESENT.records), PRESENT.columns
    for kind, text in changed.items():
        head = LAYOUT[kind][:4]
        fields = [*head, *(Field(name, sort, "") for name, sort in (word.split(":") for word in text.split()))]
        records[kind] = dtype_of(fields)
        if kind is RecordType.CALL:
            columns = [(field.name, dtype_of([field])[0]) for field in fields[2:]]
    return Layout(records, columns)


LAYOUTS = {2: _old(_VERSION_2), VERSION: PRESENT}
