"""Calls as lines of JSON, made column by column: a value for each call would take ten times as long."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from bedrock.trace.schema import COLUMNS

# Left out when they are zero, which says nothing of these.
_UNKNOWN_IF_ZERO = {"duration_ns", "pid", "tid"}
_ENCODE = msgspec.json.Encoder().encode


def json_lines(batch: pa.RecordBatch) -> bytes:
    """The calls of a batch, one a line, as :class:`bedrock.trace.events.Event` would be encoded."""
    members = [_member(name, batch.column(name)) for name, _, _ in COLUMNS]
    members = [column for column in members if column.null_count < batch.num_rows]
    inside = pc.binary_join_element_wise(*members, ",", null_handling="skip")
    lines = pc.binary_join_element_wise("{", inside, "}\n", "")
    (text,) = pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "")
    return bytes(text.as_buffer())


def _member(name: str, column: pa.Array) -> pa.Array:
    """``"name":value`` of each row; null where nothing is to be shown."""
    key = f'"{name}":'
    if pa.types.is_boolean(column.type):
        if not column.true_count:
            return pa.nulls(len(column), pa.string())
        return pc.if_else(column, pa.scalar(f"{key}true"), pa.scalar(None, pa.string()))
    if pa.types.is_integer(column.type):
        if name in _UNKNOWN_IF_ZERO:
            column = pc.if_else(pc.equal(column, 0), pa.scalar(None, column.type), column)
        return pc.binary_join_element_wise(key, column.cast(pa.string()), "")
    if pa.types.is_list(column.type):
        return pa.array([None if words is None else key + _json(words) for words in column.to_pylist()], pa.string())
    texts = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    shown = pa.array([key + _json(text) for text in texts.dictionary.to_pylist()], pa.string())
    return shown.take(texts.indices)


def _json(value: Any) -> str:
    return _ENCODE(value).decode()
